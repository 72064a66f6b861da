#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| auditferry::fuzzing::records(data));
