//! The program's own log, and what a defect leaves behind: on stderr, since stdout may carry events.
//!
//! Names of objects, answers of servers and the like stand in log lines, and whoever chooses them must not be able to
//! write lines of his own or to steer the terminal: what is no printable character is written as an escape.

use std::any::Any;
use std::fmt::{self, Debug, Display, Write};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

use clap::ValueEnum;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{self, Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::CommandError;
use crate::config::{Log, LogFormat, log_filter};

/// `--log-format`
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum LogForm {
    Text,
    Json,
}

/// Starts it, as the command line says, else the configuration, else as fits where it goes.
pub(super) fn start(form: Option<LogForm>, level: Option<&str>, log: &Log) -> Result<(), CommandError> {
    let level = level.or(log.level.as_deref()).unwrap_or("info");
    let filter = log_filter(level).map_err(|wrong| format!("log.level: {wrong}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let form = form.or(log.format.map(|format| match format {
        LogFormat::Text => LogForm::Text,
        LogFormat::Json => LogForm::Json,
    }));
    let (journal, terminal) = (goes_to_journal(), io::stderr().is_terminal());
    if matches!(form, Some(LogForm::Json)) || (form.is_none() && !journal && !terminal) {
        let builder = builder.with_writer(|| JsonLines(io::stderr()));
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
        return Ok(());
    }
    let fields = format::debug_fn(|out, field, value| match field.name() {
        "message" => write!(out, "{}", OneLine(value)),
        name => write!(out, "{name}={}", OneLine(value)),
    });
    let builder = builder.with_writer(io::stderr).fmt_fields(fields.delimited(" "));
    if journal {
        builder.with_ansi(false).event_format(Journal::default()).init();
    } else {
        builder.with_ansi(terminal).with_target(false).init();
    }
    Ok(())
}

/// True if stderr is the journal's: what `JOURNAL_STREAM` names. It is inherited, and then stderr may go elsewhere.
pub(super) fn goes_to_journal() -> bool {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    *KNOWN.get_or_init(|| {
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let stderr =
            io::stderr().as_fd().try_clone_to_owned().and_then(|stderr| File::from(stderr).metadata());
        stderr.is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
    })
}

/// A line for the journal, which knows the time: its priority as the journal reads it, the message, the fields.
struct Journal(Format<Full, ()>);

impl Default for Journal {
    fn default() -> Self {
        Self(Format::default().without_time().with_level(false).with_target(false).with_ansi(false))
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

/// Writes lines of JSON, in which the control characters that JSON lets stand are escaped, too: a terminal obeys some of
/// them.
struct JsonLines<W>(W);

impl<W: io::Write> io::Write for JsonLines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let obeyed = |c: char| c.is_control() && c >= '\u{7f}';
        if !text.contains(obeyed) {
            self.0.write_all(line)?;
            return Ok(line.len());
        }
        let mut escaped = String::with_capacity(text.len() + 16);
        for character in text.chars() {
            match obeyed(character) {
                true => escaped.push_str(&format!("\\u{:04x}", u32::from(character))),
                false => escaped.push(character),
            }
        }
        self.0.write_all(escaped.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A panic is a defect: it says where it is. What it says besides may quote data, and is told only where it cannot.
pub(super) fn tell_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let text = harmless(panic.payload()).unwrap_or("what it says is withheld, for it may hold data");
        let line = format!("a defect at {place}: {text}; please report it");
        if tracing::dispatcher::has_been_set() {
            tracing::error!("{line}");
        } else {
            let _ = io::Write::write_fmt(&mut io::stderr(), format_args!("auditferry: {line}\n"));
        }
    }));
}

/// What a panic says, where no data can be in it: the text stands in the program, or is one of the language's own with
/// nothing but numbers in it.
fn harmless(payload: &(dyn Any + Send)) -> Option<&str> {
    const OF_NUMBERS: [&str; 3] =
        ["index out of bounds: the len is ", "range end index ", "range start index "];
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        return Some(text);
    }
    let text = payload.downcast_ref::<String>()?;
    OF_NUMBERS.iter().any(|start| text.starts_with(start)).then_some(text)
}

/// Writes a text without what would break its line or be a command to a terminal.
pub(super) struct OneLine<T>(pub(super) T);

impl<T: Debug> Display for OneLine<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(out), "{:?}", self.0)
    }
}

struct Escaping<'f, 'o>(&'f mut fmt::Formatter<'o>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                // Besides control characters those that turn the direction of writing around, and line separators.
                _ if character.is_control() => write!(self.0, "{}", character.escape_default())?,
                '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    write!(self.0, "{}", character.escape_unicode())?;
                }
                plain => self.0.write_char(plain)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_on_its_line_and_commands_no_terminal() {
        let text = "a\nb\r\u{1b}[2J\u{9b}\u{7}\u{202e}\u{2028}é\tz";
        let escaped = r"a\nb\r\u{1b}[2J\u{9b}\u{7}\u{202e}\u{2028}é\tz";
        assert_eq!(OneLine(format_args!("{text}")).to_string(), escaped);
    }
    #[test]
    fn a_line_of_json_commands_no_terminal_either() {
        let mut out = JsonLines(Vec::new());
        for line in ["{\"a\":\"é\\n\"}\n", "{\"a\":\"\u{9b}2J\u{7f}\"}\n"] {
            io::Write::write_all(&mut out, line.as_bytes()).unwrap();
        }
        assert_eq!(String::from_utf8(out.0).unwrap(), "{\"a\":\"é\\n\"}\n{\"a\":\"\\u009b2J\\u007f\"}\n");
    }

    #[test]
    fn a_panic_is_told_without_what_it_may_quote() {
        let payload = |act: fn()| std::panic::catch_unwind(act).unwrap_err();
        let quoting: [fn(); 2] = [
            || panic!("no {}", String::from("hunter2")),
            // The language itself quotes a text that is cut within a character.
            || drop("hunter2 é"[..9].to_owned()),
        ];
        for act in quoting {
            assert_eq!(harmless(&*payload(act)), None);
        }
        assert_eq!(harmless(&*payload(|| panic!("a fixed text"))), Some("a fixed text"));
        let empty: fn() = || assert_eq!(std::hint::black_box(Vec::<u8>::new())[3], 0);
        assert_eq!(harmless(&*payload(empty)), Some("index out of bounds: the len is 0 but the index is 3"));
    }
}
