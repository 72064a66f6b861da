//! What S3 tells of its objects: event notifications as they arrive in a queue.
//!
//! | way | the message's body |
//! |---|---|
//! | S3 → SQS, or S3 → SNS → SQS with raw delivery | `{"Records":[{"eventName":"ObjectCreated:Put","s3":{…}}]}`, key url-encoded |
//! | S3 → SNS → SQS | `{"Type":"Notification","Message":"<the body above>"}` |
//! | S3 → EventBridge → SQS | `{"source":"aws.s3","detail-type":"Object Created","detail":{…}}` |
//! | once, when the notification is set up | `{"Event":"s3:TestEvent",…}` |

use std::time::SystemTime;

use percent_encoding::percent_decode_str;
use serde_json::Value;

/// An object that was made or overwritten.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Created {
    pub(super) bucket: String,
    pub(super) key: String,
    /// Absent where the message does not tell it.
    pub(super) version: Option<Version>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) size: u64,
    /// Without quotes.
    pub(super) etag: String,
    pub(super) written_at: SystemTime,
}

impl Version {
    fn of(object: Option<&Value>, etag: &str, written_at: Option<&str>) -> Option<Self> {
        let object = object?;
        Some(Self {
            size: object.get("size")?.as_u64()?,
            etag: object.get(etag)?.as_str()?.to_owned(),
            written_at: written_at?.parse::<jiff::Timestamp>().ok()?.into(),
        })
    }
}

/// The objects that a message tells of: none in a test event or where something was removed; `None` if S3 sends no
/// such message.
pub(super) fn created(body: &str) -> Option<Vec<Created>> {
    let body: Value = serde_json::from_str(body).ok()?;
    match (text(&body, "/Type"), text(&body, "/Message")) {
        (Some("Notification"), Some(wrapped)) => told(&serde_json::from_str(wrapped).ok()?),
        _ => told(&body),
    }
}

fn told(body: &Value) -> Option<Vec<Created>> {
    if text(body, "/Event") == Some("s3:TestEvent") {
        return Some(Vec::new());
    }
    if text(body, "/source") == Some("aws.s3") {
        return Some(by_event_bridge(body));
    }
    let records = body.get("Records")?.as_array()?;
    // SES and others use the same envelope.
    if records.iter().any(|record| record.get("s3").is_none()) {
        return None;
    }
    Some(records.iter().filter_map(by_record).collect())
}

fn by_record(record: &Value) -> Option<Created> {
    // As a filter is written, the name begins with `s3:`; servers of S3's kind write it so in the record too.
    let event = text(record, "/eventName")?;
    if !event.trim_start_matches("s3:").starts_with("ObjectCreated:") {
        return None;
    }
    let bucket = text(record, "/s3/bucket/name")?.to_owned();
    let version = Version::of(record.pointer("/s3/object"), "eTag", text(record, "/eventTime"));
    Some(Created { bucket, key: decoded(text(record, "/s3/object/key")?)?, version })
}

fn by_event_bridge(body: &Value) -> Vec<Created> {
    if text(body, "/detail-type") != Some("Object Created") {
        return Vec::new();
    }
    let (Some(bucket), Some(key)) = (text(body, "/detail/bucket/name"), text(body, "/detail/object/key"))
    else {
        return Vec::new();
    };
    let object = |key: String, version| Created { bucket: bucket.to_owned(), key, version };
    match decoded(key).filter(|decoded| decoded != key) {
        // Nobody documents whether this key is encoded. A look at a key that is not there costs one request.
        Some(decoded) => vec![object(key.to_owned(), None), object(decoded, None)],
        None => {
            let version = Version::of(body.pointer("/detail/object"), "etag", text(body, "/time"));
            vec![object(key.to_owned(), version)]
        }
    }
}

