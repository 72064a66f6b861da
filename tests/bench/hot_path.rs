//! The hot path in pieces: decoding, encoding, compressing.

use std::hint::black_box;
use std::time::Duration;

use auditferry::buffer::Pool;
use auditferry::canonical;
use auditferry::chunk::Origin;
use auditferry::compress::Encoding;
use auditferry::decode::Decoder;
use auditferry::decode::audit::AuditDecoder;
use auditferry::event::AuditEvent;
use auditferry::format::FormatName;
use auditferry::generate::{Bucket, Options};
use auditferry::http::HttpSettings;
use auditferry::output::{Output, OutputContext, splunk_hec};
use auditferry::redact::Redactor;
use auditferry::registry::{self, FormatOptions};
use auditferry::time::Date;
use clap::ValueEnum;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement};
use serde_json::json;

const LINES: u64 = 1000;
const OBJECT: &str = "workspaceId=2748391056473829/date=2026-01-31/auditlogs_5e41ab087439611e.json";

type Group<'c> = BenchmarkGroup<'c, measurement::WallTime>;

/// Lines as they are delivered.
fn lines() -> Vec<Vec<u8>> {
    let date = Date::parse("2026-01-31").unwrap_or(Date::EPOCH);
    Bucket::new(Options::new(3, 1, LINES, date)).map(|bucket| bucket.lines().collect()).unwrap_or_default()
}

/// Measures what is done with each event; the throughput is in bytes of the lines.
fn each_event(group: &mut Group<'_>, name: &str, mut act: impl FnMut(&AuditEvent<'_>, &mut Vec<u8>)) {
    let (lines, decoder, origin) = (lines(), AuditDecoder::default(), Origin::of_object(OBJECT));
    let bytes = lines.iter().map(|line| line.len() as u64).sum();
    group.throughput(Throughput::Bytes(bytes));
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            out.clear();
            for line in &lines {
                let decoded =
                    decoder.decode(line, 0, &origin, &mut scratch, &mut |event| act(event, &mut out));
                assert_eq!(decoded, Ok(()));
            }
            black_box(&out);
        });
    });
}

fn splunk() -> Option<Box<dyn Output>> {
    let context = OutputContext {
        name: "splunk".to_owned(),
        format: FormatName::Canonical,
        http: HttpSettings::default(),
    };
    (splunk_hec::KIND.build)(json!({"url": "http://127.0.0.1:8088", "token": "benchmark"}), context).ok()
}

fn decode_and_encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    each_event(&mut group, "alone", |event, _| {
        black_box(event);
    });
    each_event(&mut group, "and write the canonical record", canonical::write);
    for name in FormatName::value_variants() {
        let format = registry::format(*name, FormatOptions::default());
        each_event(&mut group, &format!("and encode as {name:?}"), |event, out| format.encode(event, out));
    }
    if let Some(splunk) = splunk() {
        let format = registry::format(FormatName::Canonical, FormatOptions::default());
        each_event(&mut group, "and frame for Splunk", |event, out| splunk.encode(event, &*format, out));
    }
    group.finish();
}

/// What the look for secrets costs, beside decoding (and writing) that it comes on top of.
fn redact(criterion: &mut Criterion) {
    let (lines, redactor) = (lines(), Redactor::new(b"benchmark", &[], &[]));
    let Ok(redactor) = redactor else { return };
    let mut group = criterion.benchmark_group("redact");
    group.throughput(Throughput::Bytes(lines.iter().map(|line| line.len() as u64).sum()));
    group.bench_function("records without secrets", |bencher| {
        bencher.iter(|| lines.iter().filter_map(|line| redactor.redact(line)).count());
    });
    group.finish();
}

fn compress(criterion: &mut Criterion) {
    let body = lines().join(&b'\n');
    let mut group = criterion.benchmark_group("compress");
    group.throughput(Throughput::Bytes(body.len() as u64));
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        group.bench_function(format!("{encoding:?}"), |bencher| {
            bencher.iter(|| black_box(encoding.compress(&[&body], &Pool::default())));
        });
    }
    group.finish();
}

criterion_group! {
    name = hot_path;
    // Short runs: the whole takes less than a minute.
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = decode_and_encode, redact, compress
}
criterion_main!(hot_path);
