//! The configuration of the system table input.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::login::Credentials;
use crate::component::{self, BuildError};
use crate::http::{HttpSettings, TlsSettings, base_url};
use crate::secret::Secret;
use crate::time::{Date, Millis};
use crate::units::Period;

/// Configuration of the system table input.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Address of a workspace whose metastore has the table, as `https://dbc-a1b2c3d4-e5f6.cloud.databricks.com`.
    /// Workspace events are those of all workspaces in its region.
    url: String,
    /// Id of the SQL warehouse that runs the queries: the last part of its HTTP path. A stopped one is started by them.
    warehouse_id: String,
    /// Application id of the service principal that reads. Goes with `client_secret`; excludes `token`. It needs CAN USE
    /// on the warehouse, USE CATALOG on `system`, USE SCHEMA on `system.access` and SELECT on `system.access.audit`.
    #[serde(default)]
    client_id: Option<String>,
    /// OAuth secret of `client_id`.
    #[serde(default)]
    client_secret: Option<Secret>,
    /// Personal access token, in place of `client_id` and `client_secret`.
    #[serde(default)]
    token: Option<Secret>,
    /// First event time to read, as `2026-01-31` or `2026-01-31T12:00:00Z`; taken down to the full hour. An earlier time
    /// than before back-fills what lies between. Default: the hour of the first start.
    #[serde(default)]
    start_time: Option<String>,
    /// How often the newest rows are read. A warehouse whose auto-stop is longer than this never sleeps, and is paid for
    /// day and night.
    #[serde(default = "defaults::poll_interval")]
    poll_interval: Period,
    /// Rows younger than this wait for the next poll: what differs between the clocks.
    #[serde(default = "defaults::safety_margin")]
    safety_margin: Period,
    /// How far before the newest row read so far every poll begins, for rows that arrive late. The ids of the rows of
    /// that time stay in memory, about 40 bytes each. At most `daily_look_back`.
    #[serde(default = "defaults::overlap")]
    overlap: Period,
    /// How far back rows are counted once an hour; an hour of the table that gained rows is read again. `0s` turns it off.
    #[serde(default = "defaults::hourly_look_back")]
    hourly_look_back: Period,
    /// The same once a day. Every row that arrives no later than this is found, whatever lies between; a later one may
    /// not be. Ids of rows are kept in the state for as long and a day more, 16 bytes each. No longer than `overlap` turns
    /// the counts off.
    #[serde(default = "defaults::daily_look_back")]
    daily_look_back: Period,
    /// Further regions by a name of your choice: `{ eu = { url = "…", warehouse_id = "…" } }`. The credentials are the
    /// same; with `token`, each region needs its own.
    #[serde(default)]
    regions: BTreeMap<String, RegionConfig>,
    /// Drop account-level events that another region's table gave already. Every region's table holds all of them. They
    /// are counted as duplicates either way.
    #[serde(default)]
    deduplicate: bool,
    /// Longest wait for one answer of the workspace, and for each piece of a result in cloud storage.
    #[serde(default = "defaults::timeout")]
    timeout: Period,
    /// TLS of the connections.
    #[serde(default)]
    tls: TlsSettings,
    /// Proxy, as `http://[user:password@]host:port`. Default: `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` of the
    /// environment; `"none"` goes direct.
    #[serde(default)]
    proxy: Option<String>,
}

/// One of `regions`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RegionConfig {
    /// Address of a workspace in the region.
    url: String,
    /// Id of a SQL warehouse there.
    warehouse_id: String,
    /// Personal access token of that workspace.
    #[serde(default)]
    token: Option<Secret>,
}

mod defaults {
    use std::time::Duration;

    use crate::units::Period;

    const HOUR: Duration = Duration::from_secs(3600);

    pub(super) fn poll_interval() -> Period {
        Period(Duration::from_secs(300))
    }
    pub(super) fn safety_margin() -> Period {
        Period(Duration::from_secs(60))
    }
    pub(super) fn overlap() -> Period {
        Period(2 * HOUR)
    }
    pub(super) fn hourly_look_back() -> Period {
        Period(24 * HOUR)
    }
    pub(super) fn daily_look_back() -> Period {
        Period(72 * HOUR)
    }
    pub(super) fn timeout() -> Period {
        Period(Duration::from_secs(60))
    }
}

