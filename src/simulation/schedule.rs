//! What happens in one simulation, drawn from its seed before it begins: what is written, what goes wrong, who dies when.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;

use crate::buffer::Pool;
use crate::compress::Encoding;

/// Longest time in which anything may go wrong.
const TROUBLED: Duration = Duration::from_secs(150);
/// Dates of the folders. What comes late in a closed one is found only a day later, which takes its time in a simulation
/// too: few of them have one.
const DATES: [&str; 3] = ["2026-03-10", "2026-03-09", "2026-03-07"];
/// Most a clock is set by: later, the fingerprints of the dates above are dropped, and what changes in such an object is
/// sent again by design.
const LONGEST_JUMP_HOURS: i64 = 72;
/// Collectors take any one line; no body beyond it, where they have a limit.
const LEAST_LIMIT: usize = 200;

/// A step of the process that it may die at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The collector has the events, the process has no answer yet.
    Sent,
    /// The answer is on its way to the committer.
    Answered,
    /// The commit has begun and is not on disk.
    Committing,
    /// The commit is on disk, and nobody has been told.
    Committed,
    /// The dead letters are not on disk yet.
    KeepingLetters,
    /// They are, and their events are not settled.
    KeptLetters,
    /// A part of an object is read again from its seam on.
    ReadingSeam,
}

impl Step {
    pub(super) const ALL: [Self; 7] = [
        Self::Sent,
        Self::Answered,
        Self::Committing,
        Self::Committed,
        Self::KeepingLetters,
        Self::KeptLetters,
        Self::ReadingSeam,
    ];

    /// A life seldom gets to it.
    fn is_rare(self) -> bool {
        matches!(self, Self::KeepingLetters | Self::KeptLetters | Self::ReadingSeam)
    }
}

/// How a life of the process ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// Killed after so long.
    Killed(Duration),
    /// Killed when it comes to this step for the nth time, or when the trouble has gone on for long enough.
    KilledAt(Step, u32),
    /// Told to stop after so long, and given this long for it.
    Stopped(Duration, Duration),
    /// A run with `--once`, to its own end.
    Once,
}

/// A version of an object that is put in place.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) at: Duration,
    pub(super) key: String,
    pub(super) content: Bytes,
}

/// What must become of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    /// No collector takes it, or it is no record.
    DeadLetter,
}

/// How often each kind of trouble comes, in percent of the requests, and when there is nothing but trouble.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble {
    pub(super) percent: u32,
    pub(super) outages: Vec<(Duration, Duration)>,
}

impl Trouble {
    fn draw(rng: &mut Rng) -> Self {
        let percent = if rng.u32(..4) == 0 { 0 } else { rng.u32(1..50) };
        let mut outages = Vec::new();
        while rng.u32(..4) == 0 {
            let from = seconds(rng, 0..100);
            outages.push((from, from + seconds(rng, 1..60)));
        }
        Self { percent, outages }
    }

    fn none() -> Self {
        Self::default()
    }
}

/// What a store says of the version of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Etags {
    Strong,
    /// True of no condition.
    Weak,
    Missing,
}

/// One simulation.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    pub(super) seed: u64,
    /// The collector knows an event by its id.
    pub(super) keyed: bool,
    /// It promises acknowledgement instead of giving it.
    pub(super) promises: bool,
    /// Largest body it takes.
    pub(super) limit: usize,
    pub(super) lives: Vec<End>,
    /// Until when anything may go wrong.
    pub(super) troubled: Duration,
    pub(super) writes: Vec<Write>,
    /// By request id: how many lines have it, and what must become of them.
    pub(super) expected: BTreeMap<String, (u32, Fate)>,
    pub(super) jumps: Vec<(Duration, i64)>,
    pub(super) store: Trouble,
    pub(super) etags: Etags,
    pub(super) collector: Trouble,
    pub(super) disk: Trouble,
    pub(super) poll: Duration,
    pub(super) open_dates: u32,
    pub(super) concurrency: usize,
    pub(super) verify_whole_below: u64,
    pub(super) verify_on_close: bool,
    pub(super) memory: usize,
    pub(super) chunk_bytes: usize,
    pub(super) batch_bytes: usize,
    pub(super) in_flight: usize,
}

