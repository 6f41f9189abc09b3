//! The I/O thread.
