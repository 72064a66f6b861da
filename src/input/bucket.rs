//! todo

mod credentials;
mod store;
