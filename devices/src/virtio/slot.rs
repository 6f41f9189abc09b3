//! The place of a device on its I/O loop: owns it and turns events and messages into calls.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::queue::QueueSetup;
use super::{
    CommandError, ConfigWrite, DeviceCommand, Interrupt, Progress, StartContext, VirtioDevice,
    Virtqueue,
};
use crate::inspect::Report;
use crate::line::Doorbell;
use crate::ram::GuestRam;

/// Event data of the mailbox.
const MAILBOX: u32 = 0;
/// Event data of the first doorbell; the others follow.
const FIRST_DOORBELL: u32 = 1;
/// Writes to the configuration that the device has not seen yet, at most; each vCPU may add one.
const CONFIG_WRITES_WAITING: usize = 64;
/// Set in the event data of what a device watches itself.
const DEVICE_EVENT: u32 = 1 << 31;
/// How much a step takes up at once; the rest is for the next.
const EVENTS_A_STEP: usize = 32;

/// A queue as its driver set it up, and the flag by which the driver takes it back.
pub(crate) type SetQueue = (QueueSetup, Arc<AtomicBool>);

/// What a driver has agreed on by the time it is ready.
#[derive(Debug)]
pub(crate) struct Activation {
    pub(crate) features: u64,
    pub(crate) queues: Vec<Option<SetQueue>>,
}

#[derive(Debug)]
enum Message {
    Activate(Activation),
    Stop(Sender<()>),
    Sync(Sender<()>),
    Command(DeviceCommand, Option<Sender<Result<(), CommandError>>>),
    ConfigWritten(ConfigWrite),
    Inspect(Sender<Report>),
}

/// The device's loop has ended and the device with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the device is gone: its I/O loop has ended")]
pub struct SlotGone;

/// Reaches a device from any thread.
#[derive(Clone, Debug)]
pub struct SlotHandle {
    mailbox: Sender<Message>,
    wake: Arc<EventFd>,
    config_writes: Arc<AtomicUsize>,
    pump: Arc<OnceLock<Pump>>,
}

/// Takes a turn of the device's loop on the thread of whoever waits for the device.
pub struct Pump(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Pump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pump")
    }
}

impl SlotHandle {
    /// From now on, whoever waits for the device calls `turn` meanwhile. For tests and fuzzers,
    /// where no other thread runs the device; the first call counts.
    pub fn pump_with(&self, turn: impl Fn() + Send + Sync + 'static) {
        let _ = self.pump.set(Pump(Box::new(turn)));
    }

    /// Hands a command over; the device takes it when its loop comes round.
    ///
    /// # Errors
    /// When the loop has ended.
    pub fn send(&self, command: DeviceCommand) -> Result<(), SlotGone> {
        self.post(Message::Command(command, None))
    }

    /// Hands a command over and gives where the device's answer will come.
    ///
    /// # Errors
    /// When the loop has ended.
    pub fn begin(&self, command: DeviceCommand) -> Result<Answer, SlotGone> {
        let (sender, answer) = mpsc::channel();
        self.post(Message::Command(command, Some(sender)))?;
        Ok(Answer(answer))
    }

    /// Hands a command over and waits for its end: not to be called on the device's own loop.
    ///
    /// # Errors
    /// When the device did not carry it out.
    pub fn ask(&self, command: DeviceCommand) -> Result<(), CommandError> {
        let Answer(answer) = self.begin(command)?;
        self.receive(&answer)?
    }

    /// Tells the device of a driver's write to its configuration. A driver that writes faster
    /// than the device reads waits for it.
    pub(crate) fn config_written(&self, written: ConfigWrite) {
        if self.config_writes.fetch_add(1, Ordering::AcqRel) >= CONFIG_WRITES_WAITING {
            self.sync();
        }
        // A device that is gone reads its configuration no more.
        let _ = self.post(Message::ConfigWritten(written));
    }

    /// Asks the device what it is and did, and waits for the answer: not to be called on the
    /// device's own loop.
    ///
    /// # Errors
    /// When the loop has ended.
    pub fn inspect(&self) -> Result<Report, SlotGone> {
        let Inspection(report) = self.begin_inspect()?;
        self.receive(&report)
    }

    /// Asks the device what it is and did and gives where the answer will come.
    ///
    /// # Errors
    /// When the loop has ended.
    pub fn begin_inspect(&self) -> Result<Inspection, SlotGone> {
        let (answer, report) = mpsc::channel();
        self.post(Message::Inspect(answer))?;
        Ok(Inspection(report))
    }

    pub(crate) fn activate(&self, activation: Activation) -> Result<(), SlotGone> {
        self.post(Message::Activate(activation))
    }

    /// Stops the device and waits until it has let go of guest memory. A device that is gone
    /// has, so there is nothing to report.
    pub(crate) fn stop(&self) {
        self.wait_for(Message::Stop);
    }

    /// Waits until the device is not within a call.
    pub(crate) fn sync(&self) {
        self.wait_for(Message::Sync);
    }