fn seconds(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range.start * 1000..range.end * 1000))
}

impl Schedule {
    pub(super) fn draw(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        // One in five is calm: nothing may come twice there.
        let calm = rng.u32(..5) == 0;
        let (mut writes, mut expected) = (Vec::new(), BTreeMap::new());
        let fat = rng.u32(..4) == 0;
        for number in 0..rng.usize(1..5) {
            let date = DATES[rng.usize(..DATES.len())];
            let workspace = rng.u32(1..3);
            let key = format!("logs/workspaceId={workspace}/date={date}/auditlogs_{number}.json");
            Object::draw(number, fat, rng).rewrite(&key, rng, &mut writes, &mut expected);
        }
        writes.sort_by_key(|write| write.at);
        let last = writes.last().map_or(Duration::ZERO, |write| write.at);
        let chunk_bytes = if fat { rng.usize(8..64) << 10 } else { rng.usize(300..4000) };
        let concurrency = rng.usize(1..4);
        let trouble = |rng: &mut Rng| if calm { Trouble::none() } else { Trouble::draw(rng) };
        Self {
            seed,
            keyed: rng.bool(),
            promises: rng.u32(..5) == 0,
            limit: if rng.bool() { usize::MAX } else { rng.usize(LEAST_LIMIT..3000) },
            lives: lives(calm, fat, rng),
            troubled: (last + seconds(rng, 1..60)).min(TROUBLED),
            writes,
            expected,
            jumps: if calm { Vec::new() } else { jumps(rng) },
            store: trouble(rng),
            etags: [Etags::Strong, Etags::Strong, Etags::Strong, Etags::Weak, Etags::Missing][rng.usize(..5)],
            collector: trouble(rng),
            disk: trouble(rng),
            poll: Duration::from_secs([5, 10, 20, 60][rng.usize(..4)]),
            open_dates: if rng.u32(..30) == 0 { 2 } else { 7 },
            concurrency,
            verify_whole_below: [0, 0, 0, 1000, 256 << 10][rng.usize(..5)],
            verify_on_close: rng.u32(..4) == 0,
            // What a reader may hold for each line: a chunk and a quarter.
            memory: chunk_bytes * (2 * concurrency + rng.usize(..6)),
            chunk_bytes,
            batch_bytes: rng.usize(100..3000),
            in_flight: rng.usize(1..5),
        }
    }
}

impl Schedule {
    /// What it is, without what is written.
    pub(super) fn settings(&self) -> Self {
        Self { writes: Vec::new(), expected: BTreeMap::new(), ..self.clone() }
    }
}

fn lives(calm: bool, fat: bool, rng: &mut Rng) -> Vec<End> {
    let most = if rng.u32(..3) == 0 { 0 } else { 5 };
    let mut lives = Vec::new();
    while lives.len() < most && rng.u32(..4) > 0 {
        let at = if rng.bool() { seconds(rng, 0..10) } else { seconds(rng, 0..60) };
        lives.push(match rng.u32(..5) {
            0 => End::Stopped(at, seconds(rng, 1..40)),
            1 if rng.u32(..3) == 0 => End::Once,
            _ if calm => End::Stopped(at, Duration::from_secs(3600)),
            1 | 2 => End::Killed(at),
            _ => {
                // Only what is large is read from a seam on.
                let seam = fat && rng.bool();
                let step = if seam { Step::ReadingSeam } else { Step::ALL[rng.usize(..Step::ALL.len())] };
                End::KilledAt(step, if step.is_rare() { 1 } else { rng.u32(1..12) })
            }
        });
    }
    lives
}

