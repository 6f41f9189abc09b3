//! Completes what a weak KVM leaves undone.
