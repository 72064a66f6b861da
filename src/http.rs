//! The one HTTP client of outputs, inputs and what asks for tokens: TLS, proxy, time-outs, capped answers, and what a
//! failure means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_ENCODING, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, SET_COOKIE};

use crate::batch::Request;
use crate::component::BuildError;
use crate::connection::Connections;
pub use crate::connection::{HttpSettings, TlsSettings, TlsVersion};
use crate::secret::{Rotating, Secret};
use crate::time::Millis;

mod no_answer;

pub use no_answer::{NoAnswer, innermost, remedy};

/// Most bytes of an answer that are read.
pub const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Longest that a body read piece by piece may take in all.
const LONGEST_STREAM: Duration = Duration::from_secs(24 * 3600);

/// Most bytes of an answer that a message repeats.
const EXCERPT_BYTES: usize = 300;

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// How long the server asked to wait.
    pub retry_after: Option<Duration>,
    /// The body, as far as it was asked for.
    pub body: Bytes,
    /// True if there was more.
    pub cut: bool,
    /// The cookies the server set, as a `Cookie` header gives them back; empty without any.
    pub cookies: String,
}

impl Answer {
    /// The body's beginning as one line of printable text, for messages.
    pub fn excerpt(&self) -> String {
        let text = String::from_utf8_lossy(self.body.get(..EXCERPT_BYTES).unwrap_or(&self.body));
        // A word that was cut could be half a secret, which nobody would recognise and blot out. Keys, paths and
        // passwords have all kinds of signs in them, but no blanks and no quotes.
        let word = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'' | '<' | '>');
        let whole = if self.body.len() > EXCERPT_BYTES { text.trim_end_matches(word) } else { &text };
        whole.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
    }

    /// Status and excerpt, for messages.
    pub fn summary(&self) -> String {
        let status = self.status;
        match self.excerpt() {
            text if text.is_empty() => format!("the collector answered {status}"),
            text => format!("the collector answered {status}: {text}"),
        }
    }

    /// True for a status of 200 to 299.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// True if the body is HTML or XML, which no API here answers with.
    pub fn is_page(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"<")
    }

    /// True if the body is JSON, as the answer of an API is and that of a proxy in front of it is not.
    pub fn is_json(&self) -> bool {
        serde_json::from_slice::<serde::de::IgnoredAny>(&self.body).is_ok()
    }
}

/// A client with the settings of one output.
#[derive(Clone, Debug)]
pub struct Client {
    connections: Arc<Connections>,
    timeout: Duration,
}

/// An answer whose body is read piece by piece.
#[derive(Debug)]
pub struct Pieces {
    /// HTTP status.
    pub status: u16,
    response: reqwest::Response,
    timeout: Duration,
}

impl Pieces {
    /// The next piece of the body; none at its end.
    ///
    /// # Errors
    /// [`NoAnswer`] if the connection breaks, or brings nothing for as long as the settings' time-out.
    pub async fn next(&mut self) -> Result<Option<Bytes>, NoAnswer> {
        match tokio::time::timeout(self.timeout, self.response.chunk()).await {
            Ok(piece) => piece.map_err(NoAnswer::from),
            Err(_) => Err(NoAnswer::within(self.timeout)),
        }
    }
}

impl Client {
    /// Builds the client; reads the certificate files.
    ///
    /// # Errors
    /// [`BuildError`] naming the key whose file or address is wrong.
    pub fn new(settings: &HttpSettings) -> Result<Self, BuildError> {
        Ok(Self { connections: Arc::new(Connections::open(settings)?), timeout: settings.timeout.0 })
    }

    /// Sends one request's body and reads the answer.
    ///
    /// # Errors
    /// [`NoAnswer`] if there is none.
    pub async fn send(
        &self,
        method: reqwest::Method,
        url: &str,
        headers: HeaderMap,
        request: &Request,
    ) -> Result<Answer, NoAnswer> {
        let mut call =
            self.connections.client().request(method, url).headers(headers).body(request.body.clone());
        if let Some(encoding) = request.encoding.header() {
            call = call.header(CONTENT_ENCODING, encoding);
        }
        let answer = read_answer(call, MAX_ANSWER_BYTES).await?;
        no_answer::complaint(&answer).map_or(Ok(answer), Err)
    }

    /// Makes a GET request.
    ///
    /// # Errors
    /// [`NoAnswer`] if there is none.
    pub async fn get(&self, url: &str, headers: HeaderMap) -> Result<Answer, NoAnswer> {
        self.ask(reqwest::Method::GET, url, headers, Bytes::new(), MAX_ANSWER_BYTES).await
    }

    /// Makes a request and reads at most `most_bytes` of the answer's body.
    ///
    /// # Errors
    /// [`NoAnswer`] if there is none.
    pub async fn ask(
        &self,
        method: reqwest::Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        most_bytes: usize,
    ) -> Result<Answer, NoAnswer> {
        self.ask_at(method, url, headers, body, most_bytes).await.map(|(answer, _)| answer)
    }

