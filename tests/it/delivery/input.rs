//! Objects that are not as they should be, beside others that are.
