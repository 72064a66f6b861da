//! The input `system_table` against a workspace that follows the protocol.

mod polling;
mod refusals;
mod results;
