//! The configuration: files and environment in, a typed and checked [`Config`] or every error out.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::component::BuildError;
use crate::decode::Gaps;
use crate::input::{Input, InputContext, InputKind};
use crate::output::{Output, OutputContext, OutputKind};
use crate::registry;
use crate::secret::Secret;
use crate::units::{ByteSize, Period};

mod changes;
mod check;
mod describe;
mod error;
mod layers;
mod level;
mod output;
mod redaction;
mod reference;
mod resolve;
mod schema;
#[cfg(test)]
mod tests;
mod warn;

pub use describe::describe;
pub use error::{ConfigError, ConfigErrors};
pub use level::log_filter;
pub use output::{BatchLimits, OutputCommon};
pub use redaction::Redaction;
pub use reference::reference;
pub use schema::schema;

use error::{Origins, Report, located};

/// The file that is read unless `--config` names others.
pub const DEFAULT_FILE: &str = "/etc/auditferry/auditferry.toml";

/// A checked configuration. `Debug` shows no component's table, since secrets may stand in it.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where `state.db` and `dead-letters/` are.
    pub state_dir: PathBuf,
    /// The status server.
    pub server: Server,
    /// The program's own log.
    pub log: Log,
    /// Bytes a pipeline may have read and not yet committed.
    pub memory: ByteSize,
    /// How long a shutdown waits for what is under way.
    pub shutdown_grace: Period,
    /// What is taken out of events before they leave.
    pub redaction: Redaction,
    /// The inputs by name.
    pub inputs: BTreeMap<String, InputSettings>,
    /// The outputs by name.
    pub outputs: BTreeMap<String, OutputSettings>,
    /// Which input goes to which output.
    pub pipelines: Vec<Pipeline>,
    /// What works but should not stay so, a line each, naming the key.
    pub warnings: Vec<String>,
    written: Written,
    origins: Origins,
}

/// All keys as they were written, whatever layer they came from. Secrets may stand in it: `Debug` shows nothing.
#[derive(Clone, Default)]
struct Written(Value);

impl fmt::Debug for Written {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Written(..)")
    }
}

/// The keys at the top of the file, `inputs` and `outputs` aside.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Directory of `state.db`, which knows what has been delivered, and of `dead-letters/`. Back it up, and never share
    /// it between two processes.
    state_dir: PathBuf,
    /// Memory of a pipeline: bytes read and not yet committed, what they are encoded to, and the bodies of requests under way.
    /// A larger record is still read, alone. Where many records wait for a slow collector they lie compressed, so that more
    /// than so many bytes are under way: up to four times as many, which are sent again after a crash at most.
    memory: ByteSize,
    /// How long a shutdown waits for requests under way. What is not acknowledged by then is read and sent again after
    /// the start.
    shutdown_grace: Period,
    /// Metrics, health and status over HTTP.
    server: Server,
    /// The program's own log.
    log: Log,
    /// Secrets are taken out of events before they leave.
    redaction: Redaction,
    /// Which input goes to which output. Default: every input to every output.
    pipelines: Vec<Pipeline>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/auditferry"),
            memory: ByteSize(32 << 20),
            shutdown_grace: Period(Duration::from_secs(30)),
            server: Server::default(),
            log: Log::default(),
            redaction: Redaction::default(),
            pipelines: Vec::new(),
        }
    }
}

/// `server`: metrics, health and status over HTTP.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address and port of /metrics, /healthz, /readyz, /status and the page at /; "none" turns the server off. Without a
    /// `token`, /status and the page are shown on the loop-back address only.
    #[serde(with = "listen")]
    #[schemars(with = "String", extend("examples" = ["127.0.0.1:9598"]))]
    pub listen: Option<SocketAddr>,
    /// What /status and the page want to see: as `Authorization: Bearer …`, or in a browser as the password of any user.
    /// There is no TLS here: put something in front of it where the network is not yours.
    pub token: Option<Secret>,
    /// Events that each pipeline read last, shown by /status and the page: time, workspace, service, action, user, status
    /// and id, no parameters. 0: none; at most 100.
    #[serde(deserialize_with = "recent_events")]
    #[schemars(range(max = 100))]
    pub recent_events: usize,
}

fn recent_events<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let number = usize::deserialize(from)?;
    if number > 100 {
        return Err(serde::de::Error::custom(format!("{number} is too many: at most 100 events are kept")));
    }
    Ok(number)
}

impl Default for Server {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9598))), token: None, recent_events: 0 }
    }
}

mod listen {
    use std::net::SocketAddr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(from)?;
        if text == "none" {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            let message =
                "is not an address with a port; write \"127.0.0.1:9598\", \"0.0.0.0:9598\" or \"none\"";
            D::Error::custom(format!("`{text}` {message}"))
        })
    }

    pub(super) fn serialize<S: Serializer>(listen: &Option<SocketAddr>, out: S) -> Result<S::Ok, S::Error> {
        match listen {
            Some(address) => out.collect_str(address),
            None => out.serialize_str("none"),
        }
    }
}

/// `log`: the program's own log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Form of a line. Default: `text` on a terminal, else `json`.
    pub format: Option<LogFormat>,
    /// What is logged: `error`, `warn`, `info`, `debug` or `trace`, or a list such as `warn,auditferry::input=debug`.
    /// Default `info`, also for what a list does not name.
    #[serde(deserialize_with = "level::deserialize")]
    #[schemars(extend("examples" = ["info"]))]
    pub level: Option<String>,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// One input and one output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Name of an input.
    pub input: String,
    /// Name of an output.
    pub output: String,
}

