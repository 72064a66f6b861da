//! How much work that keeps a core busy is done at once.

use std::num::NonZero;

/// Cores this process may use; one where the system does not tell.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}
