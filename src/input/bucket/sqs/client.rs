//! The queue itself, by the AWS SDK.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::config::{BehaviorVersion, IdentityCache, Region};
use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::DeleteMessageBatchRequestEntry;
use object_store::aws::AwsCredentialProvider;
use url::Url;

use super::{MOST_MESSAGES, Message, MessageQueue};
use crate::aws;
use crate::component::BuildError;
use crate::input::InputError;
use crate::input::bucket::store::{self, S3Settings};

/// How long SQS waits for a message before it answers that there is none: its longest.
const WAIT_SECONDS: i32 = 20;
/// How long a received message is hidden from others: until it comes back if this process dies before it is deleted.
const VISIBILITY_SECONDS: i32 = 60;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than SQS waits for a message.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A queue in SQS.
#[derive(Debug)]
pub(super) struct SqsQueue {
    client: Client,
    url: String,
}

impl SqsQueue {
    /// The queue at an address, with the credentials of the bucket.
    pub(super) fn new(address: &Url, settings: &S3Settings) -> Result<Self, BuildError> {
        let region = match region_in(address.host_str().unwrap_or_default()) {
            Some(region) => region.to_owned(),
            None => store::s3_region(settings)?,
        };
        let Some(provider) = aws::provider(&settings.login(), &region)? else {
            return Err(BuildError::new("s3.sqs_queue_url", "a queue wants credentials"));
        };
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_timeout(REQUEST_TIMEOUT)
            .build();
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region))
            // The SDK would make an address of the region; a private endpoint has another one.
            .endpoint_url(address.origin().ascii_serialization())
            .credentials_provider(Signer(provider))
            // The provider keeps them itself, and looks those of the configuration up each time.
            .identity_cache(IdentityCache::no_cache())
            .http_client(aws::http_client())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .build();
        Ok(Self { client: Client::from_conf(config), url: address.to_string() })
    }
}

#[async_trait]
impl MessageQueue for SqsQueue {
    async fn receive(&self) -> Result<Vec<Message>, InputError> {
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(MOST_MESSAGES).unwrap_or(1))
            .wait_time_seconds(WAIT_SECONDS)
            .visibility_timeout(VISIBILITY_SECONDS)
            .send()
            .await
            .map_err(|error| refusal("receive from", "sqs:ReceiveMessage", &error))?;
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(message).collect())
    }

    async fn delete(&self, receipts: Vec<String>) -> Result<(), InputError> {
        let entries = receipts.into_iter().enumerate().map(|(number, receipt)| {
            DeleteMessageBatchRequestEntry::builder().id(number.to_string()).receipt_handle(receipt).build()
        });
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| InputError::Transient {
            action: "cannot delete messages of the queue".to_owned(),
            source: error,
        };
        let entries = entries.collect::<Result<Vec<_>, _>>().map_err(|error| failed(error.into()))?;
        let answer = self
            .client
            .delete_message_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| refusal("delete messages of", "sqs:DeleteMessage", &error))?;
        match answer.failed.first() {
            Some(first) => Err(failed(first.code.clone().into())),
            None => Ok(()),
        }
    }
}

fn message(message: aws_sdk_sqs::types::Message) -> Option<Message> {
    Some(Message {
        id: message.message_id.unwrap_or_default(),
        body: message.body?,
        receipt: message.receipt_handle?,
    })
}

/// Tells what passes from what a human must put right, by the code of the answer.
fn refusal<E, R>(act: &str, right: &str, error: &SdkError<E, R>) -> InputError
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    const DENIED: [&str; 8] = [
        "AccessDenied",
        "ExpiredToken",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClient",
    ];
    let action = format!("cannot {act} the queue");
    let code = error.code().unwrap_or_default();
    let source = match error.message() {
        Some(message) => format!("{code}: {message}"),
        None => DisplayErrorContext(error).to_string(),
    };
    let remedy = if code.contains("NonExistentQueue") || code.contains("QueueDoesNotExist") {
        "check `s3.sqs_queue_url`".to_owned()
    } else if code.to_ascii_lowercase().starts_with("kms") && !code.contains("Throttled") {
        "let the credentials decrypt with the queue's key (kms:Decrypt)".to_owned()
    } else if DENIED.iter().any(|denied| code.contains(denied)) {
        format!("check the credentials and that they have {right} on the queue of `s3.sqs_queue_url`")
    } else {
        return InputError::Transient { action, source: source.into() };
    };
    InputError::Refused { action, source: source.into(), remedy }
}

/// The region in the host name of a queue: `sqs.<region>.amazonaws.com`, that of a private endpoint, or the old form
/// `<region>.queue.amazonaws.com`.
fn region_in(host: &str) -> Option<&str> {
    let labels: Vec<&str> = host.split('.').collect();
    let service = labels.iter().position(|label| matches!(*label, "sqs" | "sqs-fips" | "queue"))?;
    let place = if labels.get(service) == Some(&"queue") { service.checked_sub(1)? } else { service + 1 };
    labels.get(place).copied().filter(|label| label.contains('-'))
}

/// The bucket's credentials, as the SDK wants them.
#[derive(Debug)]
struct Signer(AwsCredentialProvider);