fn jumps(rng: &mut Rng) -> Vec<(Duration, i64)> {
    let mut jumps = Vec::new();
    if rng.u32(..8) == 0 {
        let millis = rng.i64(-LONGEST_JUMP_HOURS..LONGEST_JUMP_HOURS) * 3_600_000;
        let at = seconds(rng, 0..80);
        jumps.push((at, millis));
        // Somebody notices, or not.
        if rng.bool() {
            jumps.push((at + seconds(rng, 1..80), -millis));
        }
    }
    jumps
}

/// An object while its versions are made up.
struct Object {
    number: usize,
    lines: Vec<String>,
    made: usize,
    compressed: bool,
    terminated: bool,
    fat: bool,
}

impl Object {
    fn draw(number: usize, fat: bool, rng: &mut Rng) -> Self {
        let (compressed, terminated) = (rng.u32(..6) == 0, rng.u32(..5) > 0);
        Self { number, lines: Vec::new(), made: 0, compressed, terminated, fat }
    }

    /// Makes up all versions, and says what must come of their lines.
    fn rewrite(
        mut self,
        key: &str,
        rng: &mut Rng,
        writes: &mut Vec<Write>,
        expected: &mut BTreeMap<String, (u32, Fate)>,
    ) {
        let mut at = seconds(rng, 0..30);
        for _ in 0..rng.u32(1..7) {
            let most = if self.fat { 6 } else { 25 };
            let new: Vec<String> = (0..rng.usize(..most)).map(|_| self.line(rng, expected)).collect();
            match rng.u32(..8) {
                0..5 => self.lines.extend(new),
                5 | 6 => {
                    let at = rng.usize(..=self.lines.len());
                    self.lines.splice(at..at, new);
                }
                _ => {
                    self.lines.extend(new);
                    rng.shuffle(&mut self.lines);
                }
            }
            if rng.u32(..8) == 0 {
                // Half of it, as a writer that begins anew leaves it for a moment.
                let half = self.lines.len() / 2;
                writes.push(Write { at, key: key.to_owned(), content: self.content(half) });
                at += seconds(rng, 0..20);
            }
            writes.push(Write { at, key: key.to_owned(), content: self.content(self.lines.len()) });
            at += if rng.u32(..3) == 0 { Duration::from_millis(rng.u64(..300)) } else { seconds(rng, 0..20) };
        }
    }

    /// A new line, or one that is there already.
    fn line(&mut self, rng: &mut Rng, expected: &mut BTreeMap<String, (u32, Fate)>) -> String {
        if !self.lines.is_empty() && rng.u32(..12) == 0 {
            let line = self.lines[rng.usize(..self.lines.len())].clone();
            let id = request_id(&line).to_owned();
            expected.entry(id).and_modify(|(count, _)| *count += 1);
            return line;
        }
        self.made += 1;
        let kind = rng.u32(..60);
        let id = format!("o{}-{}{}", self.number, self.made, if kind == 0 { "-poison" } else { "" });
        let fate = if kind < 2 { Fate::DeadLetter } else { Fate::Delivered };
        expected.insert(id.clone(), (1, fate));
        let pad = if self.fat { rng.usize(2000..16_000) } else { rng.usize(..200) };
        let mut line = format!(
            r#"{{"version":"2.0","timestamp":1767609296007,"orgId":"7","serviceName":"accounts","actionName":"login","requestId":"{id}","requestParams":{{"pad":"{}"}}}}"#,
            "x".repeat(pad)
        );
        if kind == 1 {
            line.pop();
            let _ = write!(line, "#");
        }
        line
    }

    fn content(&self, lines: usize) -> Bytes {
        let mut text = self.lines[..lines].join("\n");
        if self.terminated && lines > 0 {
            text.push('\n');
        }
        if self.compressed {
            return Encoding::Gzip.compress(&[text.as_bytes()], &Pool::default()).unwrap();
        }
        text.into()
    }
}

/// The request id in a line.
pub(super) fn request_id(line: &str) -> &str {
    let rest = line.split_once(r#""requestId":""#).map_or("", |(_, rest)| rest);
    rest.split('"').next().unwrap_or_default()
}