    /// The same, and what time it is by the server's clock, in whole seconds, if it says so.
    ///
    /// # Errors
    /// [`NoAnswer`] if there is none.
    pub async fn ask_at(
        &self,
        method: reqwest::Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        most_bytes: usize,
    ) -> Result<(Answer, Option<Millis>), NoAnswer> {
        let call = self.connections.client().request(method, url).headers(headers);
        let response = if body.is_empty() { call } else { call.body(body) }.send().await?;
        let said = response.headers().get(DATE).and_then(|value| value.to_str().ok()).and_then(date);
        let said = said.and_then(|said| Millis::new(said.as_millisecond()));
        Ok((take_in(response, most_bytes).await?, said))
    }

    /// Makes a GET request whose body is read piece by piece, at the reader's pace: the time-out of the settings holds
    /// for the beginning of the answer and for each piece.
    ///
    /// # Errors
    /// [`NoAnswer`] if there is none.
    pub async fn open(&self, url: &str, headers: HeaderMap) -> Result<Pieces, NoAnswer> {
        let call = self.connections.client().get(url).headers(headers).timeout(LONGEST_STREAM);
        match tokio::time::timeout(self.timeout, call.send()).await {
            Ok(Ok(response)) => {
                Ok(Pieces { status: response.status().as_u16(), response, timeout: self.timeout })
            }
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(NoAnswer::within(self.timeout)),
        }
    }
}

async fn read_answer(call: reqwest::RequestBuilder, most_bytes: usize) -> Result<Answer, NoAnswer> {
    take_in(call.send().await?, most_bytes).await
}

async fn take_in(mut response: reqwest::Response, most_bytes: usize) -> Result<Answer, NoAnswer> {
    let status = response.status().as_u16();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| parse_retry_after(value, SystemTime::now()));
    let cookies: Vec<_> = response.headers().get_all(SET_COOKIE).iter().filter_map(cookie).collect();
    let cookies = cookies.join("; ");
    let mut body = BytesMut::new();
    let mut cut = false;
    loop {
        match response.chunk().await {
            Ok(Some(piece)) => {
                let room = most_bytes - body.len();
                body.extend_from_slice(piece.get(..room.min(piece.len())).unwrap_or_default());
                if piece.len() > room {
                    cut = true;
                    break;
                }
            }
            Ok(None) => break,
            // Who refuses a request unread may hang up before the text is sent, and would do so again: the status says it.
            Err(_) if refuses_all(status) => {
                cut = true;
                break;
            }
            // The status was read, but what a 200 says of single events was not.
            Err(error) => {
                return Err(NoAnswer::broken_off(status, error));
            }
        }
    }
    Ok(Answer { status, retry_after, body: body.freeze(), cut, cookies })
}

/// True if the status alone says that the server took nothing of a request, whatever is in the text.
fn refuses_all(status: u16) -> bool {
    matches!(status, 300..=399 | 401..=407 | 413)
}

/// The `name=value` of a `Set-Cookie` header.
fn cookie(header: &HeaderValue) -> Option<&str> {
    header.to_str().ok()?.split(';').next().map(str::trim)
}

/// Reads `Retry-After`: seconds, or a date.
pub fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until: SystemTime = date(value.trim())?.into();
    Some(until.duration_since(now).unwrap_or_default())
}

/// A date of HTTP, in any of its three forms.
fn date(text: &str) -> Option<jiff::Timestamp> {
    if let Ok(date) = jiff::fmt::rfc2822::parse(text) {
        return Some(date.timestamp());
    }
    let obsolete = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let found = obsolete.iter().find_map(|form| jiff::civil::DateTime::strptime(form, text).ok());
    Some(found?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
}

/// A header from configured text.
///
/// # Errors
/// [`BuildError`] if the text holds what a header cannot.
pub fn header(
    key: &str,
    name: &str,
    value: &str,
    secret: bool,
) -> Result<(HeaderName, HeaderValue), BuildError> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| BuildError::new(key, format!("`{name}` is not the name of a header")))?;
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        BuildError::new(
            key,
            format!("the value of {name} holds a line break or control character; keep it on one line"),
        )
    })?;
    value.set_sensitive(secret);
    Ok((name, value))
}

/// A secret and the text of it that went with a request.
pub type Shown<'a> = (&'a Rotating, String);

/// The headers of a `headers` table, whose values are secrets.
#[derive(Debug)]
pub struct SecretHeaders(Vec<(String, Rotating)>);

impl SecretHeaders {
    /// Of this table.
    pub fn new(table: BTreeMap<String, Secret>) -> Self {
        Self(table.into_iter().map(|(name, secret)| (name, Rotating::new(secret))).collect())
    }

    /// The headers to send now, and the secrets in them.
    ///
    /// # Errors
    /// [`BuildError`] naming the header whose name, secret or value is wrong.
    pub fn reveal(&self) -> Result<(HeaderMap, Vec<Shown<'_>>), BuildError> {
        let (mut headers, mut shown) = (HeaderMap::new(), Vec::new());
        for (name, secret) in &self.0 {
            let key = format!("headers.{name}");
            let text = secret.reveal().map_err(|error| BuildError::new(&key, error))?;
            headers.extend([header(&key, name, &text, true)?]);
            shown.push((secret, text));
        }
        Ok((headers, shown))
    }
}

