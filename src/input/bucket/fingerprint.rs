//! Fingerprints of shipped lines: which lines of a rewritten object are new, and which one of several equal lines a
//! line is.
//!
//! A fingerprint is 64 bits of XXH3 under a secret of 192 random bytes that never leaves the state directory. Whoever
//! can put text into an audit log must not be able to craft a line that collides with another and so hides it; without
//! the secret he cannot even try. Cryptographic hashes were rejected: they cost more than the parsing.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};
use xxhash_rust::xxh3::xxh3_64_with_secret;

/// Lines after which equal ones are no longer counted as repeats of those before. Objects of up to this many lines are
/// exact; in larger ones a repeat is recognised within at least this many lines. Bounds memory to about 4 MB a reader.
const GENERATION: u64 = 1 << 16;

/// Lines of one object whose fingerprints are kept; an object with more is no longer compared line by line.
pub(super) const MAX_FINGERPRINTS: u32 = 2_000_000;

/// The key of fingerprints.
#[derive(Clone)]
pub(super) struct Key([u8; 192]);

impl Key {
    pub(super) fn new(secret: [u8; 192]) -> Self {
        Self(secret)
    }

    /// Fingerprint of a line, or digest of a seam.
    pub(super) fn fingerprint(&self, line: &[u8]) -> u64 {
        xxh3_64_with_secret(line, &self.0)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Key")
    }
}

/// Fingerprints as they are kept: eight bytes each, little endian, in shipping order.
pub(super) fn encode(fingerprints: &[u64]) -> Bytes {
    fingerprints.iter().flat_map(|fingerprint| fingerprint.to_le_bytes()).collect()
}

/// Reads fingerprints back.
pub(super) fn decode(notes: &[Bytes]) -> impl Iterator<Item = u64> {
    let eight = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or_default();
    notes.iter().flat_map(move |note| note.chunks_exact(8).map(eight))
}

/// The same in a list, which takes no more memory than they do.
pub(super) fn decode_all(notes: &[Bytes]) -> Vec<u64> {
    let mut all = Vec::with_capacity(notes.iter().map(|note| note.len() / 8).sum());
    all.extend(decode(notes));
    all
}

/// Room for the fingerprints of large objects: for as many as the largest has, 16 MB as they are read and 18 MB as they are
/// compared with. No budget counts them, and each reader could meet such an object.
#[derive(Debug)]
pub(super) struct Room(Semaphore);

impl Default for Room {
    fn default() -> Self {
        Self(Semaphore::new(MAX_FINGERPRINTS as usize))
    }
}

impl Room {
    /// Waits until there is room for so many. Few need none: small objects do not wait for large ones.
    pub(super) async fn take(&self, fingerprints: u64) -> Option<SemaphorePermit<'_>> {
        if fingerprints <= GENERATION {
            return None;
        }
        let most = u32::try_from(fingerprints).unwrap_or(MAX_FINGERPRINTS).min(MAX_FINGERPRINTS);
        self.0.acquire_many(most).await.ok()
    }
}

/// The lines shipped of an object, as a multiset from which a new version's lines are taken one by one.
#[derive(Debug, Default)]
pub(super) struct Shipped {
    /// Sorted; equal lines stand next to each other.
    sorted: Vec<u64>,
    taken: Vec<bool>,
    remaining: usize,
    /// Lines met beyond those shipped. All of an object may be new: they are counted as bounded as those of a fresh one.
    surplus: Repeats,
}

impl Shipped {
    /// In any order.
    pub(super) fn new(fingerprints: Vec<u64>) -> Self {
        let mut sorted = fingerprints;
        sorted.sort_unstable();
        let (taken, remaining) = (vec![false; sorted.len()], sorted.len());
        Self { sorted, taken, remaining, surplus: Repeats::default() }
    }

