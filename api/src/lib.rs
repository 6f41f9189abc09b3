//! Wire types: what a user asks for ([`spec`]) and what is printed about a machine ([`plan`],
//! [`doctor`]). Plain data with serde derives; no I/O, no other crate of ours.
#![forbid(unsafe_code)]

pub mod doctor;
pub mod plan;
pub mod spec;
