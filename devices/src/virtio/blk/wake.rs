//! One descriptor through which the engine of whatever disk a block device has wakes its loop.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::event::epoll;

use crate::disk::Engine;

/// An epoll of its own, which a loop can watch as one descriptor while disks come and go.
#[derive(Debug)]
pub(super) struct Wake(OwnedFd);

impl Wake {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Wakes the loop whenever the engine has finished something.
    pub(super) fn watch(&self, engine: Option<&mut dyn Engine>) -> io::Result<()> {
        if let Some(engine) = engine {
            let data = epoll::EventData::new_u64(0);
            epoll::add(&self.0, engine.wake_fd(), data, epoll::EventFlags::IN)?;
        }
        Ok(())
    }

    pub(super) fn unwatch(&self, engine: Option<&mut dyn Engine>) {
        if let Some(engine) = engine {
            // One that was never watched is not there, which is as good.
            let _ = epoll::delete(&self.0, engine.wake_fd());
        }
    }
}

impl AsRawFd for Wake {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
