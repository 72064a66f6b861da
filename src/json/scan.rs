//! Sees that a line is one JSON object and finds its members, both in one pass over the bytes: half the cost of a
//! general reader, which has to be ready for what delivered lines never hold. What it meets in a value on the way it
//! hands on, so that nobody has to look for it a second time.

use wide::u8x64;

/// Levels of nesting that are followed.
const MAX_DEPTH: u32 = 128;

/// What a value may hold; where nobody looked, it may hold everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// An escape in one of its strings that canonical text spells differently: `\u…` or `\/`.
    pub foreign_escapes: bool,
    /// White space outside of its strings.
    pub spaces: bool,
    /// Something within it that is neither string nor null.
    pub others: bool,
    /// In the object that it is, perhaps two keys that are the same, or `TRUNCATED`.
    pub doubtful_keys: bool,
}

/// A key that is told of.
const WATCHED: &str = "\"TRUNCATED\"";

impl Seen {
    /// Of a value that nobody looked at.
    pub const UNKNOWN: Self = Self { foreign_escapes: true, spaces: true, others: true, doubtful_keys: true };
    const NOTHING: Self = Self { foreign_escapes: false, spaces: false, others: false, doubtful_keys: false };
}

/// Calls `member` with key (its quotes included, free of escapes) and value of each member of the object that `text`
/// is, and with what the value holds.
///
/// `false` where the text is no such object *or* holds what is left to a general reader: white space other than blanks,
/// keys with escapes, nesting deeper than 128 levels. `member` may have been called by then. Where the answer is
/// `true`, `serde_json` takes the text too.
pub fn object<'t>(text: &'t str, mut member: impl FnMut(&'t str, &'t str, Seen)) -> bool {
    let marks = Marks::of(text.as_bytes());
    let mut scanner = Scanner { text, at: 0, marks, seen: Seen::NOTHING };
    scanner.object(&mut member).is_some()
}

/// Where the quotes and backslashes of a text are, one after the other: found for 64 bytes at once, for most strings are
/// so short that any search for their end would stop as soon as it has begun.
struct Marks<'t> {
    bytes: &'t [u8],
    /// The beginning of what was not looked at yet, and the marks in the 64 bytes before it that are still to be told.
    ahead: usize,
    left: u64,
}

impl<'t> Marks<'t> {
    const BLOCK: usize = 64;

    fn of(bytes: &'t [u8]) -> Self {
        Self { bytes, ahead: 0, left: 0 }
    }

    /// `None` at the end, and from a control character on: JSON has none in its strings.
    fn next(&mut self) -> Option<usize> {
        while self.left == 0 {
            self.look_ahead()?;
        }
        let at = self.ahead - Self::BLOCK + self.left.trailing_zeros() as usize;
        self.left &= self.left - 1;
        Some(at)
    }

    /// Apart, so that what is done for each string is small enough to stand where it is called.
    #[inline(never)]
    fn look_ahead(&mut self) -> Option<()> {
        let rest = self.bytes.get(self.ahead..).filter(|rest| !rest.is_empty())?;
        let bytes = match rest.first_chunk() {
            Some(bytes) => u8x64::new(*bytes),
            None => {
                let mut bytes = [b' '; Self::BLOCK];
                bytes.get_mut(..rest.len())?.copy_from_slice(rest);
                u8x64::new(bytes)
            }
        };
        let controls = bytes.min(u8x64::splat(0x1f)).simd_eq(bytes);
        if controls.to_bitmask() != 0 {
            return None;
        }
        let marks = bytes.simd_eq(u8x64::splat(b'"')) | bytes.simd_eq(u8x64::splat(b'\\'));
        self.left = marks.to_bitmask();
        self.ahead += Self::BLOCK;
        Some(())
    }
}

struct Scanner<'t> {
    text: &'t str,
    at: usize,
    marks: Marks<'t>,
    seen: Seen,
}

