//! Asks the brokers whether the topics are there and the login is known, without joining the group.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::{ClientConfig, TopicPartitionList};
use tokio::time::Instant;

use super::group::{Group, News};
use super::refusal::{Complaint, Names};
use crate::component::Probe;

/// Longest wait for a broker.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what the client has to tell is listened to after each question.
const HEARING: Duration = Duration::from_millis(200);
/// One question of several.
const QUESTION: Duration = Duration::from_secs(2);

/// Blocks.
pub(super) fn run(client: &ClientConfig, topics: &[String], names: &Names, group: Group) -> Probe {
    match seen(client, topics, names, group) {
        Ok(partitions) => Probe::Ready(format!(
            "{partitions} partitions of {} can be seen; whether they may be read, only reading shows",
            topics.join(", ")
        )),
        Err(why) => Probe::Failed(why),
    }
}

/// How many partitions there are; or what is wrong, in a sentence.
fn seen(client: &ClientConfig, topics: &[String], names: &Names, group: Group) -> Result<usize, String> {
    let consumer: BaseConsumer<Group> =
        client.create_with_context(group).map_err(|error| format!("{error}; check `tls` and its files"))?;
    let explained = |code: Code, reason: String| Complaint { code, reason }.explain(names, false).to_string();
    let until = Instant::now() + PATIENCE;
    let mut known = TopicPartitionList::new();
    let mut complaint = None;
    for topic in topics {
        let metadata = loop {
            hear(&consumer);
            let failed = match consumer.fetch_metadata(Some(topic), QUESTION) {
                Ok(metadata) => break metadata,
                Err(error) => error,
            };
            hear(&consumer);
            complaint = last_of(&consumer, complaint);
            let over = Instant::now() >= until;
            match complaint.take() {
                Some(complaint) if over || !complaint.is_of_brokers() => {
                    return Err(complaint.explain(names, false).to_string());
                }
                None if over => return Err(explained(Code::AllBrokersDown, failed.to_string())),
                waiting => complaint = waiting,
            }
        };
        let found = metadata.topics().iter().find(|found| found.name() == topic.as_str());
        if let Some(code) = found.and_then(|found| found.error()).map(Code::from) {
            return Err(explained(code, format!("{topic}: {code}")));
        }
        for partition in found.into_iter().flat_map(|found| found.partitions()) {
            let _added = known.add_partition(topic, partition.id());
        }
    }
    let partitions = known.count();
    // The group's positions are another right.
    match consumer.committed_offsets(known, PATIENCE) {
        Err(KafkaError::OffsetFetch(code)) => Err(explained(code, code.to_string())),
        _ => Ok(partitions),
    }
}

/// Has the client ask for a token where it needs one, and tell what is wrong: one thing a poll, and its log comes too.
fn hear(consumer: &BaseConsumer<Group>) {
    let until = Instant::now() + HEARING;
    while Instant::now() < until {
        let _nothing = consumer.poll(HEARING / 10);
    }
}

/// The last complaint; that all brokers are gone says less than why the last one was.
fn last_of(consumer: &BaseConsumer<Group>, before: Option<Complaint>) -> Option<Complaint> {
    let complaints = consumer.context().take_news().into_iter().filter_map(|news| match news {
        News::Complaint(complaint) => Some(complaint),
        News::Assigned(_) | News::Revoked(_) | News::Begun(_) => None,
    });
    complaints.fold(before, |last, complaint| match last {
        Some(last) if complaint.code == Code::AllBrokersDown => Some(last),
        _ => Some(complaint),
    })
}
