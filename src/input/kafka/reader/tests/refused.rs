//! Brokers that refuse: what a human is told, and that reading goes on once it is mended.

use super::*;

#[tokio::test]
async fn a_group_that_may_not_be_joined_is_a_refusal_until_it_may() {
    let bench = Bench::with_topic();
    bench.put_envelopes(0..3);
    let no = Answer::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED;
    bench.cluster.request_errors(ApiKey::FindCoordinator, &[no]);
    let input = bench.input(false);
    let refusal = error(&input).await;
    assert!(refusal.needs_a_human(), "{refusal}");
    let text = refusal.to_string();
    assert!(
        text.contains("auditferry.hub.out") && text.contains("`group`") && text.contains("the right Read"),
        "{text}"
    );
    assert_once(&records(&until_idle(&input, 6).await), 0..3);
    input.close().await;
}

#[tokio::test]
async fn a_group_of_other_software_is_a_refusal() {
    let bench = Bench::with_topic();
    bench
        .cluster
        .request_errors(ApiKey::JoinGroup, &[Answer::RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL; 20]);
    let input = bench.input(false);
    let refusal = error(&input).await;
    assert!(refusal.needs_a_human() && refusal.to_string().contains("other software uses it"), "{refusal}");
    input.close().await;
}

#[tokio::test]
async fn a_broker_that_cannot_be_reached_is_a_refusal_that_names_the_key() {
    let mut bench = Bench::new();
    // Nobody listens on the port of a socket that is gone.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    bench.settings["bootstrap_servers"] = json!([format!("127.0.0.1:{port}")]);
    let input = bench.input(true);
    let refusal = error(&input).await;
    let text = refusal.to_string();
    assert!(refusal.needs_a_human(), "{text}");
    assert!(text.contains("cannot reach 127.0.0.1") && text.contains("`bootstrap_servers`"), "{text}");
    assert!(text.contains("refused"), "the reason: {text}");
    input.close().await;
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_a_refusal_until_it_is() {
    let bench = Bench::new();
    let gone = Answer::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    bench.cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
    bench.put_envelopes(0..3);
    bench.cluster.topic_error(TOPIC, gone).unwrap();
    let input = bench.input(false);
    let refusal = error(&input).await;
    let text = refusal.to_string();
    assert!(refusal.needs_a_human() && text.contains(TOPIC) && text.contains("`topics`"), "{text}");
    bench.cluster.topic_error(TOPIC, Answer::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    assert_once(&records(&until_idle(&input, 6).await), 0..3);
    input.close().await;
}

#[tokio::test]
async fn one_missing_topic_of_several_does_not_stop_the_others() {
    let mut bench = Bench::with_topic();
    bench.put_envelopes(0..3);
    bench.settings["topics"] = json!([TOPIC, "no-such-topic"]);
    let input = bench.input(false);
    let (mut chunks, mut trouble) = (Vec::new(), None);
    while trouble.is_none() || records(&chunks).len() < 6 {
        match next(&input).await.unwrap() {
            Read::Chunk(chunk) => chunks.push(chunk),
            Read::Trouble { partition, error } => trouble = Some((partition, error.to_string())),
            _ => {}
        }
    }
    let (partition, text) = trouble.unwrap();
    assert_eq!(partition.as_str(), "no-such-topic");
    assert!(text.contains("`topics`"), "{text}");
    input.close().await;
}

#[tokio::test]
async fn a_right_to_read_that_is_taken_away_is_told_and_reading_goes_on_once_it_is_given_back() {
    let bench = Bench::with_topic();
    bench.put_envelopes(0..3);
    let input = bench.input(false);
    let chunks = until_idle(&input, 6).await;
    acknowledge(&input, &chunks).await;
    bench.cluster.request_errors(ApiKey::Fetch, &[Answer::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    let refusal = error(&input).await;
    let text = refusal.to_string();
    assert!(
        refusal.needs_a_human() && text.contains("the right Read") && text.contains("`topics`"),
        "{text}"
    );
    bench.put_envelopes(3..6);
    assert_once(&records(&until_idle(&input, 6).await), 3..6);
    input.close().await;
}
