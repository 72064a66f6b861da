//! What an error of the client means for whoever has to mend it.
//!
//! | the client says | it means | remedy names |
//! |---|---|---|
//! | authentication failed | refused | the key of the secret |
//! | not authorised for a group, a topic | refused | `group`, `topics` and the missing right |
//! | unknown topic | refused | `topics` |
//! | the group speaks another protocol | refused: somebody else's group | `group` |
//! | no broker can be reached, before one ever was | refused | `bootstrap_servers`, `tls` |
//! | the same, later | passes | |
//! | a batch cannot be read | refused, of its partition alone: see `lane` | |
//! | anything else | passes | |

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::input::InputError;
use crate::kafka::Login;

/// What the messages name.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The brokers, as configured.
    pub(super) servers: String,
    /// The consumer group.
    pub(super) group: String,
    /// The login's key in the configuration, or what to look at without one.
    pub(super) login: &'static str,
    /// How a right to read is granted.
    pub(super) right: &'static str,
}

impl Names {
    pub(super) fn new(servers: &[String], group: &str, login: &Login) -> Self {
        let right = match login {
            Login::Password { key: "connection_string", .. } => "the right Listen",
            Login::None | Login::Password { .. } => "the right Read",
            Login::Azure(_) => "the role Azure Event Hubs Data Receiver",
        };
        Self { servers: servers.join(", "), group: group.to_owned(), login: login.remedy(), right }
    }
}

/// An error as it was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// The client's or the broker's code.
    pub(super) code: Code,
    /// What it said of it.
    pub(super) reason: String,
}

impl Complaint {
    /// True if it concerns one broker of several: only when all are gone something is wrong.
    pub(super) fn is_of_one_broker(&self) -> bool {
        use Code::{BrokerTransportFailure, OperationTimedOut, Resolve, SSL};
        matches!(self.code, BrokerTransportFailure | OperationTimedOut | Resolve | SSL)
    }

    /// True if it is about the way to the brokers, which may be open again in a moment.
    pub(super) fn is_of_brokers(&self) -> bool {
        self.is_of_one_broker() || self.code == Code::AllBrokersDown
    }

    /// True if it passes with the group's next rebalance, which is under way.
    pub(super) fn is_of_rebalancing(&self) -> bool {
        use Code::{AssignmentLost, IllegalGeneration, RebalanceInProgress, UnknownMemberId};
        matches!(self.code, AssignmentLost | IllegalGeneration | RebalanceInProgress | UnknownMemberId)
    }

    /// True if it is about a topic, so that others may be fine.
    pub(super) fn is_of_topic(&self) -> bool {
        use Code::{InvalidTopic, TopicAuthorizationFailed, UnknownTopic, UnknownTopicOrPartition};
        matches!(self.code, InvalidTopic | TopicAuthorizationFailed | UnknownTopic | UnknownTopicOrPartition)
    }

    /// The error for the engine; `met` is true once a broker has answered.
    pub(super) fn explain(self, names: &Names, met: bool) -> InputError {
        let Names { servers, group, login, right } = names;
        let refused = |action: String, remedy: String, reason: String| InputError::Refused {
            action,
            source: reason.into(),
            remedy,
        };
        let read = || "cannot read the topics".to_owned();
        match self.code {
            Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState => {
                refused(format!("cannot log in to {servers}"), format!("check {login}"), self.reason)
            }
            Code::GroupAuthorizationFailed => refused(
                format!("cannot join consumer group {group}"),
                format!("grant the login {right} on the group, or name another beginning in `group`"),
                self.reason,
            ),
            Code::InconsistentGroupProtocol | Code::InvalidGroupId | Code::FencedInstanceId => refused(
                format!("cannot join consumer group {group}"),
                "other software uses it; name another beginning in `group`".to_owned(),
                self.reason,
            ),
            Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                refused(read(), format!("grant the login {right} on what `topics` names"), self.reason)
            }
            _ if self.is_of_topic() => {
                refused(read(), format!("check `topics` and that they are at {servers}"), self.reason)
            }
            Code::AllBrokersDown | Code::BrokerTransportFailure | Code::Resolve | Code::SSL if !met => refused(
                format!("cannot reach {servers}"),
                "check `bootstrap_servers`, `tls` and that a firewall lets it through; the Basic tier of Event Hubs \
                 has no Kafka endpoint"
                    .to_owned(),
                self.reason,
            ),
            _ => InputError::Transient {
                action: format!("cannot read from {servers}"),
                source: self.reason.into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: Code, met: bool) -> (bool, String) {
        let names = Names::new(&["k:9093".to_owned()], "auditferry.hub.out", &Login::None);
        let error = Complaint { code, reason: "so it is".to_owned() }.explain(&names, met);
        (error.needs_a_human(), error.to_string())
    }

    #[test]
    fn what_a_human_must_mend_is_held_and_names_the_key() {
        for (code, needles) in [
            (Code::SaslAuthenticationFailed, ["k:9093", "`sasl`"]),
            (Code::GroupAuthorizationFailed, ["auditferry.hub.out", "`group`"]),
            (Code::InconsistentGroupProtocol, ["auditferry.hub.out", "`group`"]),
            (Code::TopicAuthorizationFailed, ["the right Read", "`topics`"]),
            (Code::UnknownTopicOrPartition, ["k:9093", "`topics`"]),
            (Code::AllBrokersDown, ["k:9093", "`bootstrap_servers`"]),
        ] {
            let (held, text) = said(code, false);
            assert!(held && needles.iter().all(|needle| text.contains(needle)), "{code}: {text}");
            assert!(text.contains("so it is"), "{text}");
        }
    }

    #[test]
    fn a_cluster_that_was_reached_before_comes_back_by_itself() {
        assert!(!said(Code::AllBrokersDown, true).0);
        assert!(!said(Code::NotCoordinator, true).0);
    }
}