/// When to read what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) poll_interval: Duration,
    pub(super) safety_margin: Duration,
    pub(super) overlap: Duration,
    pub(super) hourly_look_back: Duration,
    pub(super) daily_look_back: Duration,
}

/// A workspace through which a region's table is read.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// Its name in `regions`; none for the first.
    pub(super) region: Option<String>,
    /// Without a slash at its end.
    pub(super) url: String,
    pub(super) warehouse_id: String,
    pub(super) credentials: Credentials,
    /// True if the connection may go without TLS: it does not leave the machine.
    pub(super) loopback: bool,
    pub(super) cloud: Option<&'static str>,
}

/// A configuration whose values fit.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) start_time: Option<Millis>,
    pub(super) schedule: Schedule,
    pub(super) deduplicate: bool,
    pub(super) http: HttpSettings,
}

pub(super) fn parse(table: Value) -> Result<Checked, BuildError> {
    let config: Config = component::parse(table)?;
    let schedule = schedule(&config)?;
    let start_time = match config.start_time.as_deref() {
        None => None,
        Some(text) => Some(instant(text).ok_or_else(|| {
            let allowed = "write \"2026-01-31\" or \"2026-01-31T12:00:00Z\"";
            BuildError::new("start_time", format!("`{text}` is no time; {allowed}"))
        })?),
    };
    let credentials =
        Credentials::of(config.client_id.as_ref(), config.client_secret.as_ref(), config.token.as_ref())?;
    let mut endpoints = vec![endpoint("", None, &config.url, &config.warehouse_id, credentials.clone())?];
    for (name, region) in &config.regions {
        let key = format!("regions.{name}.");
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || !name.chars().all(plain) {
            return Err(BuildError::new("regions", format!("`{name}` must be letters, digits, - and _")));
        }
        let credentials = match (&region.token, &credentials) {
            (Some(token), _) => Credentials::Token(token.clone()),
            (None, Credentials::Client { .. }) => credentials.clone(),
            (None, Credentials::Token(_)) => {
                let needs = "is missing: a personal access token is good for one workspace only";
                return Err(BuildError::new(&format!("{key}token"), needs));
            }
        };
        let url = &region.url;
        endpoints.push(endpoint(&key, Some(name.clone()), url, &region.warehouse_id, credentials)?);
    }
    let http = HttpSettings {
        timeout: config.timeout,
        tls: config.tls,
        proxy: config.proxy,
        ..HttpSettings::default()
    };
    Ok(Checked { endpoints, start_time, schedule, deduplicate: config.deduplicate, http })
}

fn schedule(config: &Config) -> Result<Schedule, BuildError> {
    let within = |key: &str, holds: bool, allowed: &str| {
        if holds { Ok(()) } else { Err(BuildError::new(key, format!("must be {allowed}"))) }
    };
    let day = Duration::from_secs(86_400);
    within("poll_interval", config.poll_interval.0 >= Duration::from_secs(1), "at least \"1s\"")?;
    within("timeout", config.timeout.0 >= Duration::from_secs(1), "at least \"1s\"")?;
    within("safety_margin", config.safety_margin.0 <= day, "at most \"1d\"")?;
    within("daily_look_back", config.daily_look_back.0 <= 30 * day, "at most \"30d\"")?;
    within("overlap", config.overlap <= config.daily_look_back, "at most daily_look_back")?;
    within("hourly_look_back", config.hourly_look_back <= config.daily_look_back, "at most daily_look_back")?;
    Ok(Schedule {
        poll_interval: config.poll_interval.0,
        safety_margin: config.safety_margin.0,
        overlap: config.overlap.0,
        hourly_look_back: config.hourly_look_back.0,
        daily_look_back: config.daily_look_back.0,
    })
}

fn instant(text: &str) -> Option<Millis> {
    // A bare number would be taken for milliseconds.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Date::parse(text).map(Date::start).or_else(|| Millis::parse(text))
}

