//! `auditferry generate`.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{Bucket, GenerateError, Layout, Options, Rewrite, RoundSummary};
use crate::time::{Date, Millis};

/// Make a bucket of realistic audit logs, the same one every time for the same arguments and a last day that is over.
#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    /// Directory to write to; files that are there already are overwritten
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Workspaces; in a delivery bucket of two or more, one of them is the account (workspaceId=0)
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub workspaces: u32,
    /// Days, the last one being the end date
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub days: u32,
    /// Lines, about 1 KB each, spread evenly over workspaces, days and objects
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub events: u64,
    /// Objects per workspace and day [default: 2 in a delivery bucket, 24 in Azure]
    #[arg(long, value_name = "N")]
    pub objects_per_day: Option<u32>,
    /// Times that each object is overwritten until it is complete
    #[arg(long, default_value_t = 0, value_name = "K")]
    pub overwrite_rounds: u32,
    /// What the rounds do to an object, in turn [default: all in a delivery bucket, append in Azure]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    pub rewrites: Vec<Rewrite>,
    /// Pause between two rounds, such as 5s
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s", value_name = "TIME")]
    pub round_interval: Duration,
    /// Of a million lines, how many repeat the line before them byte for byte
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub repeats: u32,
    /// Another seed, other events
    #[arg(long, default_value_t = 1, value_name = "S")]
    pub seed: u64,
    /// Paths and record shape
    #[arg(long, value_enum, default_value_t = Layout::DatabricksDelivery)]
    pub layout: Layout,
    /// Last day, yyyy-mm-dd [default: today, whose events end now]
    #[arg(long, value_parser = parse_date, value_name = "DATE")]
    pub end_date: Option<Date>,
}

fn parse_date(text: &str) -> Result<Date, String> {
    Date::parse(text).ok_or_else(|| "write it as yyyy-mm-dd, for instance 2026-01-05".to_owned())
}

/// Writes all rounds and prints one line about them.
///
/// # Errors
/// [`GenerateError`]: an argument out of its range, a file that cannot be written, an output that is closed.
pub async fn run(args: &GenerateArgs, now: Millis, out: &mut impl Write) -> Result<(), GenerateError> {
    let bucket = Bucket::new(options(args, now))?;
    let mut total = RoundSummary::default();
    let mut last = RoundSummary::default();
    for round in 0..=bucket.last_round() {
        if round > 0 && !args.round_interval.is_zero() {
            tokio::time::sleep(args.round_interval).await;
        }
        last = bucket.write_round(&args.out, round)?;
        total.bytes += last.bytes;
    }
    let mut line = format!("wrote {} lines ({} bytes) in {} objects", last.lines, last.bytes, last.objects);
    if bucket.last_round() > 0 {
        line.push_str(&format!(", in {} rounds of {} bytes together", bucket.last_round() + 1, total.bytes));
    }
    writeln!(out, "{line}, to {}", args.out.display()).map_err(GenerateError::Print)
}

fn options(args: &GenerateArgs, now: Millis) -> Options {
    Options {
        now: Some(now),
        layout: args.layout,
        objects_per_day: args.objects_per_day,
        overwrite_rounds: args.overwrite_rounds,
        rewrites: args.rewrites.clone(),
        repeats: args.repeats,
        seed: args.seed,
        ..Options::new(args.workspaces, args.days, args.events, args.end_date.unwrap_or(now.date()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        generate: GenerateArgs,
    }

    fn args(given: &[&str]) -> Result<GenerateArgs, String> {
        let command = Command::try_parse_from(std::iter::once("generate").chain(given.iter().copied()));
        command.map(|command| command.generate).map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn all_rounds_are_written_and_summed_up_in_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().to_str().unwrap();
        let given = ["--out", out, "--events", "60", "--overwrite-rounds", "3", "--round-interval", "1h"];
        let mut printed = Vec::new();
        let start = tokio::time::Instant::now();
        let now = Millis::parse("2026-01-06T10:00:00Z").unwrap();
        run(&args(&given).unwrap(), now, &mut printed).await.unwrap();
        let printed = String::from_utf8(printed).unwrap();
        assert!(printed.starts_with("wrote 60 lines ("), "{printed}");
        assert!(printed.contains(" in 12 objects, in 4 rounds of "), "{printed}");
        assert_eq!(start.elapsed(), Duration::from_secs(3 * 3600));
        assert!(directory.path().join("workspaceId=0/date=2026-01-06").is_dir());
    }

    #[test]
    fn arguments_are_read_as_people_write_them() {
        let given = [
            "--out",
            "x",
            "--layout",
            "azure_diagnostic",
            "--rewrites",
            "append,touch",
            "--end-date",
            "2026-02-03",
        ];
        let args = args(&given).unwrap();
        assert_eq!(args.layout, Layout::AzureDiagnostic);
        assert_eq!(args.rewrites, [Rewrite::Append, Rewrite::Touch]);
        assert_eq!(args.end_date, Date::parse("2026-02-03"));
    }

    #[test]
    fn a_wrong_date_is_explained() {
        let error = args(&["--out", "x", "--end-date", "5.1.2026"]).unwrap_err();
        assert!(error.contains("write it as yyyy-mm-dd"), "{error}");
    }
}
