//! Whole pipelines in process: a directory that changes, real sockets, collectors that misbehave.

mod input;
mod misbehaviour;
mod overwrites;
mod service;
