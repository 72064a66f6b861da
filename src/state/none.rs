//! A state that knows nothing and keeps nothing, for commands that run beside the service, which has the real one: a
//! replay has no position, for its file is removed when all of it is delivered, and a try of the connections commits nothing.

use async_trait::async_trait;
use bytes::Bytes;

use crate::chunk::{Partition, Position};
use crate::state::{Change, State, StateError};

/// No state.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoState;

#[async_trait]
impl State for NoState {
    async fn range(&self, _: &str, _: &str, _: &str) -> Result<Vec<(Partition, Position)>, StateError> {
        Ok(Vec::new())
    }

    async fn positions(&self, _: &str, _: Vec<Partition>) -> Result<Vec<(Partition, Position)>, StateError> {
        Ok(Vec::new())
    }

    async fn notes(&self, _: &str, _: &Partition) -> Result<Vec<Bytes>, StateError> {
        Ok(Vec::new())
    }

    async fn commit(&self, _: &str, _: Vec<Change>, _: Vec<(&'static str, u64)>) -> Result<(), StateError> {
        Ok(())
    }

    async fn counters(&self, _: &str) -> Result<Vec<(String, u64)>, StateError> {
        Ok(Vec::new())
    }

    async fn key(&self) -> Result<[u8; 192], StateError> {
        Ok([0; 192])
    }
}
