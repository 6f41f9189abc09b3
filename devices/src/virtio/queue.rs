//! The split virtqueue (virtio 1.2, 2.7): the only code that touches rings in guest memory.
//!
//! It stands in front of rust-vmm's `virtio-queue`, which knows where a queue is and turns
//! notifications on and off, and adds what a hostile driver calls for: every chain is checked as a
//! whole and copied before a device sees it, and the first rule that the driver breaks ends the
//! queue until reset. Entries of the rings are read and written here, since each costs half a
//! system call through the crate's general way into memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use super::chain::{Chain, Span};
use super::features;
use super::interrupt::Interrupt;
use crate::ram::{GuestRam, OutOfRam};

mod order;
mod saved;
mod setup;
mod walk;

pub use saved::QueueStateV1;
pub(crate) use saved::Standing;
pub use setup::{BadSetup, QueueSetup};
use walk::Walk;

/// How many chains are looked ahead at.
const LOOK_AHEAD: u16 = 16;
/// How many chains are given back before the used index shows them: a driver that polls has its
/// cache line taken away for each step of the index.
const PUBLISHED_AT_ONCE: u16 = 8;
/// The bytes of a descriptor (2.7.5).
const DESCRIPTOR_BYTES: u32 = 16;
/// Span lists kept for later chains, so that a request costs no allocation.
const SPARE_LISTS: usize = 16;
/// A longer list is given back to the allocator rather than kept.
const SPARE_SPANS: usize = 1024;

/// The rule that the driver broke. The queue takes no more requests until the device is reset.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum QueueBroken {
    /// The available index moved by more than the queue size, or backwards (2.7.6).
    #[error("the available index jumped")]
    IndexJump,
    /// The rings cannot be reached any more.
    #[error("the rings cannot be accessed")]
    Ring,
    /// An available entry or `next` field names a descriptor that does not exist.
    #[error("descriptor {index} does not exist in a table of {size}")]
    NoDescriptor {
        /// The index.
        index: u16,
        /// The number of descriptors.
        size: u16,
    },
    /// A chain was made available again before it was used.
    #[error("the chain at descriptor {head} is in use already")]
    InFlight {
        /// The index of the chain's first descriptor.
        head: u16,
    },
    /// A loop, or a chain of more descriptors than the queue has (2.7.5.3.1).
    #[error("a chain has more than {size} descriptors")]
    TooLong {
        /// The queue size.
        size: u16,
    },
    /// More than 2^32 - 1 bytes in a chain (2.7.5.2).
    #[error("a chain has more than 2^32 - 1 bytes")]
    TooManyBytes,
    /// A buffer or an indirect table that is not, or not wholly, guest memory.
    #[error("a descriptor's {len} bytes at {at:#x} are not guest memory")]
    NotInRam {
        /// The guest-physical address.
        at: u64,
        /// The length.
        len: u32,
    },
    /// A readable descriptor after a writable one (2.7.4.2).
    #[error("a readable descriptor follows a writable one")]
    Order,
    /// An indirect descriptor though the feature was not accepted, within an indirect table, or
    /// with a `next` (2.7.5.3.1).
    #[error("an indirect descriptor where none may be")]
    Indirect,
    /// An indirect table that is empty, not a whole number of descriptors, or larger than the
    /// queue.
    #[error("an indirect table of {len} bytes")]
    IndirectSize {
        /// The length.
        len: u32,
    },
    /// Some rule, before the machine was saved.
    #[error("a rule was broken before the machine was saved")]
    Earlier,
}

/// A queue that a driver set up: hands out its requests and takes them back.
#[derive(Debug)]
pub struct Virtqueue {
    number: u16,
    queue: Queue,
    ram: GuestRam,
    interrupt: Interrupt,
    // Cleared by the transport when the driver takes the queue back.
    live: Arc<AtomicBool>,
    // Set while the machine is paused.
    held: Arc<AtomicBool>,
    indirect: bool,
    in_flight: Box<[bool]>,
    spare: Vec<Vec<Span>>,
    // How far the driver was seen to be, and how much was given back when it was last asked whether
    // it wants to hear of it. How far it has been followed is `queue`'s to know.
    seen: u16,
    // How many chains the used index shows.
    published: u16,
    announced: u16,
    silenced: bool,
    unannounced: bool,
    broken: Option<QueueBroken>,
    // A rule that was found broken, and is told of when what came before is through.
    found: Option<QueueBroken>,
    standing: Arc<Standing>,
    // Chains that go back as they are once those before them have, and their places in the order.
    refused: VecDeque<(u16, Chain)>,
}

