//! Placeholder first line, replaced by its owner.
#![forbid(unsafe_code)]
