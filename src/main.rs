//! The `auditferry` command.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    auditferry::cli::Cli::parse().run()
}
