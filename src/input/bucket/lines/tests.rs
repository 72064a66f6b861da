use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

use super::*;

fn texts(cut: &Cut) -> Vec<String> {
    cut.lines
        .iter()
        .map(|line| String::from_utf8_lossy(&cut.text[line.start as usize..line.end as usize]).into_owned())
        .collect()
}

#[test]
fn line_ends_blank_lines_and_a_byte_order_mark_are_no_part_of_a_line() {
    let mut cutter = LineCutter::new(0, 0, 100, &Pool::default(), 64);
    cutter.push(b"\xef\xbb\xbf{\"a\":1}\r\n\r\n \n{\"b\":2}\n{\"c\"");
    assert_eq!(cutter.unterminated(), Some(b"{\"c\"".as_slice()), "whole lines before it are none of its");
    let cut = cutter.cut().unwrap();
    assert_eq!(texts(&cut), ["{\"a\":1}", "{\"b\":2}"]);
    assert_eq!(cut.lines[1].number, 3);
    assert_eq!(cutter.unterminated(), Some(b"{\"c\"".as_slice()));
    assert_eq!(cutter.position(), (24, 4));
    cutter.push(b":3}");
    assert!(cutter.cut().is_none());
    assert_eq!(texts(&cutter.finish().unwrap()), ["{\"c\":3}"]);
}

#[test]
fn a_line_over_the_cap_is_reported_and_the_rest_goes_on() {
    let mut cutter = LineCutter::new(0, 0, 8, &Pool::default(), 64);
    for piece in ["ok\n", "0123456789", "0123456789", "01\nafter\n", "within one piece\nend\n"] {
        cutter.push(piece.as_bytes());
        if let Some(cut) = cutter.cut() {
            assert!(texts(&cut).iter().all(|line| ["ok", "after", "end"].contains(&line.as_str())));
        }
    }
    let long = cutter.take_long();
    assert_eq!(
        long.iter().map(|long| (long.bytes, long.offset, long.line)).collect::<Vec<_>>(),
        [(22, 3, 1), (16, 32, 3)]
    );
    assert_eq!(cutter.position(), (53, 5));
}

#[test]
fn a_cut_takes_so_many_lines_and_the_rest_stays_for_the_next() {
    let mut cutter = LineCutter::new(0, 0, 100, &Pool::default(), 64);
    cutter.push(&b"a\n\n".repeat(2 * MOST_LINES + 1));
    let mut cuts = Vec::new();
    while cutter.is_crowded() {
        cuts.extend(cutter.cut());
    }
    cuts.extend(cutter.finish());
    let (most, lines) = (MOST_LINES, MOST_LINES as u64);
    assert!(cuts.iter().all(|cut| cut.lines.len() <= most), "{:?}", cuts.len());
    assert_eq!(cuts.iter().map(|cut| cut.lines.len()).sum::<usize>(), 2 * most + 1);
    assert_eq!((cuts[1].offset, cuts[1].line), (3 * lines - 1, 2 * lines - 1));
    assert_eq!(cutter.position(), (6 * lines + 3, 4 * lines + 2));
}

#[test]
fn a_last_line_without_its_end_is_cut_however_many_lines_come_before_it() {
    for whole in [MOST_LINES - 1, MOST_LINES, MOST_LINES + 1, 2 * MOST_LINES, 2 * MOST_LINES + 1] {
        for tail in ["", "{\"a\":2}"] {
            let text = "{\"a\":1}\n".repeat(whole) + tail;
            let mut cutter = LineCutter::new(0, 0, 100, &Pool::default(), 64);
            cutter.push(text.as_bytes());
            let mut cuts = Vec::new();
            while cutter.is_crowded() {
                cuts.extend(cutter.cut());
            }
            cuts.extend(cutter.finish());
            let lines: Vec<_> = cuts.iter().flat_map(texts).collect();
            assert_eq!(lines.len(), whole + usize::from(!tail.is_empty()), "{whole} and {tail:?}");
            assert!(tail.is_empty() || lines.last().is_some_and(|last| last == tail));
            assert_eq!((cutter.position().0, cutter.buffered()), (text.len() as u64, 0));
        }
    }
}

#[test]
fn a_line_of_the_cap_is_one_and_a_longer_one_is_told_with_its_place() {
    let mut cutter = LineCutter::new(100, 10, 8, &Pool::default(), 64);
    cutter.push(b"12345678\n123456789\n");
    assert_eq!(texts(&cutter.cut().unwrap()), ["12345678"]);
    let long = LongLine { head: Bytes::from_static(b"123456789"), bytes: 9, offset: 109, line: 11 };
    assert_eq!(cutter.take_long(), [long]);
    assert!(cutter.take_long().is_empty());
}

#[test]
fn of_a_line_that_is_dropped_no_more_is_collected_than_its_beginning() {
    let mut cutter = LineCutter::new(0, 0, 8, &Pool::default(), 64);
    let line = vec![b'x'; KEPT_OF_LONG_LINE + 9];
    cutter.push(&line);
    assert_eq!(cutter.buffered(), line.len());
    assert!(cutter.cut().is_none());
    assert_eq!(cutter.buffered(), 0, "it is dropped");
    assert_eq!(cutter.unterminated(), Some(b"".as_slice()), "and still a line");
    assert_eq!(cutter.position(), (0, 0));
    assert!(cutter.finish().is_none());
    let head = Bytes::from(vec![b'x'; KEPT_OF_LONG_LINE]);
    assert_eq!(
        cutter.take_long(),
        [LongLine { head: head.clone(), bytes: line.len() as u64, offset: 0, line: 0 }]
    );
    assert_eq!(cutter.position(), (line.len() as u64, 1), "it counts as a line");

    let mut cutter = LineCutter::new(0, 0, 8, &Pool::default(), 64);
    cutter.push(&[&line, b"\n".as_slice()].concat());
    assert!(cutter.cut().unwrap().lines.is_empty());
    assert_eq!(cutter.take_long()[0].head, head, "within one piece too");
}