    /// Takes a line of the new version: `None` if it was shipped, else its occurrence number.
    pub(super) fn take(&mut self, fingerprint: u64) -> Option<u32> {
        let first = self.sorted.partition_point(|&known| known < fingerprint);
        // Searched, not walked: an object may be one line a million times over.
        let from_first = self.sorted.get(first..).unwrap_or_default();
        let equal = match from_first {
            [_, second, ..] if *second == fingerprint => {
                from_first.partition_point(|&known| known == fingerprint)
            }
            _ => usize::from(from_first.first() == Some(&fingerprint)),
        };
        let taken = self.taken.get_mut(first..first + equal).unwrap_or_default();
        // They are taken from the first on.
        let next = taken.partition_point(|taken| *taken);
        if let Some(next) = taken.get_mut(next) {
            *next = true;
            self.remaining -= 1;
            return None;
        }
        Some(u32::try_from(equal).unwrap_or(u32::MAX).saturating_add(self.surplus.count(fingerprint)))
    }

    /// Shipped lines that the new version (so far) does not hold.
    pub(super) fn missing(&self) -> usize {
        self.remaining
    }
}

/// Counts equal lines while an object is read from its beginning or from its committed offset.
///
/// Counts are kept for the generation a line is in and the one before. Generations begin at fixed line numbers, so that
/// a line gets the same number whether the object is read in one go or in many.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    lines: u64,
    current: HashMap<u64, u32, PassThrough>,
    previous: HashMap<u64, u32, PassThrough>,
}

impl Repeats {
    /// Counts as after these lines, which were shipped in this order.
    pub(super) fn after(total: u64, fingerprints: impl Iterator<Item = u64>) -> Self {
        let start = (total / GENERATION * GENERATION).saturating_sub(GENERATION);
        let mut repeats = Self { lines: start, ..Self::default() };
        for fingerprint in fingerprints.skip(usize::try_from(start).unwrap_or(usize::MAX)) {
            repeats.count(fingerprint);
        }
        repeats.lines = total;
        repeats
    }

    /// Counts a line; how many equal ones came before.
    pub(super) fn count(&mut self, fingerprint: u64) -> u32 {
        let before = self.previous.get(&fingerprint).copied().unwrap_or_default();
        let here = self.current.entry(fingerprint).or_default();
        let occurrence = before.saturating_add(*here);
        *here += 1;
        self.lines += 1;
        if self.lines.is_multiple_of(GENERATION) {
            self.previous = std::mem::take(&mut self.current);
        }
        occurrence
    }
}

/// Fingerprints are random already: hashing them again would only cost.
type PassThrough = BuildHasherDefault<PassThroughHasher>;

#[derive(Debug, Default)]
pub(super) struct PassThroughHasher(u64);

