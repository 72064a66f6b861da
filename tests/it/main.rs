//! Tests over real sockets, files and processes: one binary, so that they link once.

// `cfg(test)` holds anyway; it tells clippy that what test support does is done in tests.
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod azure;
#[cfg(test)]
mod bodies;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod bounds;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod collectors;
#[cfg(test)]
mod config;
#[cfg(test)]
mod connect;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod dead_letters;
#[cfg(test)]
mod delivery;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod disk;
#[cfg(test)]
mod documentation;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod outputs;
#[cfg(test)]
mod recipes;
#[cfg(test)]
mod run;
#[cfg(test)]
mod security;
#[cfg(test)]
mod service;
#[cfg(test)]
#[cfg(feature = "aws")]
mod sigv4;
#[cfg(test)]
mod state;
#[cfg(test)]
mod sumo_app;
#[cfg(test)]
mod support;
#[cfg(test)]
mod system_table;
#[cfg(test)]
mod transport;