impl<'t> Scanner<'t> {
    fn object(&mut self, member: &mut impl FnMut(&'t str, &'t str, Seen)) -> Option<()> {
        self.skip_blanks();
        self.expect(b'{')?;
        self.skip_blanks();
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                let start = self.at;
                let escaped = self.string()?;
                let key = self.text.get(start..self.at).filter(|_| !escaped)?;
                self.colon()?;
                let start = self.at;
                self.seen = Seen::NOTHING;
                self.value()?;
                member(key, self.text.get(start..self.at)?, self.seen);
                self.skip_blanks();
                match self.next()? {
                    b',' => self.skip_blanks(),
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        self.skip_blanks();
        (self.at == self.text.len()).then_some(())
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn skip_blanks(&mut self) {
        while self.peek() == Some(b' ') {
            self.at += 1;
            self.seen.spaces = true;
        }
    }

    fn colon(&mut self) -> Option<()> {
        self.skip_blanks();
        self.expect(b':')?;
        self.skip_blanks();
        Some(())
    }

    /// A value with all that is in it. A stack of bits tells objects (1) from arrays (0): a recursion would be slower.
    fn value(&mut self) -> Option<()> {
        let (mut objects, mut depth) = (0u128, 0);
        let mut keys = mark_of(WATCHED.as_bytes());
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                open @ (b'{' | b'[') => {
                    self.at += 1;
                    self.seen.others |= depth > 0;
                    self.skip_blanks();
                    // `}` and `]` are two after `{` and `[`.
                    if self.peek()? == open + 2 {
                        self.at += 1;
                    } else {
                        if depth == MAX_DEPTH {
                            return None;
                        }
                        depth += 1;
                        objects = objects << 1 | u128::from(open == b'{');
                        self.key_in(objects, depth, &mut keys)?;
                        continue;
                    }
                }
                b'n' => self.literal("null")?,
                other => {
                    self.seen.others = true;
                    match other {
                        b't' => self.literal("true")?,
                        b'f' => self.literal("false")?,
                        _ => self.number()?,
                    }
                }
            }
            loop {
                if depth == 0 {
                    return Some(());
                }
                self.skip_blanks();
                match (self.next()?, objects & 1) {
                    (b',', _) => {
                        self.skip_blanks();
                        self.key_in(objects, depth, &mut keys)?;
                        break;
                    }
                    (b'}', 1) | (b']', 0) => {
                        depth -= 1;
                        objects >>= 1;
                    }
                    _ => return None,
                }
            }
        }
    }

    /// What stands before a value: in an object its key.
    fn key_in(&mut self, objects: u128, depth: u32, keys: &mut u128) -> Option<()> {
        if objects & 1 == 1 {
            let start = self.at;
            self.string()?;
            // Deeper objects become text.
            if depth == 1 {
                let mark = mark_of(self.text.as_bytes().get(start..self.at)?);
                self.seen.doubtful_keys |= *keys & mark != 0;
                *keys |= mark;
            }
            self.colon()?;
        }
        Some(())
    }

    fn literal(&mut self, literal: &str) -> Option<()> {
        let end = self.at + literal.len();
        let same = self.text.as_bytes().get(self.at..end)? == literal.as_bytes();
        self.at = end;
        same.then_some(())
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => {
                self.digits();
            }
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    /// Skips digits; `None` where there are none.
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    /// A string; whether it holds an escape.
    #[inline]
    fn string(&mut self) -> Option<bool> {
        // Between strings there is no mark in JSON.
        (self.marks.next()? == self.at).then_some(())?;
        self.expect(b'"')?;
        self.at = self.marks.next()?;
        if self.next()? == b'"' {
            return Some(false);
        }
        self.rest_of_string().map(|()| true)
    }

    /// What follows the first backslash of a string, up to its end.
    #[inline(never)]
    fn rest_of_string(&mut self) -> Option<()> {
        loop {
            match self.next()? {
                b'"' | b'\\' => {
                    self.marks.next()?;
                }
                b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'/' => self.seen.foreign_escapes = true,
                b'u' => {
                    self.seen.foreign_escapes = true;
                    let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
                    digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                }
                _ => return None,
            }
            self.at = self.marks.next()?;
            if self.next()? == b'"' {
                return Some(());
            }
        }
    }
}

/// One of 128 bits for a key, its quotes included: the same one for the same key. Of ordinary parameters, one object in
/// fifteen has two keys with one bit.
#[inline]
fn mark_of(quoted: &[u8]) -> u128 {
    let [_, first, .., last, _] = quoted else { return 1 };
    let middle = quoted.get(quoted.len() / 2).copied().unwrap_or_default();
    let length = u8::try_from(quoted.len() & 0xff).unwrap_or_default();
    let signs = u32::from_le_bytes([*first, middle, *last, length]);
    1 << (signs.wrapping_mul(0x9e37_79b1) >> 25)
}

/// How far the next quote or backslash is. Most strings are short: for them eight bytes at a time in a register are
/// faster than a call of `memchr`.
pub(super) fn special(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = below(word ^ (ONES * b'"' as u64), 1) | below(word ^ (ONES * b'\\' as u64), 1);
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(words.len() * 8 + at)
}

/// Which is the first of eight bytes that JSON wants escaped.
pub(super) fn first_escapable(word: &[u8; 8]) -> Option<usize> {
    let word = u64::from_le_bytes(*word);
    let quoting = below(word ^ (ONES * b'"' as u64), 1) | below(word ^ (ONES * b'\\' as u64), 1);
    let found = below(word, 0x20) | quoting;
    (found != 0).then_some(found.trailing_zeros() as usize / 8)
}

/// Whether JSON wants it escaped.
pub(super) fn is_escapable(byte: u8) -> bool {
    matches!(byte, ..0x20 | b'"' | b'\\')
}

const ONES: u64 = u64::MAX / 255;

/// The high bit of the first byte that is smaller than this, and perhaps of bytes after it.
fn below(word: u64, limit: u64) -> u64 {
    word.wrapping_sub(ONES * limit) & !word & (ONES << 7)
}

#[cfg(test)]
mod tests;
