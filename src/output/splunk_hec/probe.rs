//! What a collector says without being sent events: of its health, the token, the index, and acknowledgements.

use reqwest::header::HeaderValue;

use super::channels::Channel;
use super::{SplunkHec, channels, plain, verdict};
use crate::component::Probe;
use crate::endpoints::Endpoint;
use crate::http::{Answer, NoAnswer};
use crate::output::Verdict;

impl SplunkHec {
    /// Asks every server in turn; the first that would not take events decides.
    pub(super) async fn ask(&self) -> Probe {
        let (token, authorization) = match self.token() {
            Ok(token) => token,
            Err(hold) => return hold.into_probe(""),
        };
        for endpoint in self.endpoints.all() {
            if let Some(verdict) = self.ask_one(endpoint, &authorization).await {
                return verdict.redacted(&[&token]).into_probe("");
            }
        }
        let index = match self.config.index.as_ref().map(|index| index.fixed()) {
            None => "events go to the token's own index",
            Some(Some(_)) => "nothing is said against the index, but only events show that it exists",
            Some(None) => "whether the indexes exist, only events show",
        };
        Probe::Ready(format!("healthy, the token is known; {index}"))
    }

    /// Why this server would not take events; none if it would.
    async fn ask_one(&self, endpoint: &Endpoint, authorization: &HeaderValue) -> Option<Verdict> {
        let failed = |failure: NoAnswer| Some(Verdict::from(failure));
        let answer = match self.health(endpoint, authorization).await {
            Ok(answer) => answer,
            Err(failure) => return failed(failure),
        };
        if (300..400).contains(&answer.status) {
            return Some(Verdict::from_status(&answer));
        }
        if let Some(verdict) = verdict::of_health(&answer, self.config.ack) {
            return Some(verdict);
        }
        let channel =
            Channel { endpoint: endpoint.url().to_owned(), id: channels::new_id(), cookies: String::new() };
        let ask = async |path, body| self.post(&channel, path, authorization.clone(), &plain(body)).await;
        let refused = |answer: &Answer| {
            let known = verdict::knows_the_token(answer);
            (!known).then(|| verdict::of_answer(answer, &plain(String::new()), verdict::Terms::default()))
        };
        match ask("event", String::new()).await.map(|answer| refused(&answer)) {
            Ok(None) => {}
            Ok(verdict) => return verdict,
            Err(failure) => return failed(failure),
        }
        // An envelope without an event: whatever is said of it, nothing can be indexed.
        if let Some(index) = self.config.index.as_ref().and_then(|index| index.fixed()) {
            match ask("event", serde_json::json!({ "index": index }).to_string()).await {
                Ok(answer) if refused(&answer).is_some() => return refused(&answer),
                Ok(_) => {}
                Err(failure) => return failed(failure),
            }
        }
        if self.config.ack {
            match ask("ack", serde_json::json!({ "acks": [0] }).to_string()).await {
                Ok(answer) if verdict::acknowledges_no_more(&answer) => {
                    return Some(Verdict::rejected(
                        "`ack` is true and the token has no `useACK`: switch it on in Splunk, or set `ack` to false",
                    ));
                }
                Ok(_) => {}
                Err(failure) => return failed(failure),
            }
        }
        None
    }
}
