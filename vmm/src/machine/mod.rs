//! Builds and runs one machine.
