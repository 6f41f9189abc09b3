//! The state of a device's set-up, whatever registers show it: status, features, queues.
//!
//! Runs on vCPU threads under the transport's lock. It sends the device messages and waits for
//! it in two places only: reset, and a queue that the driver takes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::queue::QueueSetup;
use super::super::slot::{Activation, SetQueue, SlotHandle};
use super::super::{ConfigSpace, ConfigWrite, Identity, Interrupt, features};
use crate::bus::Width;
use crate::ram::GuestRam;

mod saved;

pub(crate) use saved::CoreStateV1;

/// Device status bits (virtio 1.2, 2.1).
pub(crate) mod status {
    /// The guest has seen the device.
    pub(crate) const ACKNOWLEDGE: u32 = 1;
    /// The guest has a driver for it.
    pub(crate) const DRIVER: u32 = 2;
    /// The driver is ready.
    pub(crate) const DRIVER_OK: u32 = 4;
    /// Features are agreed on.
    pub(crate) const FEATURES_OK: u32 = 8;
    /// The device wants to be reset.
    pub(crate) const NEEDS_RESET: u32 = 64;
    /// The driver has given up.
    pub(crate) const FAILED: u32 = 128;

    /// The order in which a driver sets bits (3.1.1).
    pub(crate) const ORDER: [u32; 4] = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];
}

#[derive(Debug, Default)]
struct Queue {
    max: u16,
    setup: QueueSetup,
    ready: bool,
    live: Arc<AtomicBool>,
}

impl Queue {
    /// What the device gets of it: to use while it is ready.
    fn hand_over(&self) -> SetQueue {
        self.live.store(self.ready, Ordering::Release);
        (self.setup, Arc::clone(&self.live))
    }
}

/// Which address of a queue a register holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Area {
    Descriptors,
    Available,
    Used,
}

/// The set-up of one device.
#[derive(Debug)]
pub(crate) struct Core {
    identity: Identity,
    ram: GuestRam,
    interrupt: Interrupt,
    slot: SlotHandle,
    status: u32,
    driver_features: u64,
    // A bit that no device offers was set in a page beyond the first two.
    alien_features: bool,
    queues: Vec<Queue>,
    // Whether a queue is as large as it may be until the driver says otherwise.
    full_queues: bool,
    active: bool,
}

impl Core {
    pub(crate) fn new(
        identity: Identity,
        ram: GuestRam,
        interrupt: Interrupt,
        slot: SlotHandle,
    ) -> Self {
        let queues = fresh_queues(&identity, false);
        Self {
            identity,
            ram,
            interrupt,
            slot,
            status: 0,
            driver_features: 0,
            alien_features: false,
            queues,
            full_queues: false,
            active: false,
        }
    }

    /// Queues begin as large as they may be, as on PCI (4.1.4.3), not without a size.
    pub(crate) fn with_full_queues(mut self) -> Self {
        self.full_queues = true;
        self.queues = fresh_queues(&self.identity, true);
        self
    }

    pub(crate) fn device_id(&self) -> u32 {
        self.identity.device_id
    }

    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The offered features of a page of 32.
    pub(crate) fn offered(&self, page: u32) -> u32 {
        page_of(self.identity.features | features::OFFERED, page)
    }

    /// The features of a page that the driver has accepted.
    pub(crate) fn accepted(&self, page: u32) -> u32 {
        page_of(self.driver_features, page)
    }

    /// The driver accepts features of a page: possible until it sets FEATURES_OK.
    pub(crate) fn accept(&mut self, page: u32, value: u32) {
        if self.status & (status::DRIVER | status::FEATURES_OK) != status::DRIVER {
            self.refuse("features", value);
            return;
        }
        let value = u64::from(value);
        match page {
            0 => self.driver_features = self.driver_features & !LOW | value,
            1 => self.driver_features = self.driver_features & LOW | value << 32,
            _ => self.alien_features |= value != 0,
        }
    }

    pub(crate) fn status(&self) -> u32 {
        if self.interrupt.needs_reset() {
            self.status | status::NEEDS_RESET
        } else {
            self.status
        }
    }

