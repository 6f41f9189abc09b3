//! From configuration to blueprint, a pure function.