impl ProvideCredentials for Signer {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let provider = Arc::clone(&self.0);
        future::ProvideCredentials::new(async move {
            let found = provider.get_credential().await.map_err(CredentialsError::provider_error)?;
            Ok(Credentials::new(&found.key_id, &found.secret_key, found.token.clone(), None, "auditferry"))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::Router;
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use serde_json::Value;
    use tokio::task::JoinSet;

    use super::*;

    /// Answers every request with one status and body, and keeps what was asked.
    #[derive(Clone, Debug)]
    struct Script {
        status: u16,
        answer: String,
        asked: Arc<Mutex<Vec<(String, Value)>>>,
    }

    /// A queue that speaks as it is told.
    struct Scripted {
        queue: SqsQueue,
        asked: Arc<Mutex<Vec<(String, Value)>>>,
        _server: JoinSet<()>,
    }

    async fn scripted(status: u16, answer: &str) -> Scripted {
        let asked = Arc::<Mutex<Vec<(String, Value)>>>::default();
        let script = Script { status, answer: answer.to_owned(), asked: Arc::clone(&asked) };
        let router = Router::new().fallback(serve).with_state(script);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/123456789012/audit", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async { axum::serve(listener, router).await.unwrap() });
        let settings = serde_json::json!({ "region": "eu-central-1", "access_key_id": "AKIA", "secret_access_key": "s" });
        let settings: S3Settings = serde_json::from_value(settings).unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let queue = SqsQueue::new(&Url::parse(&address).unwrap(), &settings).unwrap();
        Scripted { queue, asked, _server: server }
    }

    async fn serve(State(script): State<Script>, headers: HeaderMap, body: String) -> (StatusCode, String) {
        let target = headers["x-amz-target"].to_str().unwrap().to_owned();
        assert!(headers["authorization"].to_str().unwrap().contains("/eu-central-1/sqs/aws4_request"));
        script.asked.lock().unwrap().push((target, serde_json::from_str(&body).unwrap()));
        (StatusCode::from_u16(script.status).unwrap(), script.answer)
    }

    #[tokio::test]
    async fn messages_are_waited_for_and_hidden_while_they_are_told() {
        let answer = r#"{"Messages":[{"MessageId":"1","ReceiptHandle":"r1","Body":"{}"},{"MessageId":"2"}]}"#;
        let scripted = scripted(200, answer).await;
        let messages = scripted.queue.receive().await.unwrap();
        assert_eq!(messages.len(), 1, "one without a body is none");
        assert_eq!((messages[0].id.as_str(), messages[0].receipt.as_str()), ("1", "r1"));
        let asked = scripted.asked.lock().unwrap();
        assert_eq!(asked[0].0, "AmazonSQS.ReceiveMessage");
        assert_eq!(asked[0].1["MaxNumberOfMessages"], 10);
        assert_eq!(asked[0].1["WaitTimeSeconds"], 20);
        assert_eq!(asked[0].1["VisibilityTimeout"], 60);
        assert!(asked[0].1["QueueUrl"].as_str().unwrap().ends_with("/123456789012/audit"));
    }

    #[tokio::test]
    async fn messages_are_deleted_together_and_one_that_stays_is_an_error() {
        let receipts = || vec!["r1".to_owned(), "r2".to_owned()];
        let good = scripted(200, r#"{"Successful":[{"Id":"0"},{"Id":"1"}],"Failed":[]}"#).await;
        good.queue.delete(receipts()).await.unwrap();
        let asked = good.asked.lock().unwrap().clone();
        assert_eq!(asked[0].0, "AmazonSQS.DeleteMessageBatch");
        assert_eq!(asked[0].1["Entries"][1], serde_json::json!({ "Id": "1", "ReceiptHandle": "r2" }));
        let failed = r#"{"Successful":[],"Failed":[{"Id":"0","Code":"InternalError","SenderFault":false}]}"#;
        let error = scripted(200, failed).await.queue.delete(receipts()).await.unwrap_err();
        assert!(!error.needs_a_human() && error.to_string().contains("InternalError"), "{error}");
    }

    #[tokio::test]
    async fn what_a_human_must_put_right_is_told_from_what_passes() {
        for (status, code, remedy) in [
            (400, "com.amazonaws.sqs#QueueDoesNotExist", "`s3.sqs_queue_url`"),
            (400, "AWS.SimpleQueueService.NonExistentQueue", "`s3.sqs_queue_url`"),
            (403, "com.amazon.coral.service#AccessDeniedException", "sqs:ReceiveMessage"),
            (403, "com.amazon.coral.service#UnrecognizedClientException", "credentials"),
            (403, "com.amazon.coral.service#ExpiredTokenException", "credentials"),
            (400, "com.amazonaws.sqs#KmsAccessDenied", "kms:Decrypt"),
        ] {
            let answer = format!(r#"{{"__type":"{code}","message":"not yours"}}"#);
            let error = scripted(status, &answer).await.queue.receive().await.unwrap_err();
            assert!(error.needs_a_human(), "{code}: {error}");
            let text = error.to_string();
            assert!(text.contains(remedy) && text.contains("not yours"), "{code}: {text}");
        }
        for (status, answer) in [
            (400, r#"{"__type":"com.amazonaws.sqs#RequestThrottled","message":"slow down"}"#),
            (400, r#"{"__type":"com.amazonaws.sqs#KmsThrottled","message":"slow down"}"#),
            (503, r#"{"__type":"ServiceUnavailable"}"#),
            (502, "<html>a proxy</html>"),
            (200, "<html>no queue</html>"),
        ] {
            let error = scripted(status, answer).await.queue.receive().await.unwrap_err();
            assert!(!error.needs_a_human(), "{status} {answer}: {error}");
        }
    }

    #[test]
    fn the_region_of_a_queue_is_in_its_host_name() {
        for (host, region) in [
            ("sqs.eu-central-1.amazonaws.com", Some("eu-central-1")),
            ("sqs.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("sqs-fips.us-east-1.amazonaws.com", Some("us-east-1")),
            ("vpce-0a1b-2c3d.sqs.us-west-2.vpce.amazonaws.com", Some("us-west-2")),
            ("eu-west-1.queue.amazonaws.com", Some("eu-west-1")),
            ("queue.amazonaws.com", None),
            ("sqs.localhost.example", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(region_in(host), region, "{host}");
        }
    }
}