impl Virtqueue {
    /// The device's queue number `number` at `setup`, used by a driver that accepted `features`.
    ///
    /// # Errors
    /// When the set-up breaks a rule, see [`QueueSetup::check`].
    pub fn new(
        number: u16,
        setup: &QueueSetup,
        max: u16,
        features: u64,
        ram: GuestRam,
        interrupt: Interrupt,
        live: Arc<AtomicBool>,
    ) -> Result<Self, BadSetup> {
        let size = setup.check(max, &ram)?;
        // Cannot fail after the check.
        let refused = |_| BadSetup::Size {
            size: setup.size,
            max,
        };
        let mut queue = Queue::new(size).map_err(refused)?;
        let descriptors = GuestAddress(setup.descriptors);
        queue
            .try_set_desc_table_address(descriptors)
            .map_err(refused)?;
        let available = GuestAddress(setup.available);
        queue
            .try_set_avail_ring_address(available)
            .map_err(refused)?;
        let used = GuestAddress(setup.used);
        queue.try_set_used_ring_address(used).map_err(refused)?;
        queue.set_event_idx(features & features::RING_EVENT_IDX != 0);
        queue.set_ready(true);
        Ok(Self {
            number,
            queue,
            ram,
            interrupt,
            live,
            held: Arc::default(),
            indirect: features & features::RING_INDIRECT_DESC != 0,
            in_flight: vec![false; size.into()].into_boxed_slice(),
            spare: Vec::new(),
            seen: 0,
            published: 0,
            announced: 0,
            silenced: false,
            unannounced: false,
            broken: None,
            found: None,
            standing: Arc::default(),
            refused: VecDeque::new(),
        })
    }

    /// The same queue, which gives nothing out while `held` is set. What was taken before is given
    /// back as ever.
    #[must_use]
    pub fn held_by(self, held: Arc<AtomicBool>) -> Self {
        Self { held, ..self }
    }

    /// The number of descriptors.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// How many requests the driver was last seen to have ready, beyond those that were taken.
    pub fn waiting(&self) -> u16 {
        self.seen.wrapping_sub(self.queue.next_avail())
    }

    /// The rule that the driver broke, if it did.
    pub fn broken(&self) -> Option<QueueBroken> {
        self.broken
    }