    fn wait_for(&self, message: impl FnOnce(Sender<()>) -> Message) {
        let (answer, done) = mpsc::channel();
        if self.post(message(answer)).is_ok() {
            // An error means that the loop ended with the message unread.
            let _ = self.receive(&done);
        }
    }

    fn receive<T>(&self, answer: &Receiver<T>) -> Result<T, SlotGone> {
        let Some(Pump(turn)) = self.pump.get() else {
            return answer.recv().map_err(|_| SlotGone);
        };
        loop {
            match answer.try_recv() {
                Ok(answer) => return Ok(answer),
                Err(TryRecvError::Disconnected) => return Err(SlotGone),
                Err(TryRecvError::Empty) => turn(),
            }
        }
    }

    fn post(&self, message: Message) -> Result<(), SlotGone> {
        self.mailbox.send(message).map_err(|_| SlotGone)?;
        // It fails when the counter is full, and then the loop is awake anyway.
        let _ = self.wake.write(1);
        Ok(())
    }
}

/// Where the answer to a command comes.
#[derive(Debug)]
pub struct Answer(Receiver<Result<(), CommandError>>);

impl Answer {
    /// The answer, if it is there within `patience`.
    pub fn within(&self, patience: Duration) -> Option<Result<(), CommandError>> {
        match self.0.recv_timeout(patience) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Disconnected) => Some(Err(SlotGone.into())),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }
}

/// Where a device's report comes.
#[derive(Debug)]
pub struct Inspection(Receiver<Report>);

impl Inspection {
    /// The report, if it is there within `patience`.
    pub fn within(&self, patience: Duration) -> Option<Result<Report, SlotGone>> {
        match self.0.recv_timeout(patience) {
            Ok(report) => Some(Ok(report)),
            Err(RecvTimeoutError::Disconnected) => Some(Err(SlotGone)),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }
}

/// The file descriptors that a device wants to hear of, whether a driver runs it or not.
#[derive(Clone, Debug, Default)]
pub struct Watches(Arc<Mutex<Vec<Watch>>>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Watch {
    fd: RawFd,
    token: u32,
    for_what: EventSet,
    wanted: bool,
    armed: bool,
}

impl Watch {
    /// The event data of it.
    fn data(&self) -> u32 {
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

    /// Makes the loop watch what is wanted, and nothing else: `change` adds or removes one.
    fn apply<E: fmt::Display>(&self, mut change: impl FnMut(&Watch) -> Result<(), E>) {
        let mut watches = self.lock();
        for watch in watches.iter_mut().filter(|w| w.wanted != w.armed) {
            if let Err(error) = change(watch) {
                log::error!("virtio: cannot change what is watched: {error}");
            }
            // Tried once: what epoll refuses it refuses again.
            watch.armed = watch.wanted;
        }
    }
}

/// A device with its mailbox and doorbells, to be added to a loop.
pub struct DeviceSlot {
    device: Box<dyn VirtioDevice>,
    ram: GuestRam,
    interrupt: Interrupt,
    doorbells: Vec<Doorbell>,
    mailbox: Receiver<Message>,
    wake: Arc<EventFd>,
    config_writes: Arc<AtomicUsize>,
    watches: Watches,
    active: bool,
    // Where no loop runs the device.
    own_loop: Option<Epoll>,
}

impl fmt::Debug for DeviceSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceSlot")
            .field("active", &self.active)
            .field("interrupt", &self.interrupt)
            .finish_non_exhaustive()
    }
}

impl DeviceSlot {
    pub(crate) fn new(
        mut device: Box<dyn VirtioDevice>,
        ram: GuestRam,
        interrupt: Interrupt,
        doorbells: Vec<Doorbell>,
    ) -> io::Result<(Self, SlotHandle)> {
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let (sender, mailbox) = mpsc::channel();
        let handle = SlotHandle {
            mailbox: sender,
            wake: Arc::clone(&wake),
            config_writes: Arc::default(),
            pump: Arc::default(),
        };
        let config_writes = Arc::clone(&handle.config_writes);
        let watches = Watches::default();
        device.attach(watches.clone());
        let slot = Self {
            device,
            ram,
            interrupt,
            doorbells,
            mailbox,
            wake,
            config_writes,
            watches,
            active: false,
            own_loop: None,
        };
        Ok((slot, handle))
    }

    /// Does what a loop would do once for each thing that is ready, without waiting: whether
    /// there was anything. For tests and fuzzers, which have no loop.
    ///
    /// # Panics
    /// When the process has no file descriptor left.
    pub fn step(&mut self) -> bool {
        let epoll = self.own_loop.take().unwrap_or_else(|| self.make_loop());
        let mut ready = [EpollEvent::default(); EVENTS_A_STEP];
        let count = epoll.wait(0, &mut ready).unwrap_or_default();
        let ready = ready.get_mut(..count).unwrap_or_default();
        // In an order that depends on nothing but what is ready.
        ready.sort_unstable_by_key(EpollEvent::data);
        for event in ready.iter() {
            self.turn(u32::try_from(event.data()).unwrap_or_default());
        }
        self.watch_with(&epoll);
        self.own_loop = Some(epoll);
        count > 0
    }

