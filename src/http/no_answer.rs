//! What it means that a request got no answer, and what to do about it.

use std::time::Duration;

use super::Answer;

/// A request without an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    /// What happened; holds no address, since that can be a secret.
    pub cause: String,
    /// What a user can do about it, where the address is one that is configured as `url`; else empty.
    pub remedy: &'static str,
    /// True unless it is certain that the server saw nothing of the request.
    pub ambiguous: bool,
    /// True if it stays so until a human changes a setting.
    pub human: bool,
}

impl NoAnswer {
    pub(super) fn within(timeout: Duration) -> Self {
        let cause = format!("no answer within {}", humantime::format_duration(timeout));
        Self { cause, remedy: "", ambiguous: true, human: false }
    }

    /// The status was read and the body was not.
    pub(super) fn broken_off(status: u16, error: reqwest::Error) -> Self {
        let cause = format!("the answer {status} broke off: {}", innermost(&error.without_url()));
        Self { cause, remedy: "", ambiguous: true, human: false }
    }
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        let place = place(&error);
        let plain = error.url().is_some_and(|url| url.scheme() == "http");
        let connecting = error.is_connect() || error.is_builder();
        let place = if no_way_to_proxy(&error) { format!("the proxy on the way to {place}") } else { place };
        let cause = innermost(&error.without_url());
        // In TLS 1.3 a server looks at our certificate after we think that all is well; it has read nothing until then.
        let ambiguous = !connecting && !cause.contains("received fatal alert");
        let reached = if ambiguous { "" } else { "cannot reach " };
        let other = if plain { in_the_clear(&cause) } else { None };
        let remedy = other.unwrap_or_else(|| remedy(&cause, ambiguous));
        Self { cause: format!("{reached}{place}: {cause}"), remedy, ambiguous, human: remedy == PROXY_LOGIN }
    }
}

/// True if not even the proxy was reached: what went wrong there says nothing of `url`.
fn no_way_to_proxy(error: &reqwest::Error) -> bool {
    let first = error as &dyn std::error::Error;
    std::iter::successors(Some(first), |error| error.source())
        .any(|error| error.to_string() == "tunnel error: failed to create underlying connection")
}

/// What a port may speak that was asked in the clear and did not answer in HTTP; one that restarts hangs up, too.
fn in_the_clear(cause: &str) -> Option<&'static str> {
    const SIGNS: [(&str, &str); 3] = [
        ("onnection reset", MAY_SPEAK_TLS),
        ("connection closed before message completed", MAY_SPEAK_TLS),
        (
            "invalid HTTP version parsed",
            "; the port does not speak HTTP/1.1: if it speaks TLS, write `url` with https://; OTLP is gRPC on 4317, and HTTP \
             on 4318",
        ),
    ];
    SIGNS.iter().find(|(sign, _)| cause.contains(sign)).map(|(_, remedy)| *remedy)
}

const MAY_SPEAK_TLS: &str = "; if it always hangs up so, the port speaks TLS: write `url` with https://";

/// As a port does that speaks something else than TLS.
const HUNG_UP: &str = "; it hung up at once: check that the port speaks TLS, or write `url` with http://";

/// What to do about it: which part of a TLS handshake was wrong, only the innermost message tells. Where the address is not
/// configured as `url`, say so in its place.
pub fn remedy(cause: &str, ambiguous: bool) -> &'static str {
    let known = [
        (
            "UnknownIssuer",
            "; its certificate is of an authority that is not trusted: name that in `tls.ca_file`",
        ),
        (
            "CaUsedAsEndEntity",
            "; its certificate is one of an authority (CA:TRUE), as self-signed ones are, which no server may show: have \
             one signed for it and name the authority in `tls.ca_file`",
        ),
        ("certificate", "; check `url` and `tls.ca_file`"),
        ("InvalidContentType", "; the port does not speak TLS: check the port, or write `url` with http://"),
        ("onnection reset", HUNG_UP),
        ("handshake eof", HUNG_UP),
        ("CertificateRequired", WANTS_CERTIFICATE),
        ("proxy authorization required", PROXY_LOGIN),
        (
            "tunnel error: unsuccessful",
            "; the proxy would not connect: check the login in `proxy`, what it allows, and that the collector is up",
        ),
        ("fatal alert", "; it refuses our TLS: check `tls.cert_file` and `tls.min_version`"),
        ("onnection refused", "; nothing listens there: check `url` and `proxy`, and that it is up"),
        ("lookup", "; check the name in `url`"),
    ];
    let found = known.iter().find(|(sign, _)| cause.contains(sign)).map(|(_, remedy)| *remedy);
    match ambiguous {
        true => "",
        false => found.unwrap_or("; check `url`, `proxy` and that it is up"),
    }
}

/// Host and port of a request's URL, whose path may be a secret.
fn place(error: &reqwest::Error) -> String {
    match error.url().and_then(|url| Some((url.host_str()?, url.port_or_known_default()?))) {
        Some((host, port)) => format!("{host}:{port}"),
        None => "the collector".to_owned(),
    }
}

