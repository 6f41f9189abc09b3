//! What a machine is asked and answers: the raw specification ([`spec`]), what is printed about a
//! machine ([`plan`], [`doctor`]), and the JSON API over a unix socket ([`server`], [`client`]).
//! No other crate of ours; the only I/O is that of the socket.
#![forbid(unsafe_code)]
// What clients send is data: no byte of it may end the process.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

pub mod client;
pub mod doctor;
pub mod error;
pub mod events;
pub mod firecracker;
pub mod http;
pub mod limits;
pub mod machine;
pub mod metrics;
#[cfg(test)]
mod openapi;
pub mod plan;
pub mod request;
pub mod routes;
pub mod server;
pub mod socket;
pub mod spec;
mod strict;