    /// Whether the driver has not taken the queue back.
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// The oldest request that was not taken yet. When there is none, the driver will ring for
    /// the next one, even if it adds it at this very moment.
    ///
    /// # Errors
    /// When the driver broke a rule: the first time the device's need of reset is told to it,
    /// and from then on nothing comes from this queue.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueBroken> {
        let chain = self.poll()?;
        if chain.is_some() || !self.arm()? {
            return Ok(chain);
        }
        // One came in between. Empty again although the index had moved: it moved back.
        match self.poll()? {
            None if self.is_live() => {
                let broken = QueueBroken::IndexJump;
                self.fail(broken);
                Err(broken)
            }
            chain => Ok(chain),
        }
    }

    /// The oldest request that was not taken yet, as [`pop`](Self::pop) gives it, but when there
    /// is none the driver is not asked to ring: the caller looks again or [arms](Self::arm).
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn poll(&mut self) -> Result<Option<Chain>, QueueBroken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        let chain = match self.found.take() {
            Some(broken) => Err(broken),
            None => self.take(),
        };
        chain.inspect_err(|broken| self.fail(*broken))
    }

    /// The same for who has taken requests before this one that are not worked on yet: if the
    /// driver broke a rule here, the next [`poll`](Self::poll) says so.
    pub fn poll_behind(&mut self) -> Option<Chain> {
        if self.broken.or(self.found).is_some() {
            return None;
        }
        self.take().unwrap_or_else(|broken| {
            self.found = Some(broken);
            None
        })
    }

    fn take(&mut self) -> Result<Option<Chain>, QueueBroken> {
        if !self.is_live() || self.is_held() {
            return Ok(None);
        }
        match self.take_head()? {
            Some(head) => self.walk(head).map(Some),
            None => Ok(None),
        }
    }

    /// Asks the driver to ring for its next request: whether there is one already.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    pub fn arm(&mut self) -> Result<bool, QueueBroken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if !self.is_live() || self.is_held() {
            return Ok(false);
        }
        self.silenced = false;
        let more = self.queue.enable_notification(self.ram.memory());
        more.map_err(|_| {
            self.fail(QueueBroken::Ring);
            QueueBroken::Ring
        })
    }

    /// Gives a request back, `written` bytes of its writable part filled from the front. The
    /// driver sees it at the latest, and hears of it, with the next [`notify`](Self::notify).
    pub fn complete(&mut self, chain: Chain, written: u32) {
        self.complete_together(std::iter::once((chain, written)));
    }

    /// Gives several requests back, of which the driver sees all at once.
    pub fn complete_together(&mut self, chains: impl IntoIterator<Item = (Chain, u32)>) {
        let live = self.live.load(Ordering::Acquire);
        let mut next = self.queue.next_used();
        let mut done = Ok(());
        let mut chains = chains.into_iter();
        while let Some((chain, written)) = self.refused_at(next).or_else(|| chains.next()) {
            let (head, written) = self.release(chain, written);
            if live && done.is_ok() {
                done = self.put(next, head, written);
                next = next.wrapping_add(1);
            }
        }
        if !live || next == self.queue.next_used() {
            return;
        }
        let done = done.and_then(|()| {
            self.unannounced = true;
            self.queue.set_next_used(next);
            match next.wrapping_sub(self.published) >= PUBLISHED_AT_ONCE {
                true => self.move_index(),
                false => Ok(()),
            }
        });
        if done.is_err() {
            self.fail(QueueBroken::Ring);
        }
    }

    /// Shows the driver all requests completed so far before it hears of them: for who goes on
    /// with something long.
    pub fn publish(&mut self) {
        let live = self.live.load(Ordering::Acquire);
        if live && self.published != self.queue.next_used() && self.move_index().is_err() {
            self.fail(QueueBroken::Ring);
        }
    }

    /// How many requests are completed that the driver was not shown yet.
    pub fn unpublished(&self) -> u16 {
        self.queue.next_used().wrapping_sub(self.published)
    }

    /// A request is the driver's again: its first descriptor, and how much of it is filled.
    fn release(&mut self, chain: Chain, written: u32) -> (u16, u32) {
        let Chain {
            head,
            mut spans,
            writable_bytes,
            ..
        } = chain;
        if let Some(busy) = self.in_flight.get_mut(usize::from(head)) {
            *busy = false;
        }
        if self.spare.len() < SPARE_LISTS && spans.capacity() <= SPARE_SPANS {
            spans.clear();
            self.spare.push(spans);
        }
        (head, written.min(writable_bytes))
    }

    /// Interrupts the driver for all requests completed since the last call, unless it asked
    /// not to be (2.7.7, 2.7.10).
    pub fn notify(&mut self) {
        let done = std::mem::take(&mut self.unannounced);
        if !done || !self.live.load(Ordering::Acquire) {
            return;
        }
        match self.wants_interrupt() {
            Ok(true) => self.interrupt.used_buffers(self.number),
            Ok(false) => {}
            Err(_) => self.fail(QueueBroken::Ring),
        }
    }

    fn wants_interrupt(&mut self) -> Result<bool, OutOfRam> {
        self.move_index()?;
        let used = self.published;
        let before = std::mem::replace(&mut self.announced, used);
        // The used index has to be out before the driver's wishes are read: the driver says what
        // it wants and then looks at the index.
        fence(Ordering::SeqCst);
        let available = self.queue.avail_ring();
        if self.queue.event_idx_enabled() {
            let at = available
                .wrapping_add(4)
                .wrapping_add(u64::from(self.queue.size()).wrapping_mul(2));
            let event = self.ram.load(at, Ordering::Relaxed)?;
            // Whether the index has passed the one that the driver named (2.7.10).
            let passed = used.wrapping_sub(event).wrapping_sub(1);
            return Ok(passed < used.wrapping_sub(before));
        }
        let flags = self.ram.load(available, Ordering::Relaxed)?;
        Ok(u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }

    /// The first descriptor of the next chain.
    fn take_head(&mut self) -> Result<Option<u16>, QueueBroken> {
        let (size, available) = (self.queue.size(), self.queue.avail_ring());
        let next = self.queue.next_avail();
        if next == self.seen {
            let index = self.ram.load(available.wrapping_add(2), Ordering::Acquire);
            let index = index.map_err(|_| QueueBroken::Ring)?;
            if index.wrapping_sub(next) > size {
                return Err(QueueBroken::IndexJump);
            }
            self.seen = index;
            match index.wrapping_sub(next) {
                0 => return Ok(None),
                1 => {}
                waiting => self.look_ahead(next, waiting),
            }
        }
        let slot = next & size.wrapping_sub(1);
        let at = available
            .wrapping_add(4)
            .wrapping_add(u64::from(slot).wrapping_mul(2));
        let head = self.ram.load(at, Ordering::Relaxed);
        let head = head.map_err(|_| QueueBroken::Ring)?;
        self.queue.set_next_avail(next.wrapping_add(1));
        if !self.silenced {
            self.silenced = true;
            let silence = self.queue.disable_notification(self.ram.memory());
            silence.map_err(|_| QueueBroken::Ring)?;
        }
        Ok(Some(head))
    }

    /// Lets the descriptors of the next chains come from the driver's CPU all at once, and not each
    /// when it is read.
    fn look_ahead(&self, next: u16, waiting: u16) {
        let (size, available) = (self.queue.size(), self.queue.avail_ring());
        for ahead in 0..waiting.min(LOOK_AHEAD) {
            let slot = next.wrapping_add(ahead) & size.wrapping_sub(1);
            let at = available
                .wrapping_add(4)
                .wrapping_add(u64::from(slot).wrapping_mul(2));
            if let Ok(head) = self.ram.load(at, Ordering::Relaxed) {
                let at = u64::from(head).wrapping_mul(DESCRIPTOR_BYTES.into());
                self.ram.prefetch(self.queue.desc_table().wrapping_add(at));
            }
        }
    }

    /// Puts a chain into the used ring, at the place of index `next`.
    fn put(&self, next: u16, head: u16, written: u32) -> Result<(), OutOfRam> {
        let slot = next & self.queue.size().wrapping_sub(1);
        let at = self.queue.used_ring().wrapping_add(4);
        let at = at.wrapping_add(u64::from(slot).wrapping_mul(8));
        let element = u64::from(written) << 32 | u64::from(head);
        self.ram.write(at, &element.to_le())
    }

    /// Moves the used index behind everything that was given back.
    fn move_index(&mut self) -> Result<(), OutOfRam> {
        self.published = self.queue.next_used();
        self.standing.note(self.published);
        let at = self.queue.used_ring().wrapping_add(2);
        self.ram.store(at, self.published, Ordering::Release)
    }

    /// Copies and checks a whole chain.
    fn walk(&mut self, head: u16) -> Result<Chain, QueueBroken> {
        let size = self.queue.size();
        let busy = self
            .in_flight
            .get_mut(usize::from(head))
            .ok_or(QueueBroken::NoDescriptor { index: head, size })?;
        if *busy {
            return Err(QueueBroken::InFlight { head });
        }
        *busy = true;
        let walk = Walk {
            ram: &self.ram,
            table: self.queue.desc_table(),
            table_size: size,
            queue_size: size,
            indirect_allowed: self.indirect,
            spans: self.spare.pop().unwrap_or_default(),
            split: None,
            readable_bytes: 0,
            writable_bytes: 0,
        };
        walk.run(head)
    }

    fn fail(&mut self, broken: QueueBroken) {
        if self.broken.is_none() {
            self.broken = Some(broken);
            self.standing.note_broken();
            self.interrupt.need_reset(&broken);
        }
    }
}

#[cfg(test)]
mod tests;
