//! A driver for tests: plays the guest against any virtio device.
