//! A store whose answers take their time: others are asked for meanwhile, and what is large is asked for in ranges.

use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use futures::stream::BoxStream;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    PutMultipartOptions, PutOptions, PutResult,
};

use super::*;

/// A store that notes what is asked for, and how much of it at once.
#[derive(Debug)]
struct Noting {
    inner: Arc<InMemory>,
    asked: Mutex<Vec<Range<u64>>>,
    under_way: Mutex<(usize, usize)>,
}

impl Noting {
    fn before(inner: &Arc<InMemory>) -> Arc<Self> {
        Arc::new(Self { inner: Arc::clone(inner), asked: Mutex::default(), under_way: Mutex::default() })
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        let mut asked = self.asked.lock().unwrap().clone();
        asked.sort_by_key(|range| range.start);
        asked
    }

    /// The most requests that were under way at once.
    fn most(&self) -> usize {
        self.under_way.lock().unwrap().1
    }
}

impl fmt::Display for Noting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Noting")
    }
}

#[async_trait]
impl ObjectStore for Noting {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        if let Some(GetRange::Bounded(range)) = &options.range {
            self.asked.lock().unwrap().push(range.clone());
        }
        {
            let mut under_way = self.under_way.lock().unwrap();
            under_way.0 += 1;
            under_way.1 = under_way.1.max(under_way.0);
        }
        // Long enough that all who would ask do: the clock stands still while anyone has something to do.
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.under_way.lock().unwrap().0 -= 1;
        self.inner.get_opts(location, options).await
    }

    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Reads all there is and commits it as it comes.
async fn read_all(bench: &mut Bench, store: &Arc<Noting>) -> Outcome {
    bench.wrapped = Some(Arc::clone(store) as Arc<dyn ObjectStore>);
    bench.run().await
}

#[tokio::test(start_paused = true)]
async fn more_objects_are_asked_for_than_are_read_at_once() {
    let mut bench = Bench::new();
    bench.settings["concurrency"] = 2.into();
    for object in 0..40 {
        bench.put(&KEY.replace("_1.json", &format!("_{object}.json")), lines(object, 1)).await;
    }
    let store = Noting::before(&bench.store);
    assert_eq!(read_all(&mut bench, &store).await.texts().len(), 40);
    assert_eq!(store.most(), 2 * ASKED_FOR_EACH);
}

#[tokio::test(start_paused = true)]
async fn of_large_objects_one_is_asked_for_beyond_those_that_may_be_read() {
    let mut bench = Bench::new();
    bench.settings["concurrency"] = 2.into();
    for object in 0..12 {
        bench.put(&KEY.replace("_1.json", &format!("_{object}.json")), lines(2000 * object, 1100)).await;
    }
    let store = Noting::before(&bench.store);
    assert_eq!(read_all(&mut bench, &store).await.texts().len(), 12 * 1100);
    assert_eq!(store.ranges(), [], "each is asked for as a whole");
    assert_eq!(store.most(), 2 + LARGE_AHEAD);
}

#[test]
fn of_a_directory_no_more_files_are_read_than_the_cores_can_keep_up_with() {
    assert_eq!((readers(64, false), readers(1, true)), (64, 1));
    assert_eq!(readers(usize::MAX, true), FEW_FOR_EACH_CORE * cores());
}

#[tokio::test(start_paused = true)]
async fn a_large_object_is_asked_for_in_ranges_ahead_of_the_one_that_is_read() {
    let mut bench = Bench::new();
    // Chunks of 64 KiB, ranges of a quarter: 4 MB in 250 of them.
    bench.settings["concurrency"] = 64.into();
    bench.put(KEY, lines(0, 4000)).await;
    let store = Noting::before(&bench.store);
    let outcome = read_all(&mut bench, &store).await;
    let texts = outcome.texts();
    assert_eq!(texts.len(), 4000);
    assert!(texts.iter().enumerate().all(|(line, text)| text.contains(&format!("\"line\":{line},"))));
    let (ranges, bytes) = (store.ranges(), lines(0, 4000).len() as u64);
    assert!(ranges.len() > 200, "{ranges:?}");
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "each byte once: {ranges:?}");
    assert_eq!((ranges[0].start, ranges[ranges.len() - 1].end, outcome.fetched), (0, bytes, bytes));
    assert_eq!(store.most(), 7);
}

#[tokio::test(start_paused = true)]
async fn where_the_memory_has_no_room_the_next_range_is_asked_for_all_the_same() {
    let mut bench = Bench::new();
    bench.settings["concurrency"] = 2.into();
    // Chunks of 64 KiB, ranges of a quarter, and half of that to read ahead with.
    bench.put(KEY, lines(0, 4000)).await;
    bench.memory = 32 << 10;
    let store = Noting::before(&bench.store);
    assert_eq!(read_all(&mut bench, &store).await.texts().len(), 4000);
    let (ranges, bytes) = (store.ranges(), lines(0, 4000).len() as u64);
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "each byte once: {ranges:?}");
    assert_eq!(ranges[ranges.len() - 1].end, bytes);
    assert_eq!(store.most(), 1);
}

#[tokio::test]
async fn a_range_that_breaks_off_is_not_taken_for_the_next_ones_beginning() {
    let mut bench = Bench::new();
    bench.settings["concurrency"] = 64.into();
    bench.put(KEY, lines(0, 2000)).await;
    // As if overwritten by the same: each of the first answers ends early, and says nothing of it.
    bench.wrapped = Some(Arc::new(BreakingOff::new(Arc::clone(&bench.store), 2, Some(lines(0, 2000)))));
    let outcome = bench.run().await;
    assert!(outcome.malformed.is_empty());
    assert_eq!(outcome.texts().len(), 2000);
}