#[test]
fn what_is_collected_can_be_looked_at_and_taken_over() {
    let mut cutter = LineCutter::new(0, 0, 100, &Pool::default(), 64);
    cutter.push(b"{\"a\"");
    assert_eq!((cutter.buffered(), cutter.buffer()), (4, b"{\"a\"".as_slice()));
    assert_eq!(&cutter.take_buffer()[..], b"{\"a\"");
    assert_eq!(cutter.buffered(), 0);
    assert!(cutter.finish().is_none(), "nothing is left to cut");
}

#[test]
fn only_more_lines_than_a_cut_takes_are_a_crowd() {
    let crowded = |text: &[u8]| {
        let mut cutter = LineCutter::new(0, 0, 1 << 20, &Pool::default(), 64);
        cutter.push(text);
        cutter.is_crowded()
    };
    assert!(!crowded(&b"\n".repeat(MOST_LINES)));
    assert!(crowded(&[&b"\n".repeat(MOST_LINES)[..], b"x"].concat()), "the last one, without its end");
    assert!(crowded(&b"\n".repeat(MOST_LINES + 1)));
    assert!(!crowded(&[b'x'; 2 * MOST_LINES]), "a long line is one line");
}

#[test]
fn a_byte_order_mark_is_one_at_the_beginning_of_a_stream_only() {
    let unterminated = |offset: u64, text: &[u8]| {
        let mut cutter = LineCutter::new(offset, 0, 100, &Pool::default(), 64);
        cutter.push(text);
        cutter.unterminated().map(<[u8]>::to_vec)
    };
    assert_eq!(unterminated(0, b"\xef\xbb\xbf a "), Some(b"a".to_vec()));
    assert_eq!(unterminated(0, b"\xef\xbb\xbf"), None);
    assert_eq!(unterminated(9, b"\xef\xbb\xbfa"), Some(b"\xef\xbb\xbfa".to_vec()));
    assert_eq!(unterminated(0, b"a\n\xef\xbb\xbfb"), Some(b"\xef\xbb\xbfb".to_vec()));
}

proptest! {
    /// The lines do not depend on how the stream was cut into pieces, and the offset counts every byte.
    #[test]
    fn lines_do_not_depend_on_the_pieces(
        text in prop::collection::vec(prop::sample::select(b"ab\r\n {}".to_vec()), 0..200),
        pieces in prop::collection::vec(1usize..20, 1..50),
        cut_every_piece in any::<bool>(),
    ) {
        let mut cutter = LineCutter::new(0, 0, 1000, &Pool::default(), 64);
        let mut found = Vec::new();
        let mut rest = text.as_slice();
        for length in pieces.iter().cycle() {
            if rest.is_empty() { break; }
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            cutter.push(piece);
            rest = after;
            if cut_every_piece {
                found.extend(cutter.cut().iter().flat_map(texts));
            }
        }
        found.extend(cutter.cut().iter().flat_map(texts));
        found.extend(cutter.finish().iter().flat_map(texts));
        let expected: Vec<_> = String::from_utf8(text.clone()).unwrap()
            .split('\n').map(|line| line.trim_ascii().to_owned()).filter(|line| !line.is_empty()).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(cutter.position().0, text.len() as u64);
    }

    /// Nothing is left behind and no cut takes too many, wherever the stream ends and however few lines a cut takes.
    #[test]
    fn all_lines_are_cut_so_many_at_a_time(
        text in prop::collection::vec(prop::sample::select(b"aab\n\n".to_vec()), 0..120),
        most in 1usize..6,
        longest in 1usize..8,
        pieces in prop::collection::vec(1usize..40, 1..20),
        cut_every_piece in any::<bool>(),
    ) {
        let mut cutter = LineCutter::new(0, 0, longest, &Pool::default(), 64).with_most_lines(most);
        let (mut cuts, mut rest) = (Vec::new(), text.as_slice());
        for length in pieces.iter().cycle() {
            if rest.is_empty() { break; }
            let (piece, after) = rest.split_at((*length).min(rest.len()));
            cutter.push(piece);
            rest = after;
            if cut_every_piece {
                while cutter.is_crowded() {
                    cuts.extend(cutter.cut());
                }
                cuts.extend(cutter.cut());
            }
        }
        while cutter.is_crowded() {
            cuts.extend(cutter.cut());
        }
        cuts.extend(cutter.finish());
        prop_assert!(cuts.iter().all(|cut| cut.lines.len() <= most));
        prop_assert_eq!((cutter.position().0, cutter.buffered()), (text.len() as u64, 0));
        let all = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let (short, long): (Vec<_>, Vec<_>) = all.partition(|line| line.len() <= longest);
        let short: Vec<_> = short.into_iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        prop_assert_eq!(cuts.iter().flat_map(texts).collect::<Vec<_>>(), short);
        prop_assert_eq!(cutter.take_long().len(), long.len());
    }
}
