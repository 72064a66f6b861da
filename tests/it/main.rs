//! Tests over real sockets, files and processes.

#[cfg(test)]
mod outputs;
#[cfg(test)]
mod support;
