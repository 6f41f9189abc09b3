//! The place of a device on its I/O loop: owns it and turns events and messages into calls.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::interrupt::Fault;
use super::queue::{QueueSetup, QueueStateV1, Standing};
use super::{
    CommandError, ConfigWrite, DeviceCommand, Interrupt, Progress, StartContext, StartError,
    VirtioDevice, Virtqueue,
};
use crate::inspect::Report;
use crate::line::{Doorbell, Reporter};
use crate::ram::GuestRam;
use crate::state::{BadState, NotSaved};

mod saved;
mod watches;

use saved::Restored;
pub use saved::SlotStateV1;
pub use watches::Watches;

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
    Pause(Sender<()>),
    Resume,
    Save(Sender<Result<SlotStateV1, NotSaved>>),
    Restore(Restored, Sender<Result<bool, BadState>>),
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

    /// Makes the device hold its queues and gives where it will tell that it is at rest: nothing
    /// of its driver's is in the host's hands, and it touches guest memory no more.
    ///
    /// # Errors
    /// When the loop has ended.
    pub fn begin_pause(&self) -> Result<Rest, SlotGone> {
        let (answer, rest) = mpsc::channel();
        self.post(Message::Pause(answer))?;
        Ok(Rest(rest))
    }

    /// Lets the device go on, whether it has come to rest or not.
    ///
    /// # Errors
    /// When the loop has ended.
    pub fn resume(&self) -> Result<(), SlotGone> {
        self.post(Message::Resume)
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
        let answer = within(&self.0, patience)?;
        Some(answer.unwrap_or_else(|gone| Err(gone.into())))
    }
}

/// Where a device's report comes.
#[derive(Debug)]
pub struct Inspection(Receiver<Report>);

impl Inspection {
    /// The report, if it is there within `patience`.
    pub fn within(&self, patience: Duration) -> Option<Result<Report, SlotGone>> {
        within(&self.0, patience)
    }
}

/// Where a device tells that it is at rest.
#[derive(Debug)]
pub struct Rest(Receiver<()>);

impl Rest {
    /// Whether it is, if that is told within `patience`.
    pub fn within(&self, patience: Duration) -> Option<Result<(), SlotGone>> {
        within(&self.0, patience)
    }
}

fn within<T>(answer: &Receiver<T>, patience: Duration) -> Option<Result<T, SlotGone>> {
    match answer.recv_timeout(patience) {
        Ok(answer) => Some(Ok(answer)),
        Err(RecvTimeoutError::Disconnected) => Some(Err(SlotGone)),
        Err(RecvTimeoutError::Timeout) => None,
    }
}

/// Where a device is in a pause of its machine.
enum Pause {
    None,
    /// Its queues are held; where it is to tell that it is at rest.
    Begun(Sender<()>),
    AtRest,
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
    // Where the queues stand that the device was started with, by number.
    standings: Vec<Option<Arc<Standing>>>,
    held: Arc<AtomicBool>,
    pause: Pause,
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
            standings: Vec::new(),
            held: Arc::default(),
            pause: Pause::None,
            own_loop: None,
        };
        Ok((slot, handle))
    }

    /// Reports there when the device goes out of service until its driver resets it.
    pub fn report_faults(&self, to: Reporter<Fault>) {
        self.interrupt.report_faults(to);
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
        self.watches.apply(self.is_at_rest(), |watch, wanted| {
            let operation = if wanted {
                ControlOperation::Add
            } else {
                ControlOperation::Delete
            };
            let event = EpollEvent::new(watch.for_what, watch.data().into());
            epoll.ctl(operation, watch.fd, event)
        });
    }

    fn watch_in(&self, ops: &mut EventOps<'_>) {
        self.watches.apply(self.is_at_rest(), |watch, wanted| {
            let events = Events::with_data_raw(watch.fd, watch.data(), watch.for_what);
            if wanted {
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
            // One that came with the message of the pause waits for its end.
            if !self.is_at_rest() {
                self.device.event(data & !DEVICE_EVENT);
                self.come_to_rest();
            }
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
                Message::Pause(done) => {
                    self.held.store(true, Ordering::Release);
                    self.pause = Pause::Begun(done);
                    self.come_to_rest();
                }
                Message::Resume => self.resume(),
                Message::Save(answer) => {
                    let _ = answer.send(self.save());
                }
                Message::Restore(restored, done) => {
                    let _ = done.send(self.restore(restored));
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

    fn is_at_rest(&self) -> bool {
        matches!(self.pause, Pause::AtRest)
    }

    /// Goes on with a pause that was begun.
    fn come_to_rest(&mut self) {
        if matches!(self.pause, Pause::Begun(_))
            && self.device.pause()
            && let Pause::Begun(done) = std::mem::replace(&mut self.pause, Pause::AtRest)
        {
            // Who asked may have given up waiting, and says so in another message.
            let _ = done.send(());
        }
    }

    fn resume(&mut self) {
        if matches!(self.pause, Pause::None) {
            return;
        }
        self.pause = Pause::None;
        self.held.store(false, Ordering::Release);
        self.device.resume();
        // What was rung for meanwhile was let be.
        for queue in 0..self.doorbells.len() {
            self.serve(queue);
        }
    }

    fn activate(&mut self, activation: Activation) {
        if let Err(error) = self.start(activation, &[]) {
            self.interrupt.need_reset(&error);
        }
        // A driver may ring before it is ready (2.1.2): what came early is looked at now.
        for queue in 0..self.doorbells.len() {
            self.serve(queue);
        }
    }

    /// Starts the device with its queues where they stood; all others begin.
    fn start(
        &mut self,
        activation: Activation,
        stood: &[Option<QueueStateV1>],
    ) -> Result<(), StartError> {
        let sizes = self.device.identity().queue_sizes;
        let Activation { features, queues } = activation;
        let queues = (0..).zip(queues.into_iter().zip(sizes));
        let queues = queues.map(|(number, (set, max))| {
            let (setup, live) = set?;
            let (ram, interrupt) = (self.ram.clone(), self.interrupt.clone());
            // The transport checked the set-up when it took it.
            let queue = Virtqueue::new(number, &setup, max, features, ram, interrupt, live).ok()?;
            let queue = queue.held_by(Arc::clone(&self.held));
            match stood.get(usize::from(number)) {
                Some(Some(state)) => Some(queue.restored(state)),
                _ => Some(queue),
            }
        });
        let queues: Vec<_> = queues.collect();
        let standing = |queue: &Option<Virtqueue>| queue.as_ref().map(Virtqueue::standing);
        self.standings = queues.iter().map(standing).collect();
        self.device.start(StartContext {
            features,
            queues,
            ram: self.ram.clone(),
            interrupt: self.interrupt.clone(),
        })?;
        self.active = true;
        Ok(())
    }

    fn stop(&mut self) {
        self.device.stop();
        self.active = false;
        self.standings.clear();
        self.come_to_rest();
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
        if !self.active || self.interrupt.needs_reset() || !matches!(self.pause, Pause::None) {
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
