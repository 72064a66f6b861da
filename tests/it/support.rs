//! What the tests lean on.

pub(crate) mod balancer;
pub(crate) mod collector;
#[cfg(target_os = "linux")]
pub(crate) mod disk;
pub(crate) mod ferry;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod store;
pub(crate) mod table;
pub(crate) mod tls;
pub(crate) mod warehouse;