/// What to blot out of answers to a request with these secrets: `Bearer x` may come back as `x`.
pub fn blots<'a>(shown: &'a [Shown<'_>]) -> Vec<&'a str> {
    let texts = shown.iter().map(|(_, text)| text.as_str());
    texts.flat_map(|text| [Some(text), text.split_once(' ').map(|(_, rest)| rest)]).flatten().collect()
}

/// Checks that a text is an http or https URL without user, query and fragment, and takes the slash off its end.
///
/// # Errors
/// [`BuildError`] of `key` that says what is wrong, without the URL where that is `secret`.
pub fn base_url(key: &str, text: &str, secret: bool) -> Result<String, BuildError> {
    let url = checked_url(key, text, secret)?;
    if url.query().is_some() {
        return Err(BuildError::new(
            key,
            format!("{} must be a plain address, without ?", shown(text, secret)),
        ));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// Checks that a text is an http or https URL without user and fragment; a query may be part of it.
///
/// # Errors
/// [`BuildError`] of `key` that says what is wrong, without the URL where that is `secret`.
pub fn full_url(key: &str, text: &str, secret: bool) -> Result<String, BuildError> {
    checked_url(key, text, secret).map(String::from)
}

fn checked_url(key: &str, text: &str, secret: bool) -> Result<url::Url, BuildError> {
    let shown = shown(text, secret);
    let url = url::Url::parse(text).map_err(|error| {
        BuildError::new(key, format!("{shown} is not a URL ({error}); write https://host:port"))
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        let found = if secret { String::new() } else { format!(" {}", url.scheme()) };
        return Err(BuildError::new(key, format!("{shown} has the scheme{found}; write https://host:port")));
    }
    if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(BuildError::new(key, format!("{shown} must be a plain address, without user and #")));
    }
    Ok(url)
}

/// The address as a message may repeat it: not with the password or token that somebody wrote into it.
fn shown(text: &str, secret: bool) -> &str {
    if secret || text.contains(['@', '?']) { "the value" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now: SystemTime = "2026-01-05T10:00:00Z".parse::<jiff::Timestamp>().unwrap().into();
        assert_eq!(parse_retry_after("17", now), Some(Duration::from_secs(17)));
        assert_eq!(parse_retry_after("Mon, 05 Jan 2026 10:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(parse_retry_after("Mon, 05 Jan 2026 09:00:30 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("soon", now), None);
        // A recipient has to know the two older forms of a date, too (RFC 9110, 5.6.7).
        let half_minute = Some(Duration::from_secs(30));
        assert_eq!(parse_retry_after("Monday, 05-Jan-26 10:00:30 GMT", now), half_minute);
        assert_eq!(parse_retry_after("Mon Jan  5 10:00:30 2026", now), half_minute);
        for none in ["-1", "", "Mon Jan 32 10:00:30 2026", "Monday, 05-Jan-26", "\u{e9}"] {
            assert_eq!(parse_retry_after(none, now), None, "{none}");
        }
    }

    #[test]
    fn an_excerpt_does_not_end_in_half_a_word() {
        let cut_in = |secret: &str| {
            let body = format!("{} {secret}", "x".repeat(EXCERPT_BYTES - 10));
            Answer { status: 500, retry_after: None, body: body.into(), cut: false, cookies: String::new() }
        };
        // A base64 key, a JWT, a password and a path: none is told by its letters alone.
        for secret in
            ["aB3/hunter2-and-more", "eyJh.hunter2-and-more", "p@ss!hunter2-and-more", "a/hunter2-and-more"]
        {
            assert_eq!(cut_in(secret).excerpt(), "x".repeat(EXCERPT_BYTES - 10), "{secret}");
        }
        let answer = cut_in("");
        assert!(Answer { body: "no\nhunter2".into(), ..answer }.excerpt() == "no hunter2");
    }

    #[test]
    fn a_base_url_is_checked_and_a_secret_one_is_not_repeated() {
        assert_eq!(base_url("url", "https://es:9200/path/", false).unwrap(), "https://es:9200/path");
        assert!(base_url("url", "es:9200", false).unwrap_err().to_string().contains("scheme es"));
        assert!(base_url("url", "https://a/?x=1", false).unwrap_err().to_string().contains("plain address"));
        assert_eq!(full_url("url", "https://c/in?x=1", false).unwrap(), "https://c/in?x=1");
        assert!(full_url("url", "https://u:p@c/in", false).is_err());
        for text in
            ["https://elastic:hunter2@es:9200", "https://u:hunter2@es:port", "https://s/?token=hunter2"]
        {
            let error = base_url("url", text, false).unwrap_err().to_string();
            assert!(!error.contains("hunter2") && error.starts_with("url: "), "{error}");
        }
        let error = base_url("url", "hunter2", true).unwrap_err().to_string();
        assert!(!error.contains("hunter2") && error.starts_with("url: "), "{error}");
    }
}