impl Hasher for PassThroughHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        /// What is new in a version is the multiset difference to what was shipped, and equal lines get the numbers that
        /// follow those of the shipped ones.
        #[test]
        fn new_lines_are_the_multiset_difference(
            shipped in prop::collection::vec(0u64..6, 0..30),
            version in prop::collection::vec(0u64..6, 0..30),
        ) {
            let count = |lines: &[u64], line| lines.iter().filter(|&&other| other == line).count();
            let mut known = Shipped::new(shipped.clone());
            let new: Vec<_> = version.iter().filter_map(|&line| known.take(line).map(|n| (line, n as usize))).collect();
            for line in 0..6 {
                let (before, now) = (count(&shipped, line), count(&version, line));
                let numbers: Vec<_> = new.iter().filter(|(other, _)| *other == line).map(|(_, n)| *n).collect();
                prop_assert_eq!(numbers, (before..now).collect::<Vec<_>>());
            }
            let missing: usize = (0..6).map(|line| count(&shipped, line).saturating_sub(count(&version, line))).sum();
            prop_assert_eq!(known.missing(), missing);
        }

        /// A line gets the same number whether the object is read in one go or resumed anywhere.
        #[test]
        fn numbers_do_not_depend_on_where_a_read_was_cut(
            lines in prop::collection::vec(0u64..4, 1..40), cut in 0usize..40,
        ) {
            let cut = cut.min(lines.len());
            let mut whole = Repeats::default();
            let expected: Vec<_> = lines.iter().map(|&line| whole.count(line)).collect();
            let mut resumed = Repeats::after(cut as u64, lines[..cut].iter().copied());
            let rest: Vec<_> = lines[cut..].iter().map(|&line| resumed.count(line)).collect();
            prop_assert_eq!(rest, &expected[cut..]);
        }
    }

    #[test]
    fn however_many_lines_are_new_they_take_no_more_memory_than_two_generations() {
        let mut known = Shipped::new(vec![1, 2]);
        for line in 0..5 * GENERATION {
            known.take(line);
        }
        let kept = known.surplus.current.len() + known.surplus.previous.len();
        assert!(kept as u64 <= 2 * GENERATION, "{kept} are kept");
        assert_eq!(known.missing(), 0);
    }

    /// Walked through, they would take half a trillion steps.
    #[test]
    fn a_line_that_stands_a_million_times_is_told_from_its_repeats() {
        let mut known = Shipped::new(vec![7; 1_000_000]);
        assert!((0..1_000_000).all(|_| known.take(7).is_none()));
        assert_eq!((known.missing(), known.take(7), known.take(7)), (0, Some(1_000_000), Some(1_000_001)));
    }

    #[test]
    fn generations_begin_at_fixed_lines() {
        let total = GENERATION + 10;
        let lines = |n: u64| (0..n).map(|line| if line % GENERATION == 5 { 5 } else { line + 1000 });
        let mut whole = Repeats::default();
        for line in lines(3 * GENERATION) {
            whole.count(line);
        }
        let mut resumed = Repeats::after(total, lines(total));
        for line in lines(3 * GENERATION).skip(usize::try_from(total).unwrap()) {
            resumed.count(line);
        }
        assert_eq!(whole.count(5), resumed.count(5));
        assert_eq!(whole.count(5), 2, "the generation before last is forgotten");
    }

    #[test]
    fn what_resumes_at_or_after_a_generation_knows_all_lines_of_the_one_before() {
        let lines = || (0..3 * GENERATION).map(|line| line % GENERATION);
        let mut whole = Repeats::default();
        let expected: Vec<_> = lines().map(|line| whole.count(line)).collect();
        for total in [2 * GENERATION, 2 * GENERATION + 10] {
            let behind = usize::try_from(total).unwrap();
            let mut resumed = Repeats::after(total, lines().take(behind));
            let rest: Vec<_> = lines().skip(behind).map(|line| resumed.count(line)).collect();
            assert!(rest == expected[behind..], "resumed at {total}");
        }
    }

    #[test]
    fn a_fingerprint_tells_lines_and_keys_apart() {
        let secret: [u8; 192] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let (key, other) = (Key::new(secret), Key::new(secret.map(|byte| byte.wrapping_mul(3))));
        assert_eq!(key.fingerprint(b"a"), key.fingerprint(b"a"));
        assert_ne!(key.fingerprint(b"a"), key.fingerprint(b"b"));
        assert_ne!(key.fingerprint(b"a"), other.fingerprint(b"a"));
    }

    #[test]
    fn fingerprints_survive_being_written() {
        let notes = [encode(&[1, u64::MAX]), encode(&[]), encode(&[3])];
        assert_eq!(decode(&notes).collect::<Vec<_>>(), [1, u64::MAX, 3]);
        let all = decode_all(&notes);
        assert_eq!((all.capacity(), all), (3, vec![1, u64::MAX, 3]));
    }

    #[test]
    fn large_objects_wait_for_room_and_small_ones_do_not() {
        let room = Room::default();
        let first =
            room.take(u64::from(MAX_FINGERPRINTS)).now_or_never().expect("there is room for the largest");
        assert!(room.take(GENERATION).now_or_never().is_some_and(|taken| taken.is_none()));
        assert!(room.take(GENERATION + 1).now_or_never().is_none(), "no room is left");
        drop(first);
        let both = (room.take(GENERATION + 1).now_or_never(), room.take(GENERATION + 1).now_or_never());
        assert!(
            matches!(both, (Some(Some(_)), Some(Some(_)))),
            "there is room for two that are not so large"
        );
        drop(both);
        assert!(
            room.take(u64::MAX).now_or_never().is_some(),
            "what has more than any may have waits for all"
        );
    }
}