    /// The driver writes the status: a reset, or bits added in order. Everything else, such as
    /// a bit taken away, is ignored.
    pub(crate) fn set_status(&mut self, value: u32) {
        if value == 0 {
            self.reset();
            return;
        }
        // NEEDS_RESET is the device's own bit, which drivers write back as they read it.
        let value = value & !status::NEEDS_RESET;
        if value & status::FAILED != 0 {
            self.status |= status::FAILED;
        }
        let wanted = value & !status::FAILED;
        let given_up = self.status & status::FAILED != 0;
        if given_up || !is_in_order(wanted) || self.status & !wanted & !status::FAILED != 0 {
            if wanted != self.status & !status::FAILED {
                self.refuse("status", value);
            }
            return;
        }
        let added = wanted & !self.status;
        self.status |= added & (status::ACKNOWLEDGE | status::DRIVER);
        // FEATURES_OK has to be seen by the driver before it goes on (3.1.1).
        if added & status::FEATURES_OK != 0 {
            self.agree();
        } else if added & status::DRIVER_OK != 0 {
            self.activate();
        }
    }

    /// How large a queue may be; zero for one that does not exist.
    pub(crate) fn queue_max(&self, queue: u32) -> u32 {
        self.queue(queue).map_or(0, |queue| queue.max.into())
    }

