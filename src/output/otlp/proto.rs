//! The little of protobuf that OTLP's logs need: fields are appended to a buffer, and read off an answer.
//!
//! A frame is one `LogRecord` as a field of its `ScopeLogs`, so that records of a batch only have to stand one behind
//! the other; generated types would want them as a tree, built anew for each request. What is written here is read in
//! tests by the types that OpenTelemetry generates from its own definitions.

/// How a field's value is written.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

fn write_tag(field: u8, kind: u8, out: &mut Vec<u8>) {
    write_varint(u64::from(field) << 3 | u64::from(kind), out);
}

/// Appends an unsigned number of eight bytes.
pub(super) fn write_fixed64(field: u8, value: u64, out: &mut Vec<u8>) {
    write_tag(field, FIXED64, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a text, bytes, or a message that is written already.
pub(super) fn write_bytes(field: u8, bytes: &[u8], out: &mut Vec<u8>) {
    write_head(field, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// Appends what comes before so many bytes of a field.
pub(super) fn write_head(field: u8, length: usize, out: &mut Vec<u8>) {
    write_tag(field, BYTES, out);
    write_varint(length as u64, out);
}

/// Appends a message whose fields `fill` writes. Its length is put in front of it afterwards.
pub(super) fn write_message(field: u8, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    write_tag(field, BYTES, out);
    let start = out.len();
    fill(out);
    let mut length = Vec::with_capacity(4);
    write_varint((out.len() - start) as u64, &mut length);
    out.splice(start..start, length);
}

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

/// The value of a message's field; the last one, as protobuf wants it. None where it is not there, or the message is
/// none.
pub(super) fn field(wanted: u8, message: &[u8]) -> Option<Value<'_>> {
    let mut rest = message;
    let mut found = None;
    while !rest.is_empty() {
        let tag = read_varint(&mut rest)?;
        let value = match u8::try_from(tag & 7).ok()? {
            VARINT => Value::Number(read_varint(&mut rest)?),
            FIXED64 => Value::Bytes(rest.split_off(..8)?),
            FIXED32 => Value::Bytes(rest.split_off(..4)?),
            BYTES => {
                let length = usize::try_from(read_varint(&mut rest)?).ok()?;
                Value::Bytes(rest.split_off(..length)?)
            }
            _ => return None,
        };
        if tag >> 3 == u64::from(wanted) {
            found = Some(value);
        }
    }
    found
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = rest.split_off_first()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::*;

    proptest! {
        /// What is written is read again, whatever its length, and what is cut off is not.
        #[test]
        fn fields_read_back_as_they_were_written(
            number in any::<u64>(), text in prop::collection::vec(any::<u8>(), 0..300), cut in any::<prop::sample::Index>()
        ) {
            let mut message = Vec::new();
            write_fixed64(1, number, &mut message);
            write_message(15, &mut message, |inner| write_bytes(2, &text, inner));
            prop_assert_eq!(field(1, &message), Some(Value::Bytes(&number.to_le_bytes())));
            let Some(Value::Bytes(inner)) = field(15, &message) else { panic!("no message") };
            prop_assert_eq!(field(2, inner), Some(Value::Bytes(&text)));
            prop_assert_eq!(field(3, &message), None);
            let part = &message[..cut.index(message.len())];
            prop_assert_eq!(field(15, part), None);
        }

        #[test]
        fn a_number_reads_back(number in any::<u64>()) {
            let mut bytes = Vec::new();
            write_varint(number, &mut bytes);
            prop_assert_eq!(read_varint(&mut bytes.as_slice()), Some(number));
        }
    }

    #[test]
    fn what_is_no_message_has_no_fields() {
        for bytes in [b"<html>".as_slice(), b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0a\x05abc"] {
            assert_eq!(field(1, bytes), None);
        }
    }
}
