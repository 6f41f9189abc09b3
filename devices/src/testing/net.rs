//! A network link for tests: what the device sends comes out of its far end, and the other way
//! round. It counts what it is asked for and fails on request.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::net::{Link, MOST_FRAME_BYTES, Offloads, Received, Sent, receive_from, send_to};
use crate::ram::GuestRam;
use crate::virtio::Span;

/// What a link was told, and what goes wrong with it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LinkState {
    /// What may come to the guest unfinished.
    pub offloads: Offloads,
    /// How many queues are used; none when nobody has said.
    pub active: Option<u16>,
    /// How often it was asked to receive.
    pub receives: u64,
    /// Every receive fails so, with no frame lost.
    pub fail_receive: Option<io::ErrorKind>,
    /// Every frame sent is refused so.
    pub fail_send: Option<io::ErrorKind>,
    /// There is no room for frames.
    pub full: bool,
    /// Settings are refused so.
    pub fail_settings: Option<io::ErrorKind>,
}

/// The device's end.
#[derive(Debug)]
pub struct TestLink {
    queues: Vec<OwnedFd>,
    mtu: u16,
    can: Offloads,
    state: Arc<Mutex<LinkState>>,
}

/// The other end.
#[derive(Debug)]
pub struct FarEnd {
    queues: Vec<OwnedFd>,
    state: Arc<Mutex<LinkState>>,
}

impl TestLink {
    /// A link with so many queues that can do all offloads.
    ///
    /// # Panics
    /// When the process has no file descriptor left.
    pub fn new(queues: u16, mtu: u16) -> (Self, FarEnd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let pairs = (0..queues).map(|_| pair().expect("a pair of sockets"));
        let (queues, far) = pairs.unzip();
        let state = Arc::default();
        let far = FarEnd {
            queues: far,
            state: Arc::clone(&state),
        };
        let can = Offloads::ALL;
        let link = Self {
            queues,
            mtu,
            can,
            state,
        };
        (link, far)
    }

    /// The same, but it can only do these.
    #[must_use]
    pub fn with_offloads(mut self, can: Offloads) -> Self {
        self.can = can;
        self
    }

    fn queue(&self, queue: u16) -> io::Result<&OwnedFd> {
        let fd = self.queues.get(usize::from(queue));
        fd.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fail(kind: Option<io::ErrorKind>) -> io::Result<()> {
    kind.map_or(Ok(()), |kind| Err(kind.into()))
}

impl Link for TestLink {
    fn describe(&self) -> String {
        "test".to_owned()
    }

    fn queues(&self) -> u16 {
        u16::try_from(self.queues.len()).expect("few")
    }

    fn fd(&self, queue: u16) -> Option<BorrowedFd<'_>> {
        self.queue(queue).ok().map(AsFd::as_fd)
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn offloads(&self) -> Offloads {
        self.can
    }

    fn set_offloads(&mut self, offloads: Offloads) -> io::Result<()> {
        let mut state = self.state();
        fail(state.fail_settings)?;
        state.offloads = offloads;
        Ok(())
    }

    fn set_active(&mut self, queues: u16) -> io::Result<()> {
        let mut state = self.state();
        fail(state.fail_settings)?;
        state.active = Some(queues);
        Ok(())
    }

    fn receive(
        &mut self,
        queue: u16,
        head: &mut [u8],
        ram: &GuestRam,
        spans: &[Span],
    ) -> io::Result<Received> {
        let mut state = self.state();
        state.receives += 1;
        fail(state.fail_receive)?;
        drop(state);
        receive_from(self.queue(queue)?, head, ram, spans)
    }

    fn send(
        &mut self,
        queue: u16,
        head: &[u8],
        ram: &GuestRam,
        spans: &[Span],
    ) -> io::Result<Sent> {
        let state = self.state();
        fail(state.fail_send)?;
        if state.full {
            return Ok(Sent::Full);
        }
        drop(state);
        send_to(self.queue(queue)?, head, ram, spans)
    }
}

impl FarEnd {
    /// What the link was told, to look at and to change.
    pub fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a frame to the guest, its header in front: whether there was room for it.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn send(&self, queue: usize, frame: &[u8]) -> bool {
        let fd = self.queues.get(queue).expect("a queue");
        rustix::io::write(fd, frame).is_ok()
    }

    /// The next frame from the guest, its header in front.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn receive(&self, queue: usize) -> Option<Vec<u8>> {
        let fd = self.queues.get(queue).expect("a queue");
        let mut frame = vec![0; MOST_FRAME_BYTES + 100];
        let len = rustix::io::read(fd, frame.as_mut_slice()).ok()?;
        frame.truncate(len);
        Some(frame)
    }
}