    /// The number of queues.
    pub(crate) fn queue_count(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    /// How large the driver made a queue.
    pub(crate) fn queue_size(&self, queue: u32) -> u32 {
        self.queue(queue).map_or(0, |queue| queue.setup.size)
    }

    /// The low or the high half of an area's address.
    pub(crate) fn queue_area(&self, queue: u32, area: Area, high: bool) -> u32 {
        let setup = self.queue(queue).map(|queue| queue.setup);
        let address = setup.map_or(0, |setup| match area {
            Area::Descriptors => setup.descriptors,
            Area::Available => setup.available,
            Area::Used => setup.used,
        });
        page_of(address, high.into())
    }

    pub(crate) fn queue_ready(&self, queue: u32) -> bool {
        self.queue(queue).is_some_and(|queue| queue.ready)
    }

    pub(crate) fn set_queue_size(&mut self, queue: u32, size: u32) {
        if let Some(queue) = self.queue_in_setup(queue) {
            queue.setup.size = size;
        } else {
            self.refuse("queue size", size);
        }
    }

    /// Sets the low or the high half of an area's address.
    pub(crate) fn set_queue_area(&mut self, queue: u32, area: Area, high: bool, value: u32) {
        let Some(queue) = self.queue_in_setup(queue) else {
            self.refuse("queue address", value);
            return;
        };
        let address = match area {
            Area::Descriptors => &mut queue.setup.descriptors,
            Area::Available => &mut queue.setup.available,
            Area::Used => &mut queue.setup.used,
        };
        *address = if high {
            *address & LOW | u64::from(value) << 32
        } else {
            *address & !LOW | u64::from(value)
        };
    }

    /// The driver hands a queue over or takes it back.
    pub(crate) fn set_queue_ready(&mut self, index: u32, ready: bool) {
        if !ready {
            self.take_queue_back(index);
            return;
        }
        let ram = self.ram.clone();
        let Some(queue) = self.queue_in_setup(index) else {
            // Ready a second time is no news.
            if !self.queue_ready(index) {
                self.refuse("queue ready", index);
            }
            return;
        };
        match queue.setup.check(queue.max, &ram) {
            Ok(_) => queue.ready = true,
            Err(error) => self
                .interrupt
                .warn(format_args!("queue {index} refused: {error}")),
        }
    }

    /// The driver writes a configuration field: whether it may. Before DRIVER it has no business
    /// with the device (3.1.1).
    pub(crate) fn write_config(
        &self,
        config: &ConfigSpace,
        field: u64,
        width: Width,
        value: u64,
    ) -> bool {
        let taken = self.status & status::DRIVER != 0 && config.write(field, width.bytes(), value);
        if taken {
            self.slot.config_written(ConfigWrite {
                offset: usize::try_from(field).unwrap_or(usize::MAX),
                len: usize::try_from(width.bytes()).unwrap_or(usize::MAX),
                value,
            });
        }
        taken
    }

    /// A register write that does nothing, for the log.
    pub(crate) fn refuse(&self, what: &str, value: u32) {
        let status = self.status;
        self.interrupt.warn(format_args!(
            "guest write of {value:#x} ({what}) ignored at status {status:#x}"
        ));
    }

    fn queue(&self, queue: u32) -> Option<&Queue> {
        self.queues.get(usize::try_from(queue).ok()?)
    }

    /// A queue whose registers may change: after the features, before DRIVER_OK, and not while
    /// it is ready (3.1.1, 4.2.2.2).
    fn queue_in_setup(&mut self, queue: u32) -> Option<&mut Queue> {
        let phase = status::FEATURES_OK | status::DRIVER_OK | status::FAILED;
        if self.status & phase != status::FEATURES_OK {
            return None;
        }
        let queue = self.queues.get_mut(usize::try_from(queue).ok()?)?;
        (!queue.ready).then_some(queue)
    }

    fn take_queue_back(&mut self, index: u32) {
        let queue = usize::try_from(index).ok();
        let Some(queue) = queue.and_then(|queue| self.queues.get_mut(queue)) else {
            return;
        };
        if !std::mem::take(&mut queue.ready) {
            return;
        }
        queue.live.store(false, Ordering::Release);
        if self.active {
            // The device may be within a request of this queue just now.
            self.slot.sync();
        }
    }

    /// Sets FEATURES_OK if the device can work with what the driver accepted (2.2.2, 6.1).
    fn agree(&mut self) {
        let offered = self.identity.features | features::OFFERED;
        let accepted = self.driver_features;
        if self.alien_features || accepted & !offered != 0 || accepted & features::VERSION_1 == 0 {
            self.interrupt.warn(format_args!(
                "driver's features {accepted:#x} refused, of {offered:#x} offered"
            ));
            return;
        }
        self.status |= status::FEATURES_OK;
    }

    fn activate(&mut self) {
        let set_up = |queue: &Queue| queue.ready.then(|| queue.hand_over());
        let activation = Activation {
            features: self.driver_features,
            queues: self.queues.iter().map(set_up).collect(),
        };
        self.status |= status::DRIVER_OK;
        self.active = true;
        self.interrupt.set_running();
        if let Err(error) = self.slot.activate(activation) {
            self.interrupt.need_reset(&error);
        }
    }

    /// Back to the state of a fresh device. The status reads zero only once the device has let
    /// go of guest memory (2.4.1), since the register write waits for it.
    fn reset(&mut self) {
        self.interrupt.reset();
        for queue in &self.queues {
            queue.live.store(false, Ordering::Release);
        }
        if std::mem::take(&mut self.active) {
            self.slot.stop();
        }
        self.status = 0;
        self.driver_features = 0;
        self.alien_features = false;
        self.queues = fresh_queues(&self.identity, self.full_queues);
        // Once more: the device may have raised one while it was being stopped.
        self.interrupt.reset();
    }
}

const LOW: u64 = 0xffff_ffff;

/// 32 bits out of 64: page 0 is the low half.
fn page_of(bits: u64, page: u32) -> u32 {
    let part = match page {
        0 => bits & LOW,
        1 => bits >> 32,
        _ => 0,
    };
    u32::try_from(part).unwrap_or_default()
}

fn fresh_queues(identity: &Identity, full: bool) -> Vec<Queue> {
    let queue = |max: &u16| Queue {
        max: *max,
        setup: QueueSetup {
            size: if full { u32::from(*max) } else { 0 },
            ..QueueSetup::default()
        },
        ..Queue::default()
    };
    identity.queue_sizes.iter().map(queue).collect()
}

/// Whether the bits are the first few of the order.
fn is_in_order(bits: u32) -> bool {
    let mut prefix = 0;
    bits != 0
        && status::ORDER.iter().any(|bit| {
            prefix |= bit;
            prefix == bits
        })
}
