//! The `auditferry` command.

use std::process::ExitCode;

use clap::Parser;

/// The C library's allocator keeps an arena per thread, and batches travel between threads: the process would hold half
/// as much again as its budget.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    auditferry::cli::Cli::parse().run()
}
