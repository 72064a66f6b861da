//! How an object looks after each round of rewriting: which lines it holds, in which order.

use fastrand::Rng;

use super::event::scramble;

/// What a round does to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Rewrite {
    /// New lines at the end.
    Append,
    /// New lines somewhere in the middle.
    Insert,
    /// New lines, and all lines in another order.
    Reorder,
    /// The second half is missing; the next round but a touch brings it back, with more.
    Shrink,
    /// The same bytes once more.
    Touch,
}

impl Rewrite {
    /// What happens to a delivered file, in this order: every kind once, and growth after the shrinking.
    pub const ALL: &'static [Self] =
        &[Self::Append, Self::Insert, Self::Reorder, Self::Shrink, Self::Append, Self::Touch];
}

/// Numbers of the lines an object holds after a round, in the object's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    order: Vec<u32>,
    visible: usize,
    /// Lines from this number on were never seen in an earlier round.
    pub(super) first_new: u32,
}

/// One object's life: how many lines it gets in the end, and in how many rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life<'a> {
    pub(super) lines: u32,
    pub(super) last_round: u32,
    pub(super) rewrites: &'a [Rewrite],
    /// Tells objects apart: they are not all rewritten in the same way in the same round.
    pub(super) number: u64,
}

impl Contents {
    /// In the order of the object.
    pub(super) fn lines(&self) -> impl Iterator<Item = u32> {
        self.order.iter().copied().take(self.visible)
    }
}

impl Life<'_> {
    /// Plays the rounds up to and including this one: remembering them between calls would cost more memory than the
    /// replay costs time.
    pub(super) fn after(&self, round: u32) -> Contents {
        let first = self.lines_by(0);
        let mut contents = Contents { order: (0..first).collect(), visible: 0, first_new: 0 };
        contents.visible = contents.order.len();
        for each in 1..=round.min(self.last_round) {
            self.play(each, &mut contents);
        }
        contents
    }

    /// How many of the object's lines exist by a round: all in the last one, at least one in the first.
    fn lines_by(&self, round: u32) -> u32 {
        let share = u64::from(self.lines) * (u64::from(round) + 1) / (u64::from(self.last_round) + 1);
        u32::try_from(share).unwrap_or(self.lines).max(1).min(self.lines)
    }

    /// The last round always completes the object.
    fn rewrite(&self, round: u32) -> Rewrite {
        let turn = u64::from(round - 1) + self.number;
        let count = u64::try_from(self.rewrites.len()).unwrap_or(u64::MAX).max(1);
        let at = usize::try_from(turn % count).unwrap_or(0);
        match self.rewrites.get(at).copied().unwrap_or(Rewrite::Append) {
            Rewrite::Shrink | Rewrite::Touch if round == self.last_round => Rewrite::Append,
            rewrite => rewrite,
        }
    }

    fn play(&self, round: u32, contents: &mut Contents) {
        let known = u32::try_from(contents.order.len()).unwrap_or(u32::MAX);
        let mut rng = Rng::with_seed(scramble(self.number) ^ u64::from(round));
        contents.first_new = known;
        let rewrite = self.rewrite(round);
        match rewrite {
            Rewrite::Touch => return,
            Rewrite::Shrink => {
                contents.visible = (contents.order.len() / 2).max(1);
                return;
            }
            Rewrite::Append | Rewrite::Reorder => contents.order.extend(known..self.lines_by(round)),
            Rewrite::Insert => {
                let length = contents.order.len();
                let at = rng.usize(length / 4..=length - length / 4);
                contents.order.splice(at..at, known..self.lines_by(round));
            }
        }
        if rewrite == Rewrite::Reorder {
            rng.shuffle(&mut contents.order);
        }
        contents.visible = contents.order.len();
    }
}
