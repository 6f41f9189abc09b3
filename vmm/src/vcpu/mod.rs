//! vCPU threads: each runs one vCPU and dispatches its exits to the buses.

mod dispatch;
mod gate;
mod meter;
mod quota;
mod thread;

pub(crate) use dispatch::Buses;
pub(crate) use thread::{VcpuEnd, VcpuThreads};

#[cfg(test)]
pub(crate) mod tests;
