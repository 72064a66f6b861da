//! The binary against real servers over HTTP. Needs the feature `e2e` and `moto_server` (`pip install 'moto[server]'`),
//! found in `PATH` or named by `AUDITFERRY_E2E_MOTO`; that it is missing is a failure, not a reason to skip.

mod credentials;
mod ferry;
mod moto;
mod recorder;
mod s3;
