//! Whole pipelines in process: a directory that changes, real sockets, collectors that misbehave.

mod acknowledgement;
mod bulk;
mod distant;
mod faulty_store;
mod input;
mod listings;
mod misbehaviour;
mod order;
mod overwrites;
mod refusals;
mod rotation;
mod service;
mod verdicts;
