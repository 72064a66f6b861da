//! The command line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::{self, Config, ConfigErrors, Log};
use crate::cores::cores;
use crate::generate::command::{self, GenerateArgs};
use crate::registry;
use crate::state::sqlite;
use log::LogForm;

mod connect;
mod dead_letters;
mod harden;
mod log;
mod man;
mod run;
mod setup;
mod simulate;
mod state;
mod summary;

/// What went wrong, in lines for the terminal.
pub(crate) type CommandError = Box<dyn std::error::Error + Send + Sync>;

/// The version, and what was built into it: the Kafka client is left out by default.
const VERSION: &str = match (cfg!(feature = "aws"), cfg!(feature = "kafka")) {
    (true, true) => concat!(env!("CARGO_PKG_VERSION"), " (features: aws, kafka)"),
    (true, false) => concat!(env!("CARGO_PKG_VERSION"), " (features: aws)"),
    (false, true) => concat!(env!("CARGO_PKG_VERSION"), " (features: kafka)"),
    (false, false) => concat!(env!("CARGO_PKG_VERSION"), " (features: none)"),
};

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All is well: 0.
    Well,
    /// Done, and something was left over that somebody must look at: 1.
    WithRest,
    /// A service that ran has failed, by these errors; to start it again may help: 3.
    Failed(String),
}

/// Ships Databricks audit logs to your SIEM: only new lines, checkpointed after the collector acknowledges them.
#[derive(Debug, Parser)]
#[command(name = "auditferry", version = VERSION, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Form of the log on stderr [default: text on a terminal and for the journal, else json]
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogForm>,
    /// What is logged: error, warn, info, debug, trace, or a list such as warn,auditferry::input=debug
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ship audit logs, until stopped or (--once) until everything is shipped
    #[command(
        after_help = "Exit codes: 0 done; 1 --once: some records became dead letters; 2 it cannot start (configuration, \
                            secret, port, state), or --once could not read or deliver everything, also for being \
                            stopped; 3 a running service failed; 130 stopped at once, by a second signal"
    )]
    Run {
        #[command(flatten)]
        files: ConfigFiles,
        /// Ship what there is, then exit
        #[arg(long)]
        once: bool,
    },
    /// Check the configuration, its secrets and the state directory, and print what would run
    #[command(
        after_help = "Exit codes: 0 all is well; 1 with --connect: something would not work; 2 an error"
    )]
    Check {
        #[command(flatten)]
        files: ConfigFiles,
        /// Ask every source and collector too whether it would work; sends no events
        #[arg(long)]
        connect: bool,
    },
    /// Print the events of files as they would be shipped
    Simulate(simulate::SimulateArgs),
    /// Records that no collector took: list, show, replay, drop
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// The record of what was shipped: whether it is sound, and how to make it anew
    #[command(subcommand)]
    State(state::StateCommand),
    /// Prepare a collector for what is sent to it
    #[command(subcommand)]
    Setup(setup::SetupCommand),
    /// Print the JSON schema of the configuration, or its reference file
    Schema {
        /// Print every key as a commented TOML file instead
        #[arg(long)]
        reference: bool,
    },
    /// List the inputs, outputs and formats there are
    Catalog,
    /// Make a bucket of realistic audit logs, for tests and trials
    Generate(GenerateArgs),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man {
        /// Write the pages of all commands into this directory instead
        #[arg(long, value_name = "DIRECTORY")]
        all: Option<PathBuf>,
    },
}

/// `--config`
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConfigFiles {
    /// Configuration file; several are laid over each other [default: /etc/auditferry/auditferry.toml]
    #[arg(short, long = "config", value_name = "FILE", num_args = 1..)]
    config: Vec<PathBuf>,
}

impl ConfigFiles {
    /// Loads the configuration; the components' own keys are not looked at.
    pub(crate) fn read(&self) -> Result<Config, ConfigErrors> {
        Config::load(&self.config, &config::environment())
    }

    /// Loads and checks the configuration.
    pub(crate) fn load(&self) -> Result<Config, ConfigErrors> {
        let config = self.read()?;
        config.verify()?;
        Ok(config)
    }
}

