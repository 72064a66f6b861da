//! Batches that a broker or the way to it has broken.

use super::*;

/// A batch of one message at an offset, whose head tells of so many; with a wrong checksum if it is not to be whole.
fn batch(offset: i64, value: &str, messages: i32, whole: bool) -> Vec<u8> {
    // Attributes, offset and time within the batch, and no key, before the value; no headers after it.
    let mut message = vec![0, 0, 0, 1, u8::try_from(value.len() * 2).unwrap()];
    message.extend(value.as_bytes());
    message.push(0);
    let mut checked = vec![0; 2];
    checked.extend((messages - 1).to_be_bytes());
    checked.extend([0; 16]);
    checked.extend([0xff; 14]);
    checked.extend(messages.to_be_bytes());
    checked.push(u8::try_from(message.len() * 2).unwrap());
    checked.extend(message);
    let sum = checked.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 })
    });
    let mut batch = offset.to_be_bytes().to_vec();
    batch.extend(i32::try_from(checked.len() + 9).unwrap().to_be_bytes());
    batch.extend([0, 0, 0, 0, 2]);
    batch.extend((if whole { !sum } else { sum }).to_be_bytes());
    batch.extend(checked);
    batch
}

impl Bench {
    /// Puts batches as they are, which no producer would do.
    fn put_batches(&self, partition: i32, batches: &[u8]) {
        use std::io::{Read as _, Write as _};
        let mut request =
            vec![0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0, 0x3a, 0x98, 0, 0, 0, 1];
        request.extend(u16::try_from(TOPIC.len()).unwrap().to_be_bytes());
        request.extend(TOPIC.as_bytes());
        request.extend([0, 0, 0, 1]);
        request.extend(partition.to_be_bytes());
        request.extend(i32::try_from(batches.len()).unwrap().to_be_bytes());
        request.extend(batches);
        let servers = self.cluster.bootstrap_servers();
        let mut broker = std::net::TcpStream::connect(servers.split(',').next().unwrap()).unwrap();
        broker.write_all(&i32::try_from(request.len()).unwrap().to_be_bytes()).unwrap();
        broker.write_all(&request).unwrap();
        let mut answer = vec![0; 4 + 4 + 4 + 2 + TOPIC.len() + 4 + 4 + 2];
        broker.read_exact(&mut answer).unwrap();
        assert_eq!(answer[answer.len() - 2..], [0, 0], "{answer:?}");
    }
}

#[tokio::test]
async fn a_batch_that_is_broken_is_not_passed_and_other_partitions_go_on() {
    let bench = Bench::with_topic();
    bench.put(0, Some(r#"{"n":"first"}"#));
    bench.flush();
    // The broker takes both for one batch; the client tells them apart.
    bench.put_batches(
        0,
        &[batch(1, r#"{"n":"lost"}"#, 2, false), batch(2, r#"{"n":"after"}"#, 1, true)].concat(),
    );
    let input = bench.input(false);
    let (mut told, mut found) = (0, Vec::new());
    while told < 2 {
        match next(&input).await {
            Ok(Read::Chunk(chunk)) => {
                acknowledge(&input, [&chunk]).await;
                found.extend(records(&[chunk]));
            }
            Ok(Read::Idle) => {}
            Ok(Read::Trouble { partition, error }) => {
                let text = error.to_string();
                assert_eq!(partition.as_str(), format!("{TOPIC}/0"));
                assert!(
                    error.needs_a_human() && text.contains("at offset 1") && text.contains("BadMessage"),
                    "{text}"
                );
                told += 1;
                bench.put(1, Some(&format!(r#"{{"n":"other {told}"}}"#)));
                bench.flush();
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(found, [r#"{"n":"first"}"#, r#"{"n":"other 1"}"#]);
    input.close().await;
    assert_eq!(bench.committed(0), 1);
}