fn endpoint(
    key: &str,
    region: Option<String>,
    url: &str,
    warehouse_id: &str,
    credentials: Credentials,
) -> Result<Endpoint, BuildError> {
    let url_key = format!("{key}url");
    let url = base_url(&url_key, url, false)?;
    // The credentials travel in every request.
    let loopback = is_loopback(&url);
    if !url.starts_with("https://") && !loopback {
        return Err(BuildError::new(&url_key, format!("{url} must begin with https://")));
    }
    // As the address bar shows it.
    if let Some(shown) = url::Url::parse(&url).ok().filter(|shown| shown.path() != "/") {
        let origin = shown.origin().ascii_serialization();
        return Err(BuildError::new(&url_key, format!("the path is added here: write {origin}")));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if warehouse_id.is_empty() || !warehouse_id.chars().all(plain) {
        let found = format!("`{warehouse_id}` is no warehouse id; it is the last part of the HTTP path");
        return Err(BuildError::new(&format!("{key}warehouse_id"), found));
    }
    let cloud = cloud(&url);
    Ok(Endpoint { region, url, warehouse_id: warehouse_id.to_owned(), credentials, loopback, cloud })
}

/// True for plain HTTP to this very machine: nothing that listens in between can read it.
pub(super) fn is_loopback(url: &str) -> bool {
    let Ok(url) = url::Url::parse(url) else { return false };
    let local = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    url.scheme() == "http" && local
}

/// The cloud, where the address tells it.
fn cloud(url: &str) -> Option<&'static str> {
    let host = url::Url::parse(url).ok()?.host_str()?.to_owned();
    let ends =
        [(".cloud.databricks.com", "aws"), (".azuredatabricks.net", "azure"), (".gcp.databricks.com", "gcp")];
    ends.into_iter().find(|(end, _)| host.ends_with(end)).map(|(_, cloud)| cloud)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let mut table = json!({
            "url": "https://dbc-1.cloud.databricks.com", "warehouse_id": "4f2ab917c0de55e1", "token": "hunter2"
        });
        parse(table.clone()).unwrap();
        change(&mut table);
        parse(table).unwrap_err().to_string()
    }

    #[test]
    fn what_is_wrong_is_said_with_its_key() {
        for (key, value, expected) in [
            (
                "url",
                json!("http://dbc-1.cloud.databricks.com"),
                "url: http://dbc-1.cloud.databricks.com must begin with https://",
            ),
            (
                "url",
                json!("https://dbc-1.cloud.databricks.com/sql/warehouses"),
                "url: the path is added here: write https://dbc-1.cloud.databricks.com",
            ),
            (
                "warehouse_id",
                json!("/sql/1.0/warehouses/4f2a"),
                "warehouse_id: `/sql/1.0/warehouses/4f2a` is no warehouse id",
            ),
            ("start_time", json!("yesterday"), "start_time: `yesterday` is no time"),
            ("start_time", json!("20260131"), "start_time: `20260131` is no time"),
            ("overlap", json!("73h"), "overlap: must be at most daily_look_back"),
            ("poll_interval", json!("1ms"), "poll_interval: must be at least"),
            ("client_id", json!("a"), "keep one of token and client_id with client_secret"),
            ("token", json!(null), "token: is missing"),
            (
                "regions",
                json!({"eu": {"url": "https://b", "warehouse_id": "w"}}),
                "regions.eu.token: is missing",
            ),
            ("regions", json!({"a/b": {"url": "https://b", "warehouse_id": "w"}}), "regions: `a/b` must be"),
        ] {
            let found = refusal(|table| table[key] = value);
            assert!(found.starts_with(expected), "{found}");
            assert!(!found.contains("hunter2"));
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_without_tls() {
        for url in ["http://127.0.0.1:80", "http://[::1]:80", "http://localhost"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "http://127.0.0.1.evil.example",
            "http://localhost.evil.example",
            "http://10.0.0.1",
            "https://localhost",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn the_address_tells_the_cloud() {
        assert_eq!(cloud("https://dbc-1.cloud.databricks.com"), Some("aws"));
        assert_eq!(cloud("https://adb-1.1.azuredatabricks.net"), Some("azure"));
        assert_eq!(cloud("https://1.1.gcp.databricks.com"), Some("gcp"));
        assert_eq!(cloud("https://audit.example"), None);
    }
}
