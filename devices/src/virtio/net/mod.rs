//! The network device (virtio 1.2, 5.1) on any [`Link`].
//!
//! Frames go straight between the host and guest memory. What a turn does is bounded, in frames
//! and in bytes; a queue that waits for its guest's buffers does not listen to the host.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::{
    CommandError, ConfigSpace, DeviceCommand, Identity, Interrupt, NetCommand, Progress,
    StartContext, StartError, VirtioDevice, Virtqueue, Watches,
};
use crate::inspect::Report;
use crate::limit::{Limits, Throttle};
use crate::net::{HEADER_BYTES, Link, MOST_FRAME_BYTES, Offloads};
use crate::ram::GuestRam;
use crate::state::{BadState, Section};

mod control;
mod counters;
mod header;
mod rx;
mod saved;
mod tx;
pub mod wire;

use counters::Counters;
use rx::{Inlet, Receiver, Wait};
use tx::{Outlet, Sender, Went};

pub use saved::{NetDriverStateV1, NetStateV1};

const DEVICE_ID: u32 = 1;
const QUEUE_SIZE: u16 = 256;
/// Most pairs of queues that a device can have.
pub const MOST_PAIRS: u16 = 16;

/// The largest sizes of the queues of a device with so many pairs: theirs, and one for commands.
pub fn queue_sizes(pairs: u16) -> Vec<u16> {
    let queues = usize::from(pairs.clamp(1, MOST_PAIRS));
    vec![QUEUE_SIZE; queues.saturating_mul(2).saturating_add(1)]
}

/// The events: waits for the limits are over; the link's other descriptor is readable; then two for
/// each pair.
const RX_LIMIT: u32 = 0;
const TX_LIMIT: u32 = 1;
const BESIDE: u32 = 2;
const FIRST_PAIR: u32 = 3;

fn readable(pair: u16) -> u32 {
    FIRST_PAIR.saturating_add(u32::from(pair).saturating_mul(2))
}

fn writable(pair: u16) -> u32 {
    readable(pair).saturating_add(1)
}

/// Which addresses a guest may send from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SourceMac {
    /// Its own. A frame from another is counted and dropped.
    #[default]
    Own,
    /// Any, as a bridge in the guest needs it. A frame from another is counted.
    Any,
}

/// How a device is to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Its address.
    pub mac: [u8; 6],
    /// Which addresses the guest may send from.
    pub source: SourceMac,
    /// How much the guest may receive.
    pub receive: Limits,
    /// How much it may send.
    pub transmit: Limits,
}

/// A pair of queues; a driver may leave out all but the first.
#[derive(Debug)]
struct Pair {
    receiver: Option<Receiver>,
    sender: Option<Sender>,
    /// The host has no room for what the pair sends.
    full: bool,
}

#[derive(Debug)]
struct Running {
    pairs: Vec<Pair>,
    control: Option<Virtqueue>,
    /// The number of the queue for commands.
    control_number: usize,
    /// How many pairs are used.
    active: u16,
    features: u64,
    to_guest: Offloads,
    ram: GuestRam,
    interrupt: Interrupt,
}

impl Running {
    fn pair(&mut self, pair: u16) -> Option<&mut Pair> {
        self.pairs.get_mut(usize::from(pair))
    }

    /// Whether the first so many pairs are complete.
    fn has_pairs(&self, count: u16) -> bool {
        let complete = |pair: &Pair| pair.receiver.is_some() && pair.sender.is_some();
        self.pairs.iter().take(count.into()).all(complete)
    }
}

