//! The metadata service: a JSON document that the host keeps and the guest reads over HTTP, at an
//! address that only the guest has.
//!
//! A [`Service`] answers requests from the [`Metadata`]; a [`Responder`] is the machine behind the
//! address: it takes the guest's frames to it and gives frames back. Both are pure: no descriptor,
//! no clock. [`MetadataLink`] puts a responder in front of a network of the guest. What the guest
//! sends is data: it is answered as its protocol says, or dropped and counted; connections, bytes
//! and frames that wait are bounded, whatever it does.
#![forbid(unsafe_code)]

mod counters;
mod document;
mod flow;
mod frame;
mod http;
mod link;
mod port;
mod responder;
mod service;
#[cfg(test)]
mod testing;
mod token;

pub use counters::Counters;
pub use document::{DEFAULT_LIMIT_BYTES, Metadata, StoreError};
pub use link::MetadataLink;
pub use responder::{DEFAULT_ADDRESS, MAC, MOST_FLOWS, Responder};
pub use service::{Service, Settings, Version};