/// An input as configured.
#[derive(Clone)]
pub struct InputSettings {
    /// Its row of the registry.
    pub kind: &'static InputKind,
    /// Its own keys, without `type`.
    pub table: Value,
}

/// An output as configured.
#[derive(Clone)]
pub struct OutputSettings {
    /// Its row of the registry.
    pub kind: &'static OutputKind,
    /// The keys every output has.
    pub common: OutputCommon,
    /// Its own keys, without `type`.
    pub table: Value,
}

impl fmt::Debug for InputSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("InputSettings").field("kind", &self.kind.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for OutputSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("OutputSettings").field("kind", &self.kind.name).finish_non_exhaustive()
    }
}

/// The kinds of components a configuration can name.
#[derive(Clone, Copy, Debug)]
struct Kinds {
    inputs: &'static [InputKind],
    outputs: &'static [OutputKind],
}

impl Kinds {
    const REGISTERED: Self = Self { inputs: registry::INPUTS, outputs: registry::OUTPUTS };
}

/// The environment's variables that configure auditferry, or look as if they should, to be passed to [`Config::load`].
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.to_ascii_uppercase().starts_with("AUDITFERRY_"))
        .collect()
}

/// Whether a variable is a key: the others only look like one.
fn is_key(variable: &str) -> bool {
    variable.to_ascii_uppercase().starts_with("AUDITFERRY__")
}

impl Config {
    /// Reads the files, or [`DEFAULT_FILE`] if none is named, and the environment over them. Resolves no secret and
    /// touches no network; [`Config::verify`] checks the components themselves.
    ///
    /// # Errors
    /// Everything that is wrong, a line each.
    pub fn load(files: &[PathBuf], environment: &BTreeMap<String, String>) -> Result<Self, ConfigErrors> {
        let default = [PathBuf::from(DEFAULT_FILE)];
        let files = if files.is_empty() { default_files(&default, environment) } else { files };
        resolve::load(files, environment, Kinds::REGISTERED)
    }

    /// Checks every component's own keys and resolves the secrets, without touching the network.
    ///
    /// # Errors
    /// Everything that is wrong, a line each.
    pub fn verify(&self) -> Result<(), ConfigErrors> {
        let mut report = Report::new(self.origins.clone());
        resolve::components(self.inputs.iter(), self.outputs.iter(), &mut report);
        resolve::redaction(&self.redaction, &mut report);
        resolve::secrets(&self.server, &self.redaction, &mut report);
        if report.errors.is_empty() { Ok(()) } else { Err(ConfigErrors(report.errors)) }
    }

    /// What the input of a pipeline, `<input>/<output>`, says in place of its records.
    pub fn gaps(&self, pipeline: &str) -> Gaps {
        let input = pipeline.split('/').next().and_then(|name| self.inputs.get(name));
        input.map(|input| (input.kind.gaps)(&input.table)).unwrap_or_default()
    }

    /// Builds the input of a pipeline.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key and the file.
    pub fn build_input(&self, name: &str, context: InputContext) -> Result<Box<dyn Input>, ConfigError> {
        let path = format!("inputs.{name}");
        let settings = self.inputs.get(name).ok_or_else(|| self.error(&path, "there is no such input"))?;
        (settings.kind.build)(settings.table.clone(), context)
            .map_err(|error| self.error(&error::below(&path, &error.key), &error.message))
    }

    /// Builds the output of a pipeline.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key and the file.
    pub fn build_output(&self, name: &str) -> Result<Box<dyn Output>, ConfigError> {
        let settings = self.outputs.get(name).ok_or_else(|| self.no_such_output(name))?;
        settings.build(name, settings.table.clone()).map_err(|error| self.output_error(name, &error))
    }

    /// What is wrong with an output's own keys, and in which file.
    pub(crate) fn output_error(&self, name: &str, error: &BuildError) -> ConfigError {
        self.error(&error::below(&format!("outputs.{name}"), &error.key), &error.message)
    }

    /// The error of a name that no output has.
    pub(crate) fn no_such_output(&self, name: &str) -> ConfigError {
        let known: Vec<_> = self.outputs.keys().map(String::as_str).collect();
        self.error(
            &format!("outputs.{name}"),
            &format!("there is no such output; there are {}", known.join(", ")),
        )
    }

    /// An error at a key, with the file it stands in.
    pub(crate) fn error(&self, key: &str, message: &str) -> ConfigError {
        located(&self.origins, key, message)
    }
}

impl OutputSettings {
    fn build(&self, name: &str, table: Value) -> Result<Box<dyn Output>, BuildError> {
        (self.kind.build)(table, self.context(name))
    }

    /// What the output is built with besides its own keys.
    pub(crate) fn context(&self, name: &str) -> OutputContext {
        OutputContext { name: name.to_owned(), format: self.common.format, http: self.common.http.clone() }
    }
}

/// A container may be configured by its environment alone: then the default file need not exist.
fn default_files<'a>(default: &'a [PathBuf], environment: &BTreeMap<String, String>) -> &'a [PathBuf] {
    let keys = environment.keys().any(|name| is_key(name));
    if !keys || Path::new(DEFAULT_FILE).exists() { default } else { &[] }
}
