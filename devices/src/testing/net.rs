//! A network link for tests, and a guest's driver. What the device sends comes out of the link's
//! far end, and the other way round. It counts what it is asked for and fails on request.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::net::{Link, MOST_FRAME_BYTES, Offloads, Received, Sent, receive_from, send_to};
use crate::ram::GuestRam;
use crate::testing::ring::Buffer;
use crate::testing::{AFTER_HOLE, END, GuestDriver, small_ram};
use crate::virtio::{Span, VirtioDevice};

/// What a link was told, and what goes wrong with it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LinkState {
    /// What may come to the guest unfinished.
    pub offloads: Offloads,
    /// How many queues are used; none when nobody has said.
    pub active: Option<u16>,
    /// How often it was asked to receive.
    pub receives: u64,
    /// The most bytes of a frame that it was asked to put into the host's memory.
    pub most_head: usize,
    /// Every receive fails so, with no frame lost.
    pub fail_receive: Option<io::ErrorKind>,
    /// Every frame sent is refused so.
    pub fail_send: Option<io::ErrorKind>,
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
    // The device's ends, to fill them.
    near: Vec<OwnedFd>,
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
        let (queues, far): (Vec<OwnedFd>, _) = pairs.unzip();
        let near = queues.iter().map(OwnedFd::try_clone);
        let state = Arc::default();
        let far = FarEnd {
            queues: far,
            near: near.collect::<io::Result<_>>().expect("a descriptor"),
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
        state.most_head = state.most_head.max(head.len());
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

    /// Leaves the guest no room, until everything of it is received: with frames of zeroes,
    /// which no guest sends.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn fill(&self, queue: usize) {
        let fd = self.near.get(queue).expect("a queue");
        for len in [MOST_FRAME_BYTES, 1] {
            while rustix::io::write(fd, &vec![0; len]).is_ok() {}
        }
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

/// A driver of a network device: it keeps no rule by itself.
#[derive(Debug)]
pub struct NetGuest {
    /// The driver.
    pub driver: GuestDriver,
    // Receive buffers that the device has, by queue and head, each in one or more pieces.
    given: HashMap<(u32, u16), Vec<Buffer>>,
    next_buffer: u64,
}

impl NetGuest {
    /// Starts a device with what it offers out of `wanted`. It has no receive buffer.
    pub fn new(device: Box<dyn VirtioDevice>, wanted: u64) -> Self {
        Self::on(small_ram(), device, wanted)
    }

    /// The same in memory that is there already and is as [`small_ram`].
    pub fn on(ram: GuestRam, device: Box<dyn VirtioDevice>, wanted: u64) -> Self {
        let mut driver = GuestDriver::on(ram, device);
        driver.start(wanted);
        Self {
            driver,
            given: HashMap::new(),
            next_buffer: AFTER_HOLE,
        }
    }

    /// Starts the device afresh.
    pub fn restart(&mut self, wanted: u64) {
        self.given.clear();
        self.driver.start(wanted);
    }

    /// How many receive buffers the device has.
    pub fn given(&self) -> usize {
        self.given.len()
    }

    /// Adds a receive buffer of pieces of these lengths to a queue, without ringing.
    pub fn add_buffer(&mut self, queue: u32, lengths: &[u32]) {
        let pieces: Vec<Buffer> = lengths.iter().map(|len| self.piece(*len)).collect();
        let head = self.driver.ring(queue).add(&pieces);
        self.given.insert((queue, head), pieces);
    }

    fn piece(&mut self, len: u32) -> Buffer {
        if self.next_buffer + u64::from(len) > END {
            self.next_buffer = AFTER_HOLE;
        }
        let at = self.next_buffer;
        self.next_buffer += u64::from(len);
        Buffer::writable(at, len)
    }

    /// Gives the device `count` receive buffers of pieces of these lengths.
    pub fn give(&mut self, queue: u32, count: usize, lengths: &[u32]) {
        for _ in 0..count {
            self.add_buffer(queue, lengths);
        }
        self.driver.kick(queue);
    }

    /// The next buffer that came back, as far as it was filled.
    ///
    /// # Panics
    /// When it was never given, or is said to hold more than it can.
    pub fn take_buffer(&mut self, queue: u32) -> Option<Vec<u8>> {
        let (head, written) = self.driver.ring(queue).take_used()?;
        let pieces = self
            .given
            .remove(&(queue, head))
            .expect("a buffer that was given");
        let mut bytes: Vec<u8> = pieces.iter().flat_map(|p| self.driver.bytes(*p)).collect();
        let written = usize::try_from(written).expect("small");
        assert!(written <= bytes.len(), "more than the buffer");
        bytes.truncate(written);
        Some(bytes)
    }

    /// The next frame that came, its header in front; what was given back empty is left out.
    ///
    /// # Panics
    /// When not all of the buffers that its header counts are there.
    pub fn receive(&mut self, queue: u32) -> Option<Vec<u8>> {
        let mut frame = self.take_buffer(queue)?;
        if frame.is_empty() {
            return self.receive(queue);
        }
        let count = frame.get(10..12).expect("a header");
        let count = u16::from_le_bytes(count.try_into().expect("two bytes"));
        assert_ne!(count, 0, "a frame in no buffer");
        for _ in 1..count {
            frame.extend(self.take_buffer(queue).expect("the rest of the frame"));
        }
        Some(frame)
    }

    /// Sends a frame, its header in front, in descriptors of the lengths of `cuts` and the rest in
    /// one more: whether the device took it.
    pub fn send(&mut self, queue: u32, frame: &[u8], cuts: &[usize]) -> bool {
        self.add_frame(queue, frame, cuts);
        self.driver.kick(queue);
        self.sent(queue) == 1
    }

    /// The same without ringing.
    pub fn add_frame(&mut self, queue: u32, frame: &[u8], cuts: &[usize]) {
        let mut rest = frame;
        let mut pieces = Vec::new();
        for cut in cuts {
            let (piece, later) = rest.split_at((*cut).min(rest.len()));
            pieces.push(self.driver.holding(piece));
            rest = later;
        }
        pieces.push(self.driver.holding(rest));
        self.driver.ring(queue).add(&pieces);
    }

    /// How many frames the device has taken since the last look.
    pub fn sent(&mut self, queue: u32) -> usize {
        let ring = self.driver.ring(queue);
        std::iter::from_fn(|| ring.take_used()).count()
    }

    /// Sends a command on the queue for them: its answer, if the device gave one.
    pub fn command(&mut self, queue: u32, command: &[u8]) -> Option<u8> {
        let answer = self.driver.holding(&[0x77]);
        let answer = Buffer::writable(answer.at, 1);
        let pieces = [self.driver.holding(command), answer];
        let written = self.driver.request(queue, &pieces)?;
        (written == 1).then(|| self.driver.bytes(answer)[0])
    }
}