/// The innermost cause: what stands around it says little more than that a request failed.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

/// What a proxy or the TLS of what stands before the collector says of the connection: no request gets past it.
pub(super) fn complaint(answer: &Answer) -> Option<NoAnswer> {
    let (who, remedy) = match answer.status {
        407 => ("proxy", PROXY_LOGIN),
        // Whoever answers in JSON has read the request, and may repeat an event that says such things.
        400 if !answer.is_json() => {
            let text = answer.excerpt().to_ascii_lowercase();
            let known = COMPLAINTS.iter().find(|(complaint, _)| text.contains(complaint));
            ("collector", known.map(|(_, remedy)| *remedy)?)
        }
        _ => return None,
    };
    let cause = format!("the {who} answered {}", answer.status);
    Some(NoAnswer { cause, remedy, ambiguous: false, human: true })
}

/// Complaints in the words of nginx, Apache and Go, in lower case, and what to do about them.
const COMPLAINTS: [(&str, &str); 5] = [
    ("http request to an https server", SPEAKS_TLS),
    ("http request was sent to https port", SPEAKS_TLS),
    ("speaking plain http to an ssl", SPEAKS_TLS),
    ("no required ssl certificate was sent", WANTS_CERTIFICATE),
    (
        "the ssl certificate error",
        "; it does not take our client certificate: check the authority and the dates of `tls.cert_file`",
    ),
];
const SPEAKS_TLS: &str = "; the port speaks TLS: write `url` with https://";
const WANTS_CERTIFICATE: &str = "; it wants a client certificate: set `tls.cert_file` and `tls.key_file`";
const PROXY_LOGIN: &str =
    "; the proxy wants a login: write `proxy` (or HTTPS_PROXY) as http://user:password@host:port";

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::connection::{Connections, HttpSettings};

    #[test]
    fn what_stands_before_the_collector_and_complains_is_not_taken_for_it() {
        let said = |status, body: &'static str| {
            let answer =
                Answer { status, retry_after: None, body: body.into(), cut: false, cookies: String::new() };
            complaint(&answer).map(|no| no.cause + no.remedy)
        };
        for (status, body, advice) in [
            (400, "Client sent an HTTP request to an HTTPS server.", "with https://"),
            (400, "<html>The plain HTTP request was sent to HTTPS port</html>", "with https://"),
            (400, "Reason: You're speaking plain HTTP to an SSL-enabled server port.", "with https://"),
            (400, "<title>400 No required SSL certificate was sent</title>", "set `tls.cert_file`"),
            (400, "<title>400 The SSL certificate error</title>", "the dates of `tls.cert_file`"),
            (407, "", "the proxy wants a login"),
        ] {
            assert!(said(status, body).unwrap().contains(advice), "{body}");
        }
        // A collector that repeats an event in its complaint.
        let repeats = r#"{"error":"bad: 'Client sent an HTTP request to an HTTPS server.'"}"#;
        for (status, body) in [(200, "The SSL certificate error"), (400, "bad"), (403, ""), (400, repeats)] {
            assert_eq!(said(status, body), None);
        }
    }

    #[test]
    fn what_to_do_follows_from_what_went_wrong() {
        for (cause, advice) in [
            ("invalid peer certificate: UnknownIssuer", "name that in `tls.ca_file`"),
            ("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))", "have one signed for it"),
            ("invalid peer certificate: certificate not valid for name", "check `url` and `tls.ca_file`"),
            ("received corrupt message of type InvalidContentType", "http://"),
            ("Connection refused (os error 111)", "nothing listens"),
            ("tunnel error: proxy authorization required", "the proxy wants a login"),
            ("tunnel error: unsuccessful", "check the login in `proxy`"),
            ("failed to lookup address information: Name or service not known", "the name in `url`"),
            ("operation timed out", "`proxy`"),
        ] {
            assert!(remedy(cause, false).contains(advice), "{cause}");
            assert_eq!(remedy(cause, true), "", "something was sent");
        }
    }

    #[tokio::test]
    async fn what_does_not_answer_in_http_is_told_with_what_it_may_speak() {
        let settings = HttpSettings { proxy: Some("none".to_owned()), ..HttpSettings::default() };
        let client = Connections::open(&settings).unwrap().client();
        // A port of TLS hangs up, or answers with an alert; one of gRPC with the settings of HTTP/2.
        for (answer, advice) in [
            (&b""[..], "write `url` with https://"),
            (b"\x15\x03\x01\x00\x02\x02\x46", "if it speaks TLS"),
            (b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00", "on 4318"),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 1024];
                assert!(stream.read(&mut asked).await.unwrap() > 0);
                stream.write_all(answer).await.unwrap();
            };
            let (answered, ()) = tokio::join!(client.post(url).body("{}").send(), answering);
            let no_answer = NoAnswer::from(answered.unwrap_err());
            assert!(no_answer.remedy.contains(advice), "{no_answer:?}");
            assert!(no_answer.ambiguous, "it may be a collector that was restarted");
        }
    }
}
