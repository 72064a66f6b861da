//! auditferry ships Databricks audit logs from where Databricks leaves them to the SIEM that needs them: only new lines,
//! checkpointed after the collector acknowledges them. This page is the architecture; README and `docs` are the user's guide.
//!
//! # Flow
//!
//! ```text
//!   a pipeline = one input and one output, named <input>/<output>; no two pipelines wait for each other
//!
//!   Input ──Chunk──► Decoder ──AuditEvent──► Format + Output::encode ──Frames──► Batch ──Request──► Output::send
//!     ▲  records,       borrowed from the       one frame an event,               compressed          │ one request
//!     │  position       chunk's bytes           the records kept                                       ▼
//!     │                                                                                            Verdict
//!     └──────────── committed(position) ◄── State (fsync) ◄── Tracker ◄── settled ◄── engine ◄────────┘
//! ```
//!
//! A pipeline has four tasks ([`pipeline`] draws them): reader, encoder, sender, committer. By default every input goes
//! to every output. A shared reader that commits when all outputs have acknowledged was rejected: the slowest collector
//! would hold the others back. The price is that a source is read once per output. What must be one in a process, such
//! as the receiver of a queue whose messages go to one reader only, its pipelines hold in common: [`input::Shared`].
//!
//! Events go out as they were read, with one exception: a gzip body to a collector that goes by each event's time is sorted
//! by action, which makes it a sixth smaller ([`batch::Batch::grouped`]).
//!
//! # Layers
//!
//! | layer | modules | import |
//! |---|---|---|
//! | values | [`event`] [`chunk`] [`kept`] [`batch`] [`budget`] [`buffer`] [`canonical`] [`action`] [`principal`] [`private`] [`redact`] [`overlap`] [`recent`] [`json`] [`time`] [`units`] [`template`] [`compress`] [`cores`] [`backoff`] [`secret`] [`status`] [`failpoint`] | values |
//! | contracts | [`input`] [`decode`] [`format`](mod@format) [`output`] [`state`] [`dead_letter`] [`metrics`] [`http`] [`connection`] [`kafka`] [`endpoints`] [`aws`] [`azure_identity`] [`azure_token`] [`azure_workspace`] [`component`] | contracts, values |
//! | components | `input/*` `decode/*` `format/*` `output/*` `state/*` `dead_letter/*` | contracts, values; never each other |
//! | engine | [`pipeline`] | contracts, values: traits, no component's name |
//! | assembly | [`registry`] [`config`] [`app`] [`server`] [`cli`] [`generate`] `main` | all |
//!
//! What must hold of every parser whatever it is given stands once, in `fuzzing` (assembly; in tests and in the fuzzer's build
//! only, with a part beside each parser that is private): `tests/fuzz` and `cargo test` both call it.
//!
//! A test fails on an import that points up. An output is one file, its `mod` line and one line of [`registry`]; list,
//! schema, reference configuration and tests follow from that table.
//!
//! # Invariants
//!
//! 1. A record that was read ends delivered, or dead-lettered on disk with its reason, or uncommitted: then it is read
//!    again.
//! 2. Order of safety: dead letter on disk, then settled, then committed (fsync), then [`Input::committed`].
//! 3. A committed position never passes an unsettled record of its partition.
//! 4. Outputs make one request and say what came of it. Waiting, retrying, counting, acknowledging and giving up on an
//!    event are the engine's, once, in `pipeline/deliver.rs`.
//! 5. Retries do not end: the source is durable, so waiting is cheaper than losing. What a human must put right is a
//!    *hold*: loud, not ready, tried again slowly.
//! 6. Bytes read and not committed, frames and bodies are bounded by one [`budget::Budget`] per pipeline, everything between
//!    tasks by bounded channels. Where many records wait for a slow collector, further ones are compressed and count for
//!    what is left, but for a quarter at least ([`kept`]). Readers wait for room; frames and bodies only count, so that
//!    they go beyond it by what is encoded and compressed at the moment, a chunk and a batch for each core. Beyond it go as well one line
//!    longer than a chunk at a time, what the Kafka client fetches ahead (1 MiB a partition) and copies into its queue
//!    (at most 64 MiB), at most 40 MiB of buffers that lie ready to be used again: what was in use before, and the
//!    fingerprints that a bucket's readers tell new lines by: about 4 MB a reader, those of large objects 34 MB at a time, and
//!    the names of objects that cannot be read.
//! 7. Decoding and encoding are pure: no I/O, no clock.
//! 8. The committer waits for nobody in the pipeline, so no circle of full channels can form.
//!
//! # The tail
//!
//! Databricks overwrites delivered objects: old content stays, lines are added, nobody promises where. The bucket input
//! keeps, per object, the offset, a digest of the 64 KiB before it (the *seam*) and a fingerprint of every shipped line.
//! An object that grew is read from its seam on; if the seam differs, or the object did not grow, it is read whole and
//! only lines that are not among the fingerprints (a multiset) are shipped. See `input/bucket/position.rs` for the table
//! of cases, `input/bucket/fingerprint.rs` for why fingerprints are keyed.
//!
//! When to look is another matter: listings find everything in the end, and hints (file events, S3's notifications in
//! SQS) find it sooner. A hint that is late, repeated, wrong or lost costs time, never data.
//!
//! Azure only appends: its layouts read no object whole for being small, and a last line without its end waits until the
//! blob's hour is long over. Their store is a whole account, whose containers are the first folders of all keys
//! (`input/bucket/azure.rs`), so that a directory of containers is the same to the rest of the input. Old blobs that are
//! one `{"records":[…]}` document are cut into its records, to which all of the above applies.
//!
//! Where a path does not say the workspace, as none of Azure's does, the input finds its id ([`azure_workspace`]) and
//! hands it on in the records' [`chunk::Origin`]: decoding asks nobody.
//!
//! # The state
//!
//! A position is a row under its folder, notes are kept while a date is open; an object whose date closed long ago is
//! *folded*: its fingerprints are dropped, with its last chunk where it is first read then, and a seam must do
//! (`state/sqlite/tables.rs`). Listings look their objects up by key, so that a poll touches the rows of what it lists and
//! no others, however many are known. That everything was looked at once is a position of its own, which names the store and
//! the filters it is true of (`input/bucket/mark.rs`): where there is none for those of today, everything is listed.
//!
//! A lost state is made anew by running the same pipelines to an output that sends nothing ([`output::nowhere`]), into a
//! database that takes the old one's place when all is read (`state/sqlite/upkeep.rs`).
//!
//! # Groups
//!
//! Event Hubs and Kafka hand out partitions to the members of a consumer group, and with each the offset that the group has
//! committed. That offset is where to resume, not the state's position, which the engine keeps besides: several
//! instances share a group, and only the broker knows how far all of them have come. The state knows no more than that a group
//! has begun, for brokers forget one that was away (`input/kafka/beginning.rs`). The offset is committed last, after the
//! state; until the broker has confirmed it, the bytes stay taken from the budget. See `input/kafka.rs`, and
//! `input/kafka/ledger.rs` for what a member may commit when partitions move.
//!
//! # Secrets
//!
//! [`redact`] takes secrets out of the text of a record before it is decoded for good, so that no format has to know of it;
//! `decode/redacting.rs` keeps id and place of the record as it was. Dead letters keep everything: they do not leave.
//!
//! # The table
//!
//! `system.access.audit` has no order of arrival: rows appear late, anywhere. The system table input polls by event time,
//! reads an overlap again, and counts older hours. A partition is one hour of the table (a *lane*), its notes the ids that
//! were shipped from it, so a row is told from its repeats by looking at one hour, and ids are forgotten hour by hour. See
//! `input/system_table/plan.rs` for what is read when, `input/system_table/lanes.rs` for what is kept.
//!
//! # Ids
//!
//! A record's own id is kept. Where it has none, the id is a UUID v8 of the first 128 bits of SHA-256 over the canonical
//! record without `event_id` and without `_source`; for the second and further of several equal lines of one object (or
//! records of one message), their number is part of the digest, and for a record without a readable time what is under
//! `_source` too. A resend, a replay and a second delivery thus give the same id. Equal lines are counted exactly in
//! objects of up to 65,536 lines; in larger ones a repeat is recognised within at least as many.
//!
//! # Faults
//!
//! What the invariants promise is tried by `simulation` (tests only): thousands of schedules of a failing store, disk and
//! collector, of kills and of a clock that is set, in virtual time, each from a seed that runs it again. `tests/it/crash.rs`
//! kills the real binary: from outside, and at the steps of [`failpoint`], which only debug builds know.
//! `tests/it/support/store.rs` is an S3 server that fails in every way a server can.
//!
//! # Glossary
//!
//! *Input, output*: where records come from and events go. *Partition*: one ordered part of an input, such as an object
//! or an hour of the table.
//! *Position*: where to resume in it. *Record*: raw, as stored. *Event*: decoded. *Frame*: an encoded event. *Batch*: the
//! frames of one request. *Lane*: events that may share a request. *Pace*: how many requests go at once, and how long they
//! wait, shared by all pipelines to an output. *Verdict*: what came of a request. *Settled*: delivered or dead-lettered.
//! *Committed*: its position is durable. *Credit*: a share of the byte budget. *Dead letter*: a record no collector takes.
//! *Hold*: waiting for a human. *Lag*: age of an event when it was committed.
//!
//! [`Input::committed`]: input::Input::committed

pub mod action;
pub mod app;
pub mod aws;
pub mod azure_identity;
pub mod azure_token;
pub mod azure_workspace;
pub mod backoff;
pub mod batch;
pub mod budget;
pub mod buffer;
pub mod canonical;
pub mod chunk;
pub mod cli;
pub mod component;
pub mod compress;
pub mod config;
pub mod connection;
pub mod cores;
pub mod dead_letter;
pub mod decode;
pub mod endpoints;
pub mod event;
pub mod failpoint;
pub mod format;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod generate;
pub mod http;
pub mod input;
pub mod json;
pub mod kafka;
pub mod kept;
pub mod metrics;
pub mod output;
pub mod overlap;
pub mod pipeline;
pub mod principal;
pub mod private;
pub mod recent;
pub mod redact;
pub mod registry;
pub mod secret;
pub mod server;
#[cfg(test)]
mod simulation;
pub mod state;
pub mod status;
pub mod template;
pub mod time;
pub mod units;
