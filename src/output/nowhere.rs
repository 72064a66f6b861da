//! An output that sends nothing and says that all is delivered: a state is made anew by reading to it. It is no output that
//! anybody can configure.

use async_trait::async_trait;

use crate::batch::{Framing, Request};
use crate::event::AuditEvent;
use crate::format::Format;
use crate::output::{Output, Verdict};

/// Takes everything, keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

#[async_trait]
impl Output for Nowhere {
    fn framing(&self) -> Framing {
        Framing::LINES
    }

    fn encode(&self, _: &AuditEvent<'_>, _: &dyn Format, _: &mut Vec<u8>) {}

    async fn send(&self, _: &Request) -> Verdict {
        Verdict::Accepted { slow_down: false }
    }
}
