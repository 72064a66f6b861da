//! The binary against real servers over HTTP. Needs the feature `e2e` and `moto_server` (`pip install 'moto[server]'`),
//! found in `PATH` or named by `AUDITFERRY_E2E_MOTO`; that it is missing is a failure, not a reason to skip.

// `cfg(test)` tells clippy that helpers may unwrap as the tests themselves may.
#[cfg(test)]
mod collector;
#[cfg(test)]
mod credentials;
#[cfg(test)]
mod ferry;
#[cfg(test)]
mod moto;
#[cfg(test)]
mod recorder;
#[cfg(test)]
mod s3;
#[cfg(test)]
mod sqs;
