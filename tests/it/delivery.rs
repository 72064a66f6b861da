//! Whole pipelines in process: a directory that changes, real sockets, collectors that misbehave.

mod bulk;
mod input;
mod misbehaviour;
mod overwrites;
mod service;