/// A network device.
pub struct Net {
    link: Box<dyn Link>,
    mac: [u8; 6],
    source: SourceMac,
    pairs: u16,
    /// The host has not taken the link down.
    up: bool,
    /// The other end of the link is gone.
    lost: bool,
    config: Arc<ConfigSpace>,
    receive_limit: Throttle,
    transmit_limit: Throttle,
    watches: Watches,
    /// The link's descriptors once more, for those that were full: a loop watches each for one
    /// thing.
    writers: Vec<(u16, OwnedFd)>,
    running: Option<Running>,
    counters: Counters,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net")
            .field("link", &self.link)
            .field("running", &self.running)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Net {
    /// A device that no driver has started yet, with a pair of queues for each queue of the link,
    /// up to [`MOST_PAIRS`].
    ///
    /// # Errors
    /// When there are limits and the process has no file descriptor left for a timer.
    pub fn new(link: Box<dyn Link>, settings: &Settings) -> io::Result<Self> {
        let pairs = link.queues().clamp(1, MOST_PAIRS);
        let config = wire::Config {
            mac: settings.mac,
            status: wire::LINK_UP.into(),
            max_pairs: pairs.into(),
            mtu: link.mtu().into(),
        };
        let mut net = Self {
            link,
            mac: settings.mac,
            source: settings.source,
            pairs,
            up: true,
            lost: false,
            config: Arc::new(ConfigSpace::new(config.as_bytes().to_vec())),
            receive_limit: Throttle::default(),
            transmit_limit: Throttle::default(),
            watches: Watches::default(),
            writers: Vec::new(),
            running: None,
            counters: Counters::default(),
        };
        net.receive_limit.set(settings.receive)?;
        net.transmit_limit.set(settings.transmit)?;
        Ok(net)
    }

    fn is_up(&self) -> bool {
        self.up && !self.lost
    }

    /// Receives frames on a pair's queue, for one turn, and listens to the host as long as that
    /// makes sense.
    fn receive(&mut self, pair: u16) {
        let up = self.is_up();
        let most = self.most_bytes();
        let Some(running) = &mut self.running else {
            return;
        };
        let used = pair < running.active && !running.interrupt.needs_reset();
        let receiver = running.pairs.get_mut(usize::from(pair));
        let receiver = receiver.and_then(|pair| pair.receiver.as_mut());
        let mut wait = None;
        if let Some(receiver) = receiver.filter(|_| up && used) {
            receiver.turn(&mut Inlet {
                link: self.link.as_mut(),
                number: pair,
                ram: &running.ram,
                throttle: &mut self.receive_limit,
                counters: &mut self.counters,
                interrupt: &running.interrupt,
                agreed: running.to_guest,
                most,
            });
            wait = Some(receiver.wait);
        }
        self.listen(pair, wait == Some(Wait::Frames));
        if wait == Some(Wait::Lost) {
            self.lose_link();
        }
    }

    /// Listens to the host for frames of a pair's queue, or does not.
    fn listen(&self, pair: u16, on: bool) {
        self.watches.want(readable(pair), on);
        if pair == 0 && self.link.beside().is_some() {
            self.watches.want(BESIDE, on);
        }
    }

    /// The largest frame that has to have room, its header included. One with tags of VLANs may
    /// be larger: it takes another buffer, or what a guest without those leaves in one.
    fn most_bytes(&self) -> usize {
        let running = self.running.as_ref();
        let segments = running.is_some_and(|running| running.to_guest.segments());
        let mergeable = running.is_some_and(|running| running.features & wire::F_MRG_RXBUF != 0);
        let packet = usize::from(self.link.mtu().max(LEAST_PACKET));
        let tags = if mergeable { wire::TAG_BYTES } else { 0 };
        let frame = packet.saturating_add(wire::ETHERNET_BYTES.saturating_add(tags));
        let frame = match segments {
            true => MOST_FRAME_BYTES,
            false => frame.min(MOST_FRAME_BYTES),
        };
        frame.saturating_add(HEADER_BYTES)
    }

    /// Sends what a pair's queue has, for one turn.
    fn transmit(&mut self, pair: u16) -> Progress {
        let up = self.is_up();
        let Some(running) = &mut self.running else {
            return Progress::Idle;
        };
        // What a guest sends through a pair that it does not use goes through one that is.
        let number = pair.checked_rem(running.active).unwrap_or_default();
        let queues = running.pairs.get_mut(usize::from(pair));
        let Some(queues) = queues.filter(|_| !running.interrupt.needs_reset()) else {
            return Progress::Idle;
        };
        let Some(sender) = queues.sender.as_mut() else {
            return Progress::Idle;
        };
        let went = sender.turn(&mut Outlet {
            link: self.link.as_mut(),
            number,
            ram: &running.ram,
            throttle: &mut self.transmit_limit,
            counters: &mut self.counters,
            interrupt: &running.interrupt,
            agreed: wire::FROM_GUEST.offloads(running.features),
            mac: self.mac,
            source: self.source,
            up,
        });
        queues.full = went == Went::Full;
        if queues.full {
            self.watch_room(number);
        }
        match went {
            Went::More => Progress::More,
            Went::Idle | Went::Full | Went::Limited => Progress::Idle,
        }
    }

    /// Waits for room in a queue of the link.
    fn watch_room(&mut self, number: u16) {
        if !self.writers.iter().any(|(of, _)| *of == number) {
            let copy = self.link.fd(number).map(|fd| fd.try_clone_to_owned());
            match copy {
                Some(Ok(copy)) => {
                    self.watches.writable(&copy, writable(number));
                    self.writers.push((number, copy));
                }
                Some(Err(error)) => {
                    log::error!("net: cannot wait for room on the host: {error}");
                }
                None => {}
            }
        }
        self.watches.want(writable(number), true);
    }

    /// A queue of the link has room again.
    fn room(&mut self, number: u16) {
        self.watches.want(writable(number), false);
        let Some(running) = &mut self.running else {
            return;
        };
        let active = running.active;
        for pair in (0..self.pairs).filter(|pair| pair.checked_rem(active) == Some(number)) {
            let full = self.running.as_mut().and_then(|running| running.pair(pair));
            if full.is_some_and(|pair| pair.full) && self.transmit(pair) == Progress::More {
                // There is room now too, so that this is called again.
                if let Some(pair) = self.running.as_mut().and_then(|r| r.pair(pair)) {
                    pair.full = true;
                }
                self.watches.want(writable(number), true);
            }
        }
    }

    /// The link's other end is gone, or does nothing but fail.
    fn lose_link(&mut self) {
        self.lost = true;
        if let Some(running) = &self.running {
            let about = format_args!("{} is gone; the link is down", self.link.describe());
            running.interrupt.warn(about);
        }
        self.tell_status();
    }

    /// Tells the driver whether the link is up, and listens on it or not.
    fn tell_status(&mut self) {
        let status = if self.is_up() { wire::LINK_UP } else { 0 };
        let changed = self.config.update(wire::STATUS, &status.to_le_bytes());
        if let Some(running) = &self.running
            && changed
        {
            running.interrupt.config_changed();
        }
        for pair in 0..self.pairs {
            if self.is_up() {
                self.receive(pair);
            } else {
                self.listen(pair, false);
            }
        }
    }

    fn set_limits(
        &mut self,
        receive: Option<Limits>,
        transmit: Option<Limits>,
    ) -> Result<(), CommandError> {
        let each = [
            (&mut self.receive_limit, receive),
            (&mut self.transmit_limit, transmit),
        ];
        for (throttle, limits) in each {
            if let Some(limits) = limits {
                throttle.set(limits).map_err(CommandError::Host)?;
            }
        }
        Ok(())
    }

    /// A wait for the limits is over.
    fn go_on(&mut self, token: u32) {
        if token == RX_LIMIT && self.receive_limit.is_over() {
            for pair in 0..self.pairs {
                self.receive(pair);
            }
        }
        if token == TX_LIMIT && self.transmit_limit.is_over() {
            let mut more = false;
            for pair in 0..self.pairs {
                more |= self.transmit(pair) == Progress::More;
            }
            if more {
                self.transmit_limit.look_again();
            }
        }
    }
}

/// A guest's buffers hold packets of this size at least (5.1.6.3.1).
const LEAST_PACKET: u16 = 1500;

impl VirtioDevice for Net {
    fn identity(&self) -> Identity {
        let can = self.link.offloads();
        let mut features = wire::F_MAC | wire::F_STATUS | wire::F_CTRL_VQ | wire::F_MRG_RXBUF;
        features |= wire::TO_GUEST.features(can) | wire::FROM_GUEST.features(can);
        if can.checksum {
            features |= wire::F_CTRL_GUEST_OFFLOADS;
        }
        if self.link.mtu() >= wire::LEAST_MTU {
            features |= wire::F_MTU;
        }
        if self.pairs > 1 {
            features |= wire::F_MQ;
        }
        Identity {
            device_id: DEVICE_ID,
            queue_sizes: queue_sizes(self.pairs),
            features,
        }
    }

