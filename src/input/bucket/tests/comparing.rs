//! Objects that are read whole and compared with what was shipped of them.

use super::*;

#[tokio::test]
async fn lines_inserted_before_the_offset_are_found_and_no_other_is_sent_again() {
    let bench = Bench::new();
    bench.put(KEY, lines(0, 300)).await;
    bench.run().await;
    bench.put(KEY, lines(0, 100) + &lines(9000, 2) + &lines(100, 201)).await;
    let second = bench.run().await;
    let texts = second.texts();
    assert_eq!(texts.len(), 3);
    assert!(texts[0].contains("9000") && texts[1].contains("9001") && texts[2].contains("\"line\":300"));
    assert_eq!((second.mismatches, second.skipped), (1, 300));
}

#[tokio::test]
async fn an_object_that_shrinks_and_grows_back_sends_nothing_twice() {
    let bench = Bench::new();
    bench.put(KEY, lines(0, 300)).await;
    bench.run().await;
    bench.put(KEY, lines(0, 100)).await;
    assert!(bench.run().await.texts().is_empty());
    bench.put(KEY, lines(0, 301)).await;
    assert_eq!(bench.run().await.texts().len(), 1);
    bench.put(KEY, lines(0, 302)).await;
    assert_eq!(bench.run().await.skipped, 0, "growth is cheap again once nothing is missing");
}

#[tokio::test]
async fn the_same_content_under_a_new_etag_sends_nothing() {
    let bench = Bench::new();
    bench.put(KEY, lines(0, 10)).await;
    bench.run().await;
    bench.put(KEY, lines(0, 10)).await;
    let second = bench.run().await;
    assert_eq!((second.texts().len(), second.mismatches), (0, 0));
    assert_eq!(bench.run().await.fetched, 0);
}

#[tokio::test]
async fn a_comparison_that_meets_the_last_fingerprint_kept_survives_a_crash() {
    let bench = Bench::new();
    bench.put(KEY, lines(0, 3000)).await;
    bench.run().await;
    bench
        .recommit(|position| position.shipped = u64::from(fingerprint::MAX_FINGERPRINTS) - 10, Note::Keep)
        .await;
    bench.put(KEY, lines(10_000, 100) + &lines(0, 3000)).await;
    assert_eq!(bench.run_and_commit(1).await.texts().len(), 100);
    assert_eq!(bench.run().await.texts(), Vec::<&str>::new());
}

#[tokio::test]
async fn objects_with_many_fingerprints_are_compared_when_there_is_room_and_others_meanwhile() {
    let bench = Bench::new();
    let other = KEY.replace("_1", "_2");
    bench.put(KEY, lines(0, 10)).await;
    bench.put(&other, lines(0, 10)).await;
    bench.run().await;
    let many = u64::from(fingerprint::MAX_FINGERPRINTS);
    bench.recommit(|position| position.shipped = many, Note::Keep).await;
    let (reads_in, mut reads) = mpsc::channel(16);
    let reader = bench.reader(reads_in);
    let mut found = Vec::new();
    for key in [KEY, &other] {
        bench.put(key, lines(100, 5)).await;
        let meta = bench.store.head(&Path::from(key)).await.unwrap();
        found.push(Found::new(&meta, layout::Place::default()));
    }
    let (small, large) = (found.pop().unwrap(), found.pop().unwrap());
    let taken = reader.fingerprints.take(many).await;
    let mut large = Box::pin(reader.read(large, noon()));
    tokio::select! {
        biased;
        read = &mut large => panic!("{read:?}"),
        read = reader.read(small, noon()) => read.unwrap(),
    }
    let mut read = || match reads.try_recv() {
        Ok(Ok(Read::Chunk(chunk))) => Some(chunk.partition.to_string()),
        _ => None,
    };
    assert_eq!((read(), read()), (Some(other), None));
    drop(taken);
    large.await.unwrap();
    assert_eq!(read().as_deref(), Some(KEY));
}
