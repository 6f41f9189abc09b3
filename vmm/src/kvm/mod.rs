//! Every KVM ioctl and binding type; nothing of `kvm_bindings` leaves this module.

pub mod assist;
