//! The monitor: KVM, guest memory, threads, one machine and its lifecycle.
//!
//! The only crate that knows both `arch` and `devices`. All that speaks to KVM is in [`kvm`].

pub mod blueprint;
pub mod config;
pub mod files;
pub mod host;
pub mod kvm;
pub mod machine;
pub mod plan;
pub mod snapshot;

mod control;
mod memory;
mod sys;
mod vcpu;
