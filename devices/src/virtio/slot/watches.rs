//! What a device on a loop wants to hear of.

use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_manager::EventSet;

use super::DEVICE_EVENT;

/// The file descriptors that a device wants to hear of, whether a driver runs it or not.
#[derive(Clone, Debug, Default)]
pub struct Watches(Arc<Mutex<Vec<Watch>>>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Watch {
    pub(super) fd: RawFd,
    token: u32,
    pub(super) for_what: EventSet,
    wanted: bool,
    armed: bool,
}

impl Watch {
    /// The event data of it.
    pub(super) fn data(&self) -> u32 {
        self.token | DEVICE_EVENT
    }
}

impl Watches {
    /// Calls the device's `event` with `token` (below 2^31) whenever `fd` is readable, as long
    /// as it is [wanted](Self::want). The device keeps it open to its own end.
    pub fn readable(&self, fd: &impl AsRawFd, token: u32) {
        self.add(fd, token, EventSet::IN, true);
    }

    /// The same for a descriptor that becomes writable, which is not wanted to begin with.
    pub fn writable(&self, fd: &impl AsRawFd, token: u32) {
        self.add(fd, token, EventSet::OUT, false);
    }

    fn add(&self, fd: &impl AsRawFd, token: u32, for_what: EventSet, wanted: bool) {
        self.lock().push(Watch {
            fd: fd.as_raw_fd(),
            token,
            for_what,
            wanted,
            armed: false,
        });
    }

    /// Whether the device can do something now when the descriptor of `token` is ready.
    pub fn want(&self, token: u32, wanted: bool) {
        let mut watches = self.lock();
        let watch = watches.iter_mut().find(|watch| watch.token == token);
        if let Some(watch) = watch {
            watch.wanted = wanted;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the loop watch what is wanted, and nothing at all when `at_rest`: `change` adds or
    /// removes one.
    pub(super) fn apply<E: fmt::Display>(
        &self,
        at_rest: bool,
        mut change: impl FnMut(&Watch, bool) -> Result<(), E>,
    ) {
        let mut watches = self.lock();
        for watch in watches.iter_mut() {
            let wanted = watch.wanted && !at_rest;
            if wanted == watch.armed {
                continue;
            }
            if let Err(error) = change(watch, wanted) {
                log::error!("virtio: cannot change what is watched: {error}");
            }
            // Tried once: what epoll refuses it refuses again.
            watch.armed = wanted;
        }
    }
}