/// `--config` or `--state-dir`
#[derive(clap::Args, Debug)]
pub(crate) struct Place {
    #[command(flatten)]
    files: ConfigFiles,
    /// State directory [default: that of the configuration]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

impl Place {
    /// The state directory.
    pub(crate) fn state_dir(&self) -> Result<PathBuf, CommandError> {
        match &self.state_dir {
            // Whoever mistypes it must not be told that all is well.
            Some(directory) if !directory.is_dir() => {
                Err(format!("--state-dir: there is no directory {}", directory.display()).into())
            }
            Some(directory) => Ok(directory.clone()),
            None => Ok(self.files.load()?.state_dir),
        }
    }
}

impl Cli {
    /// Runs the command. Errors go to stderr, one line each.
    pub fn run(self) -> ExitCode {
        harden::dump_no_core();
        log::tell_of_panics();
        match self.dispatch() {
            Ok(Ended::Well) => ExitCode::SUCCESS,
            Ok(Ended::WithRest) => ExitCode::from(1),
            Ok(Ended::Failed(errors)) => {
                complain(&errors);
                ExitCode::from(3)
            }
            Err(error) => {
                // Whoever closed our output wants no complaint.
                if !is_closed_output(&*error) {
                    complain(&told(&*error));
                }
                ExitCode::from(2)
            }
        }
    }

    fn dispatch(self) -> Result<Ended, CommandError> {
        let mut stdout = io::stdout().lock();
        match &self.command {
            Command::Run { files, once } => {
                let config = files.load()?;
                self.start_log(&config.log)?;
                drop(stdout);
                return run::run(config, files, *once);
            }
            Command::Check { files, connect } => {
                let config = files.load()?;
                sqlite::try_directory(&config.state_dir)?;
                write!(stdout, "{}", config::describe(&config))?;
                if *connect {
                    return Ok(runtime()?.block_on(connect::run(&config, &mut stdout))?);
                }
            }
            Command::Simulate(args) => return simulate::run(args, &mut stdout),
            Command::DeadLetters(command) => {
                self.start_log(&Log::default())?;
                drop(stdout);
                return dead_letters::run(command);
            }
            Command::State(command) => {
                self.start_log(&Log::default())?;
                return state::run(command, &mut stdout);
            }
            Command::Setup(command) => return setup::run(command, &mut stdout),
            Command::Schema { reference: true } => write!(stdout, "{}", config::reference())?,
            Command::Schema { reference: false } => {
                writeln!(stdout, "{}", serde_json::to_string_pretty(&config::schema())?)?;
            }
            Command::Catalog => catalog(&mut stdout)?,
            Command::Generate(args) => {
                runtime()?.block_on(command::run(args, crate::app::now(), &mut stdout))?;
            }
            Command::Completions { shell } => {
                // Written at once: the library panics where its output is closed.
                let mut script = Vec::new();
                clap_complete::generate(*shell, &mut Self::command(), "auditferry", &mut script);
                stdout.write_all(&script)?;
            }
            Command::Man { all: Some(directory) } => man::write_all(Self::command(), directory)
                .map_err(|error| format!("cannot write the pages to {}: {error}", directory.display()))?,
            Command::Man { all: None } => stdout.write_all(man::page(Self::command())?.as_bytes())?,
        }
        Ok(Ended::Well)
    }

    fn start_log(&self, log: &Log) -> Result<(), CommandError> {
        log::start(self.log_format, self.log_level.as_deref(), log)
    }
}

/// Writes errors to stderr, a line each, and as errors where that is the journal's.
fn complain(text: &str) {
    let priority = if log::goes_to_journal() { "<3>" } else { "" };
    for line in text.lines() {
        let line = log::OneLine(format_args!("{line}"));
        let _ = writeln!(io::stderr(), "{priority}auditferry: {line}");
    }
}

/// What went wrong, and why where that is not said already.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

fn is_closed_output(error: &(dyn std::error::Error + 'static)) -> bool {
    let of_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref().is_some_and(of_pipe) || error.source().is_some_and(is_closed_output)
}

fn catalog(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "Inputs (type = …)")?;
    let mark = |kind| if registry::lacking(kind).is_some() { " (not in this build)" } else { "" };
    for kind in registry::INPUTS {
        writeln!(out, "  {:<13} {}{}", kind.name, kind.about, mark(kind.name))?;
    }
    writeln!(out, "\nOutputs (type = …)")?;
    for kind in registry::OUTPUTS {
        writeln!(out, "  {:<13} {}{}", kind.name, kind.about, mark(kind.name))?;
    }
    writeln!(out, "\nFormats (format = …)")?;
    for format in crate::format::FormatName::value_variants() {
        if let Some(value) = format.to_possible_value() {
            writeln!(
                out,
                "  {:<13} {}",
                value.get_name(),
                value.get_help().map(ToString::to_string).unwrap_or_default()
            )?;
        }
    }
    Ok(())
}

/// The runtime. Blocking work (encoding, compression, files, the database) gets two threads a core and some for what
/// waits for a disk: each thread that allocates costs an arena of the C library's allocator, and tokio's own limit of 512
/// would let a burst keep half as much memory again as the budget.
pub(crate) fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().max_blocking_threads(2 * cores() + 2).enable_all().build()
}