    fn config_space(&self) -> Arc<ConfigSpace> {
        Arc::clone(&self.config)
    }

    fn attach(&mut self, watches: Watches) {
        self.receive_limit.attach(watches.clone(), RX_LIMIT);
        self.transmit_limit.attach(watches.clone(), TX_LIMIT);
        for pair in 0..self.pairs {
            if let Some(fd) = self.link.fd(pair) {
                watches.readable(&fd, readable(pair));
                watches.want(readable(pair), false);
            }
        }
        if let Some(fd) = self.link.beside() {
            watches.readable(&fd, BESIDE);
            watches.want(BESIDE, false);
        }
        self.watches = watches;
    }

    fn start(&mut self, mut context: StartContext) -> Result<(), StartError> {
        let features = context.features;
        let mergeable = features & wire::F_MRG_RXBUF != 0;
        let first = Pair {
            receiver: Some(Receiver::new(context.take_queue(0)?, mergeable)),
            sender: Some(Sender::new(context.take_queue(1)?)),
            full: false,
        };
        // A driver that knows of one pair has its queue for commands right behind (5.1.2).
        let known = if features & wire::F_MQ == 0 {
            1
        } else {
            self.pairs
        };
        let control_number = usize::from(known).saturating_mul(2);
        let mut take = |queue: usize| context.queues.get_mut(queue).and_then(Option::take);
        let others = (1..usize::from(known)).map(|pair| {
            let queue = pair.saturating_mul(2);
            Pair {
                receiver: take(queue).map(|queue| Receiver::new(queue, mergeable)),
                sender: take(queue.saturating_add(1)).map(Sender::new),
                full: false,
            }
        });
        let pairs = std::iter::once(first).chain(others).collect();
        let control = take(control_number).filter(|_| features & wire::F_CTRL_VQ != 0);
        let mut running = Running {
            pairs,
            control,
            control_number,
            active: 1,
            features,
            to_guest: wire::TO_GUEST.offloads(features),
            ram: context.ram,
            interrupt: context.interrupt,
        };
        let offloads = self.link.set_offloads(running.to_guest);
        let active = self.link.set_active(1);
        for (what, done) in [("offloads", &offloads), ("queues", &active)] {
            if let Err(error) = done {
                let about = format_args!("the host does not change its {what}: {error}");
                running.interrupt.warn(about);
            }
        }
        if offloads.is_err() {
            // Frames come whole then, as they do to begin with.
            running.to_guest = Offloads::default();
        }
        self.running = Some(running);
        Ok(())
    }

