//! Nothing: the tests of this package are in `tests/`, one file for each question they answer.
#![forbid(unsafe_code)]