    fn make_loop(&self) -> Epoll {
        let epoll = Epoll::new().expect("an epoll");
        for (fd, data) in self.fixed_watches() {
            let event = EpollEvent::new(EventSet::IN, data.into());
            let added = epoll.ctl(ControlOperation::Add, fd, event);
            added.expect("a watch");
        }
        self.watch_with(&epoll);
        epoll
    }

    fn watch_with(&self, epoll: &Epoll) {
        self.watches.apply(|watch| {
            let operation = if watch.wanted {
                ControlOperation::Add
            } else {
                ControlOperation::Delete
            };
            let event = EpollEvent::new(watch.for_what, watch.data().into());
            epoll.ctl(operation, watch.fd, event)
        });
    }

    fn watch_in(&self, ops: &mut EventOps<'_>) {
        self.watches.apply(|watch| {
            let events = Events::with_data_raw(watch.fd, watch.data(), watch.for_what);
            if watch.wanted {
                ops.add(events)
            } else {
                ops.remove(events)
            }
        });
    }

    /// What is always watched.
    fn fixed_watches(&self) -> impl Iterator<Item = (RawFd, u32)> {
        let doorbells = self.doorbells.iter().map(AsRawFd::as_raw_fd);
        let mailbox = (self.wake.as_raw_fd(), MAILBOX);
        std::iter::once(mailbox).chain(doorbells.zip(FIRST_DOORBELL..))
    }

    /// Does what has become ready.
    fn turn(&mut self, data: u32) {
        if data & DEVICE_EVENT != 0 {
            self.device.event(data & !DEVICE_EVENT);
        } else if data == MAILBOX {
            let _ = self.wake.read();
            self.read_mailbox();
        } else if let Ok(queue) = usize::try_from(data.wrapping_sub(FIRST_DOORBELL)) {
            self.answer_doorbell(queue);
        }
    }

    fn read_mailbox(&mut self) {
        while let Ok(message) = self.mailbox.try_recv() {
            match message {
                Message::Activate(activation) => self.activate(activation),
                Message::Stop(done) => {
                    self.stop();
                    let _ = done.send(());
                }
                Message::Sync(done) => {
                    self.device.settle();
                    let _ = done.send(());
                }
                Message::Command(command, answer) => self.command(command, answer.as_ref()),
                Message::ConfigWritten(written) => {
                    self.config_writes.fetch_sub(1, Ordering::AcqRel);
                    self.device.config_written(written);
                }
                Message::Inspect(answer) => {
                    let _ = answer.send(self.device.inspect());
                }
            }
        }
    }

    fn command(
        &mut self,
        command: DeviceCommand,
        answer: Option<&Sender<Result<(), CommandError>>>,
    ) {
        let result = self.device.command(command);
        match (answer, result) {
            // Who asked may have given up waiting.
            (Some(answer), result) => drop(answer.send(result)),
            (None, Err(error)) => log::warn!("virtio: a command was not carried out: {error}"),
            (None, Ok(())) => {}
        }
    }

    fn activate(&mut self, activation: Activation) {
        let sizes = self.device.identity().queue_sizes;
        let Activation { features, queues } = activation;
        let queues = (0..).zip(queues.into_iter().zip(sizes));
        let queues = queues.map(|(number, (set, max))| {
            let (setup, live) = set?;
            let (ram, interrupt) = (self.ram.clone(), self.interrupt.clone());
            // The transport checked the set-up when it took it.
            Virtqueue::new(number, &setup, max, features, ram, interrupt, live).ok()
        });
        let context = StartContext {
            features,
            queues: queues.collect(),
            ram: self.ram.clone(),
            interrupt: self.interrupt.clone(),
        };
        match self.device.start(context) {
            Ok(()) => self.active = true,
            Err(error) => self.interrupt.need_reset(&error),
        }
        // A driver may ring before it is ready (2.1.2): what came early is looked at now.
        for queue in 0..self.doorbells.len() {
            self.serve(queue);
        }
    }

    fn stop(&mut self) {
        self.device.stop();
        self.active = false;
        for doorbell in &self.doorbells {
            doorbell.clear();
        }
    }

    fn answer_doorbell(&mut self, queue: usize) {
        if self.doorbells.get(queue).is_some_and(Doorbell::clear) {
            self.serve(queue);
        }
    }

    fn serve(&mut self, queue: usize) {
        if !self.active || self.interrupt.needs_reset() {
            return;
        }
        if self.device.queue_ready(queue) == Progress::More
            && let Some(doorbell) = self.doorbells.get(queue)
        {
            doorbell.ring();
        }
    }
}

impl MutEventSubscriber for DeviceSlot {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        for (fd, data) in self.fixed_watches() {
            // Only a lack of memory or of watches per user makes this fail; the device is
            // silent then and the guest notices.
            if let Err(error) = ops.add(Events::with_data_raw(fd, data, EventSet::IN)) {
                log::error!("virtio: cannot watch a file descriptor: {error}");
            }
        }
        self.watch_in(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        self.turn(events.data());
        self.watch_in(ops);
    }
}

#[cfg(test)]
mod tests;
