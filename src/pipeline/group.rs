//! Brings a chunk's frames into an order in which they compress well.
//!
//! gzip looks for repeats in the last 32 KiB, some twenty events. Events of one action are alike, and in a busy account some
//! thirty actions are mixed: side by side, they leave 17.4 in place of 21 % of the lines, and compressing them is a tenth
//! faster. Rejected, as they leave more: by user, by client, by action alone.

use crate::batch::Frame;
use crate::buffer::{Buffer, Pool};
use crate::event::AuditEvent;
use crate::json::Text;

/// What an event stands beside: its lane, its service, its action. Equal kinds keep the order they were read in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    lane: u32,
    service: u64,
    action: u128,
}

impl Kind {
    /// Of names their first bytes: that nearly always tells them apart, and costs less than hashing them.
    pub(super) fn of(event: &AuditEvent<'_>, lane: u32) -> Self {
        let service = u64::from_be_bytes(first_bytes(event.service_name.as_ref()));
        Self { lane, service, action: u128::from_be_bytes(first_bytes(event.action_name.as_ref())) }
    }
}

fn first_bytes<const N: usize>(name: Option<&Text<'_>>) -> [u8; N] {
    let name = name.map_or(b"".as_slice(), |name| name.escaped().as_bytes());
    name.first_chunk().copied().unwrap_or_else(|| {
        let mut bytes = [0; N];
        bytes.iter_mut().zip(name).for_each(|(byte, of_name)| *byte = *of_name);
        bytes
    })
}

/// The same frames, those of one kind side by side. `kinds` has one for each frame.
pub(super) fn grouped(
    buffer: Buffer,
    frames: Vec<Frame>,
    kinds: &[Kind],
    pool: &Pool,
) -> (Buffer, Vec<Frame>) {
    if kinds.is_sorted() {
        return (buffer, frames);
    }
    // Sorted are few bytes for each frame. No stable sort, which takes memory: the number decides between equals.
    let mut order: Vec<(Kind, usize)> = kinds.iter().copied().zip(0..frames.len()).collect();
    order.sort_unstable();
    let mut sorted = pool.take(buffer.len());
    let mut sorted_frames = Vec::with_capacity(frames.len());
    let mut end = 0;
    for (_, index) in order {
        let Some(frame) = frames.get(index) else { continue };
        let start = index.checked_sub(1).and_then(|before| frames.get(before)).map_or(0, |before| before.end);
        sorted.extend_from_slice(buffer.get(start as usize..frame.end as usize).unwrap_or_default());
        end += frame.end - start;
        sorted_frames.push(Frame { end, ..*frame });
    }
    (sorted, sorted_frames)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::*;

    fn kind(lane: u32, action: u64) -> Kind {
        Kind { lane, service: 0, action: u128::from(action) }
    }

    fn frames(texts: &[(Kind, String)]) -> (Buffer, Vec<Frame>, Vec<Kind>) {
        let (mut buffer, mut frames, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (kind, text)) in texts.iter().enumerate() {
            buffer.extend_from_slice(text.as_bytes());
            let (end, line) = (u32::try_from(buffer.len()).unwrap(), u32::try_from(index).unwrap());
            frames.push(Frame { end, record_start: 0, record_end: 0, line, occurrence: 0, lane: kind.lane });
            kinds.push(*kind);
        }
        (buffer.into(), frames, kinds)
    }

    fn texts(buffer: &Buffer, frames: &[Frame]) -> Vec<(u32, String)> {
        let mut start = 0;
        let mut texts = Vec::new();
        for frame in frames {
            let text = buffer[start..frame.end as usize].to_vec();
            texts.push((frame.line, String::from_utf8(text).unwrap()));
            start = frame.end as usize;
        }
        texts
    }

    #[test]
    fn events_of_a_service_and_of_an_action_are_of_one_kind() {
        let event = |service: &str, action: &str| {
            let (service_name, action_name) =
                (Some(Text::from_plain(service)), Some(Text::from_plain(action)));
            AuditEvent { service_name, action_name, ..AuditEvent::default() }
        };
        let of = |service, action| Kind::of(&event(service, action), 0);
        assert_eq!(of("jobs", "create"), of("jobs", "create"));
        assert_ne!(of("jobs", "create"), of("jobs", "delete"));
        assert_ne!(of("jobs", "create"), of("clusters", "create"));
        assert_ne!(of("jobs", "create"), Kind::of(&AuditEvent::default(), 0));
    }

    #[test]
    fn what_is_in_order_is_not_copied() {
        let (buffer, frames, kinds) = frames(&[(kind(0, 1), "a".into()), (kind(0, 2), "b".into())]);
        let at = buffer.as_ptr();
        assert_eq!(grouped(buffer, frames, &kinds, &Pool::default()).0.as_ptr(), at);
    }

    proptest! {
        /// Each frame keeps its bytes and its record; a lane stays together, so does an action in it; equal kinds keep
        /// their order.
        #[test]
        fn frames_are_sorted_by_kind_and_none_changes(given in prop::collection::vec((0..3_u32, 0..4_u64, "[a-z]{0,5}"), 0..30)) {
            let given: Vec<(Kind, String)> = given.into_iter().map(|(lane, action, text)| (kind(lane, action), text)).collect();
            let (buffer, frames, kinds) = frames(&given);
            let (buffer, frames) = grouped(buffer, frames, &kinds, &Pool::default());
            let mut expected: Vec<(Kind, u32, String)> = (0..).zip(&given).map(|(line, (kind, text))| (*kind, line, text.clone())).collect();
            expected.sort();
            let expected: Vec<(u32, String)> = expected.into_iter().map(|(_, line, text)| (line, text)).collect();
            prop_assert_eq!(texts(&buffer, &frames), expected);
        }
    }
}
