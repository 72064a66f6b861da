//! Writes objects as Databricks does: each is overwritten with what it held and more, until it is full.

use auditferry::generate::{Bucket, Options};
use auditferry::time::{Date, Millis};
use fastrand::Rng;

use crate::Result;
use crate::store::Store;

/// Objects that grow at once.
const OPEN: usize = 24;
/// Lines of a full object.
const FULL: usize = 400;
/// Objects written at a time.
const AT_ONCE: usize = 4;
/// Most lines that are added at a time.
const MOST_LINES: usize = 40;
const WORKSPACES: usize = 5;

#[derive(Debug)]
pub(crate) struct Writer {
    rng: Rng,
    /// The lines to come and their request ids, which are all different.
    lines: Vec<(String, Vec<u8>)>,
    ids: Vec<String>,
    open: Vec<(String, Vec<Vec<u8>>)>,
    generation: u64,
    objects: usize,
    versions: usize,
}

impl Writer {
    pub(crate) fn new(rng: Rng) -> Result<Self> {
        let mut writer = Self {
            rng,
            lines: Vec::new(),
            ids: Vec::new(),
            open: Vec::new(),
            generation: 0,
            objects: 0,
            versions: 0,
        };
        writer.generate()?;
        Ok(writer)
    }

    /// Makes more lines.
    fn generate(&mut self) -> Result<()> {
        let date = Date::parse("2026-01-31").ok_or("date")?;
        let mut options = Options::new(3, 1, 50_000, date);
        options.seed = self.rng.u64(..);
        options.repeats = 0;
        let bucket = Bucket::new(options)?;
        self.generation += 1;
        self.lines = bucket.request_ids().zip(bucket.lines()).collect();
        Ok(())
    }

    /// Overwrites some objects with more lines, in three of four cases at their end.
    pub(crate) fn write(&mut self, store: &Store) -> Result<()> {
        for _ in 0..AT_ONCE {
            while self.open.len() < OPEN {
                self.objects += 1;
                let (number, workspace) = (self.objects, self.objects % WORKSPACES);
                let today = today();
                let key = format!("logs/workspaceId={workspace}/date={today}/auditlogs_{number}.json");
                self.open.push((key, Vec::new()));
            }
            let chosen = self.rng.usize(..OPEN);
            let count = self.rng.usize(1..=MOST_LINES);
            if self.lines.len() < count {
                self.generate()?;
            }
            let Some((key, lines)) = self.open.get_mut(chosen) else { continue };
            let at = if self.rng.u32(..4) == 0 { self.rng.usize(..=lines.len()) } else { lines.len() };
            let new = self.lines.split_off(self.lines.len() - count);
            let (ids, new): (Vec<_>, Vec<_>) = new.into_iter().unzip();
            self.ids.extend(ids);
            lines.splice(at..at, new);
            let mut content = lines.join(b"\n".as_slice());
            content.push(b'\n');
            store.put(key, content);
            self.versions += 1;
            if lines.len() >= FULL {
                self.open.swap_remove(chosen);
            }
        }
        Ok(())
    }

    /// The request ids of all lines so far.
    pub(crate) fn ids(&self) -> &[String] {
        &self.ids
    }

    pub(crate) fn count(&self) -> usize {
        self.ids.len()
    }

    pub(crate) fn objects(&self) -> usize {
        self.objects
    }

    pub(crate) fn versions(&self) -> usize {
        self.versions
    }
}

fn today() -> Date {
    Millis::new(jiff::Timestamp::now().as_millisecond()).map_or(Date::EPOCH, Millis::date)
}