/// A key as `application/x-www-form-urlencoded` has it: a space is `+`, other bytes are `%XX`.
fn decoded(key: &str) -> Option<String> {
    let spaced = key.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(String::from)
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: &str, key: &str) -> String {
        format!(
            r#"{{"eventVersion":"2.1","eventSource":"aws:s3","eventTime":"2026-01-05T10:00:00.000Z","eventName":"{event}","s3":{{"bucket":{{"name":"acme"}},"object":{{"key":"{key}","size":1024,"eTag":"d41d8cd98f00b204e9800998ecf8427e","sequencer":"0055AED6DCD90281E5"}}}}}}"#
        )
    }

    fn records(records: &[String]) -> String {
        format!(r#"{{"Records":[{}]}}"#, records.join(","))
    }

    fn event_bridge(kind: &str, key: &str) -> String {
        format!(
            r#"{{"version":"0","detail-type":"{kind}","source":"aws.s3","time":"2026-01-05T10:00:00Z","resources":["arn:aws:s3:::acme"],"detail":{{"version":"0","bucket":{{"name":"acme"}},"object":{{"key":"{key}","size":5,"etag":"b1946ac92492d2347c6235b4d2611184"}},"reason":"PutObject"}}}}"#
        )
    }

    fn keys(body: &str) -> Vec<String> {
        let created = created(body).unwrap();
        assert!(created.iter().all(|created| created.bucket == "acme"));
        created.into_iter().map(|created| created.key).collect()
    }

    #[test]
    fn a_notification_of_s3_tells_its_objects_however_it_was_put_there() {
        for event in ["Put", "Post", "Copy", "CompleteMultipartUpload"] {
            assert_eq!(keys(&records(&[record(&format!("ObjectCreated:{event}"), "a")])), ["a"]);
        }
        let two = [record("ObjectCreated:Put", "a"), record("s3:ObjectCreated:Put", "b")];
        assert_eq!(keys(&records(&two)), ["a", "b"]);
    }

    #[test]
    fn a_notification_tells_the_version_if_it_is_whole() {
        let version = |body: &str| created(body).unwrap().remove(0).version;
        let written_at = "2026-01-05T10:00:00Z".parse::<jiff::Timestamp>().unwrap().into();
        let etag = "d41d8cd98f00b204e9800998ecf8427e".to_owned();
        let direct = records(&[record("ObjectCreated:Put", "a")]);
        assert_eq!(version(&direct), Some(Version { size: 1024, etag, written_at }));
        let etag = "b1946ac92492d2347c6235b4d2611184".to_owned();
        let bridged = event_bridge("Object Created", "a");
        assert_eq!(version(&bridged), Some(Version { size: 5, etag, written_at }));
        for part in ["size", "eTag", "eventTime"] {
            assert_eq!(version(&direct.replace(part, "other")), None, "{part}");
        }
    }

    #[test]
    fn sns_wraps_it_in_text() {
        let inner = records(&[record("ObjectCreated:Put", "a%3D1")]);
        let topic = "arn:aws:sns:eu-central-1:123456789012:audit";
        let wrapped = serde_json::json!({ "Type": "Notification", "TopicArn": topic, "Message": inner });
        assert_eq!(keys(&wrapped.to_string()), ["a=1"]);
        let bridged = event_bridge("Object Created", "b");
        let wrapped = serde_json::json!({ "Type": "Notification", "TopicArn": topic, "Message": bridged });
        assert_eq!(keys(&wrapped.to_string()), ["b"]);
    }

    #[test]
    fn event_bridge_has_a_form_of_its_own() {
        assert_eq!(keys(&event_bridge("Object Created", "logs/a.json")), ["logs/a.json"]);
        assert_eq!(keys(&event_bridge("Object Created", "a+b%3D")), ["a+b%3D", "a b="]);
        for kind in ["Object Deleted", "Object Tags Added", "Object Restore Completed"] {
            assert!(keys(&event_bridge(kind, "a")).is_empty(), "{kind}");
        }
    }

    #[test]
    fn keys_are_decoded_as_a_form_is() {
        let key = "logs%2FworkspaceId%3D7/date=2026-01-05/auditlogs+%2B+%C3%BC%26.json";
        let decoded = "logs/workspaceId=7/date=2026-01-05/auditlogs + ü&.json";
        assert_eq!(keys(&records(&[record("ObjectCreated:Put", key)])), [decoded]);
        assert!(keys(&records(&[record("ObjectCreated:Put", "no%FFtext")])).is_empty());
    }

    #[test]
    fn what_makes_no_object_is_no_hint() {
        let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-01-05T10:00:00.000Z","Bucket":"acme"}"#;
        assert!(keys(test).is_empty());
        let wrapped = serde_json::json!({ "Type": "Notification", "Message": test });
        assert!(keys(&wrapped.to_string()).is_empty());
        for event in [
            "ObjectRemoved:Delete",
            "ObjectRemoved:DeleteMarkerCreated",
            "ObjectTagging:Put",
            "ObjectAcl:Put",
        ] {
            assert!(keys(&records(&[record(event, "a")])).is_empty(), "{event}");
        }
    }

    #[test]
    fn what_s3_does_not_send_is_recognised() {
        for body in [
            "",
            "a text",
            "[]",
            "{}",
            r#"{"Records":{}}"#,
            r#"{"Records":[{"eventSource":"aws:ses","ses":{}}]}"#,
            r#"{"source":"aws.ec2","detail-type":"Object Created","detail":{}}"#,
            r#"{"Type":"Notification","Message":"the build is done"}"#,
            r#"{"Type":"SubscriptionConfirmation","Message":"You have chosen to subscribe"}"#,
        ] {
            assert_eq!(created(body), None, "{body}");
        }
    }
}