    fn queue_ready(&mut self, queue: usize) -> Progress {
        let Some(running) = &mut self.running else {
            return Progress::Idle;
        };
        if queue == running.control_number {
            return self.commands();
        }
        let Ok(pair) = u16::try_from(queue / 2) else {
            return Progress::Idle;
        };
        let Some(queues) = running.pair(pair) else {
            return Progress::Idle;
        };
        if !queue.is_multiple_of(2) {
            // What waits for room goes on when there is.
            return if queues.full {
                Progress::Idle
            } else {
                self.transmit(pair)
            };
        }
        // Otherwise new buffers are found when the next frame comes.
        let wait = queues.receiver.as_ref().map(|receiver| receiver.wait);
        if wait == Some(Wait::Buffers) {
            self.receive(pair);
        }
        Progress::Idle
    }

    fn event(&mut self, token: u32) {
        if token == BESIDE {
            return self.receive(0);
        }
        let Some(place) = token.checked_sub(FIRST_PAIR) else {
            return self.go_on(token);
        };
        let pair = u16::try_from(place / 2).unwrap_or(u16::MAX);
        if token == readable(pair) {
            self.receive(pair);
        } else {
            self.room(pair);
        }
    }

    fn command(&mut self, command: DeviceCommand) -> Result<(), CommandError> {
        match command {
            DeviceCommand::Net(NetCommand::Carrier { up }) => {
                self.up = up;
                self.tell_status();
                Ok(())
            }
            DeviceCommand::Net(NetCommand::Limits { receive, transmit }) => {
                self.set_limits(receive, transmit)
            }
            _ => Err(CommandError::NotSupported),
        }
    }

    fn save(&self) -> Vec<u8> {
        self.state().to_tagged()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), BadState> {
        self.take_state(&NetStateV1::from_tagged(state)?)
    }

    fn stop(&mut self) {
        self.running = None;
        for pair in 0..self.pairs {
            self.listen(pair, false);
            self.watches.want(writable(pair), false);
        }
    }

    fn inspect(&self) -> Report {
        let [a, b, c, d, e, f] = self.mac;
        let active = self.running.as_ref().map_or(0, |running| running.active);
        let report = Report::new()
            .with("kind", "net")
            .with("started", self.running.is_some())
            .with("link", self.link.describe())
            .with("up", self.is_up())
            .with(
                "mac",
                format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
            )
            .with("mtu", u32::from(self.link.mtu()))
            .with("queue_pairs", u32::from(self.pairs))
            .with("active_pairs", u32::from(active));
        let report = self.counters.report(report);
        match self.link.report() {
            Some((name, part)) => report.with(name, part),
            None => report,
        }
    }
}

#[cfg(test)]
mod tests;
