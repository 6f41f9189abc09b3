//! What the tests of the API have in common: a machine that serves one, a client that sends bytes
//! as they are, the corpus of malformed messages, and a model of what a machine answers.
#![forbid(unsafe_code)]

pub mod corpus;
pub mod model;
pub mod monitor;
pub mod raw;
pub mod served;
pub mod swagger;
