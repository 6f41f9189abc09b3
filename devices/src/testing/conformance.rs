//! What holds for every virtio device, checked through its registers and one of its queues.

use std::time::Duration;

use crate::bus::Width;
use crate::virtio::queue::QueueSetup;
use crate::virtio::transport::mmio::{CONFIG, QUEUE_NOTIFY};
use crate::virtio::{VirtioDevice, features};

use super::driver::{AGREED, GuestDriver, NEEDS_RESET, RUNNING, register};
use super::persistence;
use super::ring::Ring;
use super::{AFTER_HOLE, END, HOLE, SEAM};

const WIDTHS: [Width; 4] = [Width::Byte, Width::Word, Width::Dword, Width::Qword];

/// Runs all checks. `make` gives a fresh device each time; `queue` is one whose requests the
/// device answers at once: 16 zeroes to read, then 513 bytes to write.
pub fn check(make: &dyn Fn() -> Box<dyn VirtioDevice>, queue: u32) {
    let driver = || GuestDriver::new(make());
    registers_identify_the_device(&mut driver());
    every_access_is_survived(&mut driver());
    every_access_to_a_running_device_is_survived(&mut driver(), queue);
    status_goes_one_way(&mut driver());
    features_are_agreed_once(&mut driver());
    queues_are_checked_and_frozen(&mut driver());
    an_early_kick_waits_for_driver_ok(&mut driver(), queue);
    requests_are_answered(&mut driver(), queue);
    a_reset_leaves_nothing_behind(&mut driver(), queue);
    a_queue_can_be_taken_back(&mut driver(), queue);
    a_paused_device_rests(&mut driver(), queue);
    a_broken_queue_waits_for_reset(&mut driver(), queue);
    persistence::check(make, queue);
}

/// Sends the request that every device answers and wants its answer.
fn answered(driver: &mut GuestDriver, queue: u32) {
    let request = [driver.holding(&[0; 16]), driver.room(513)];
    let answer = driver.request(queue, &request);
    assert!(answer.is_some(), "the request was not answered");
}

/// All readable state of the window.
fn window(driver: &mut GuestDriver) -> Vec<u64> {
    let offsets = (0..CONFIG + 0x80).step_by(4);
    offsets.map(|at| driver.read(at, Width::Dword)).collect()
}

/// Virtio 1.2, 4.2.2.
fn registers_identify_the_device(driver: &mut GuestDriver) {
    assert_eq!(driver.get(0x00), 0x7472_6976, "magic");
    assert_eq!(driver.get(0x04), 2, "version");
    assert_ne!(driver.get(0x08), 0, "device ID");
    let offered = driver.offered();
    assert_ne!(offered & features::VERSION_1, 0);
    driver.set(register::DEVICE_FEATURES_SELECT, 2);
    assert_eq!(driver.get(register::DEVICE_FEATURES), 0);
    for offset in [0xb0, 0xb4, 0xb8, 0xbc] {
        assert_eq!(driver.get(offset), u32::MAX, "shared memory at {offset:#x}");
    }
    driver.set(register::QUEUE_SELECT, u32::MAX);
    assert_eq!(driver.get(register::QUEUE_MAX), 0);
    assert_eq!(driver.get(register::QUEUE_READY), 0);
}

/// Virtio 1.2, 4.2.2.2: control registers are four bytes; nothing else does anything there.
fn every_access_is_survived(driver: &mut GuestDriver) {
    let fresh = window(driver);
    for offset in 0..CONFIG + 0x80 {
        for width in WIDTHS {
            let value = driver.read(offset, width);
            let known = offset >= CONFIG || (width == Width::Dword && offset % 4 == 0);
            assert!(known || value == 0, "{value:#x} at {offset:#x}, {width:?}");
            for value in [0, 1, 0xff, u64::MAX] {
                let value = value & (u64::MAX >> (64 - 8 * width.bytes()));
                driver.write(offset, width, value);
            }
        }
    }
    driver.run();
    driver.reset();
    assert_eq!(window(driver), fresh, "reset is not fresh");
    for width in WIDTHS {
        let end = crate::virtio::transport::mmio::WINDOW_BYTES - width.bytes();
        assert_eq!(driver.read(end, width), 0);
    }
}

/// The same while the device works; what resets it is started again.
fn every_access_to_a_running_device_is_survived(driver: &mut GuestDriver, queue: u32) {
    driver.start(u64::MAX);
    for offset in 0..CONFIG + 0x40 {
        for width in WIDTHS {
            for value in [0, 1, 7, u64::MAX] {
                driver.write(
                    offset,
                    width,
                    value & (u64::MAX >> (64 - 8 * width.bytes())),
                );
                driver.read(offset, width);
            }
            driver.run();
        }
        if driver.get(register::STATUS) != RUNNING {
            driver.start(u64::MAX);
        }
        answered(driver, queue);
    }
}

/// Virtio 1.2, 2.1.1 and 3.1.1.
fn status_goes_one_way(driver: &mut GuestDriver) {
    let status = register::STATUS;
    for skipped in [2, 4, 8, 1 | 4, 2 | 8, RUNNING & !1, 1 << 9] {
        driver.set(status, skipped);
        assert_eq!(driver.get(status), 0, "{skipped:#x} out of order");
    }
    driver.set(status, 1);
    driver.set(status, 1 | 2);
    driver.set(status, 1);
    assert_eq!(driver.get(status), 1 | 2, "a bit was taken away");
    driver.set(status, 1 | 2 | 4);
    assert_eq!(driver.get(status), 1 | 2, "ready without features");
    // Features without VERSION_1 were never accepted, so they are not agreed on.
    driver.set(status, RUNNING);
    assert_eq!(driver.get(status), 1 | 2);
    driver.set(status, 128 | 1 | 2);
    driver.set(status, AGREED);
    assert_eq!(driver.get(status), 128 | 1 | 2, "failed is final");
    driver.reset();
    assert_eq!(driver.get(status), 0);
    // What the device set itself may be written back.
    let offered = driver.offered();
    assert!(driver.agree(offered));
    driver.set(status, AGREED | NEEDS_RESET);
    assert_eq!(driver.get(status), AGREED);
    driver.reset();
}

/// Virtio 1.2, 2.2.1, 2.2.2 and 6.1.
fn features_are_agreed_once(driver: &mut GuestDriver) {
    let offered = driver.offered();
    assert!(!driver.agree(offered & !features::VERSION_1));
    driver.reset();
    let alien = (0..64).map(|bit| 1 << bit).find(|bit| offered & bit == 0);
    assert!(!driver.agree(offered | alien.expect("some bit is not offered")));
    driver.reset();
    driver.set(register::STATUS, 1);
    driver.set(register::STATUS, 1 | 2);
    driver.set(register::DRIVER_FEATURES_SELECT, 2);
    driver.set(register::DRIVER_FEATURES, 1);
    assert!(!driver.agree(offered), "bits beyond 64");
    driver.reset();
    assert!(driver.agree(features::VERSION_1));
    // Too late; were it taken, the next status write could not tell.
    driver.set(register::DRIVER_FEATURES_SELECT, 0);
    driver.set(register::DRIVER_FEATURES, u32::MAX);
    driver.set(register::STATUS, RUNNING);
    driver.run();
    driver.reset();
}

/// Virtio 1.2, 2.7, 4.2.2.2 and 4.2.3.2.
fn queues_are_checked_and_frozen(driver: &mut GuestDriver) {
    let offered = driver.offered();
    let ring = Ring::new(driver.ram.clone(), 0x1_0000, 8);
    driver.describe_queue(0, &ring.setup);
    driver.set(register::QUEUE_READY, 1);
    assert_eq!(driver.get(register::QUEUE_READY), 0, "before the features");
    assert!(driver.agree(offered));
    driver.set(register::QUEUE_SELECT, 0);
    let max = driver.get(register::QUEUE_MAX);
    let good = ring.setup;
    for bad in bad_setups(good, max) {
        driver.describe_queue(0, &bad);
        driver.set(register::QUEUE_READY, 1);
        assert_eq!(driver.get(register::QUEUE_READY), 0, "{bad:x?} was taken");
    }
    driver.describe_queue(0, &ring.setup);
    driver.set(register::QUEUE_READY, 1);
    assert_eq!(driver.get(register::QUEUE_READY), 1);
    // Frozen: these are ignored, so the queue still works with what it had.
    driver.set(register::QUEUE_SIZE, 3);
    driver.set(register::DESCRIPTORS, 0x13);
    driver.set(register::QUEUE_READY, 1);
    assert_eq!(driver.get(register::QUEUE_READY), 1);
    driver.set(register::QUEUE_READY, 0);
    assert_eq!(driver.get(register::QUEUE_READY), 0);
    driver.reset();
}

fn bad_setups(good: QueueSetup, max: u32) -> Vec<QueueSetup> {
    let size = |size| QueueSetup { size, ..good };
    let descriptors = |descriptors| QueueSetup {
        descriptors,
        ..good
    };
    let available = |available| QueueSetup { available, ..good };
    let used = |used| QueueSetup { used, ..good };
    vec![
        size(0),
        size(3),
        size(7),
        size(max * 2),
        size(1 << 16),
        size(1 << 31),
        size(u32::MAX),
        descriptors(good.descriptors + 8),
        available(good.available + 1),
        used(good.used + 2),
        descriptors(0),
        available(0),
        used(0),
        descriptors(HOLE),
        descriptors(HOLE - 64),
        available(HOLE - 2),
        used(HOLE - 4),
        used(AFTER_HOLE - 4),
        descriptors(END),
        descriptors(END - 64),
        used(END - 4),
        descriptors(u64::MAX - 15),
        available(u64::MAX - 1),
        used(u64::MAX - 3),
        available(good.descriptors),
        available(good.descriptors + 126),
        used(good.available + 20),
    ]
}

/// Virtio 1.2, 2.1.2 and 3.1.1: nothing is consumed before DRIVER_OK, nor forgotten.
fn an_early_kick_waits_for_driver_ok(driver: &mut GuestDriver, queue: u32) {
    let offered = driver.offered();
    assert!(driver.agree(offered));
    driver.set_up_queues();
    let request = [driver.holding(&[0; 16]), driver.room(513)];
    driver.ring(queue).add(&request);
    driver.kick(queue);
    assert_eq!(driver.ring(queue).used_index(), 0, "consumed too early");
    assert!(!driver.interrupted());
    driver.set(register::STATUS, RUNNING);
    driver.run();
    assert_eq!(
        driver.ring(queue).used_index(),
        1,
        "the early kick was lost"
    );
    assert!(driver.interrupted());
}

/// Virtio 1.2, 2.7.8, 4.2.2 and 4.2.3.4; kicks of queues that do not exist do nothing.
fn requests_are_answered(driver: &mut GuestDriver, queue: u32) {
    driver.start(u64::MAX);
    // A device may tell of its configuration as soon as it runs.
    driver.run();
    driver.set(register::INTERRUPT_ACKNOWLEDGE, 2);
    driver.set(QUEUE_NOTIFY, 1000);
    driver.set(QUEUE_NOTIFY, u32::MAX);
    for _ in 0..1000 {
        answered(driver, queue);
    }
    assert_eq!(driver.get(register::INTERRUPT_STATUS), 1);
    driver.set(register::INTERRUPT_ACKNOWLEDGE, 2);
    assert_eq!(driver.get(register::INTERRUPT_STATUS), 1);
    driver.set(register::INTERRUPT_ACKNOWLEDGE, u32::MAX);
    assert_eq!(driver.get(register::INTERRUPT_STATUS), 0);
    // Without event indices and indirect tables too, and with a ring over the seam of memory.
    driver.start(0);
    answered(driver, queue);
    driver.reset();
    let offered = driver.offered();
    assert!(driver.agree(offered));
    driver.set_up_queues();
    driver.set(register::QUEUE_SELECT, queue);
    driver.set(register::QUEUE_READY, 0);
    let mut ring = Ring::new(driver.ram.clone(), SEAM - 0x1000, 8);
    ring.setup.available = SEAM - 16;
    ring.setup.descriptors = SEAM - 0x90;
    driver.describe_queue(queue, &ring.setup);
    driver.set(register::QUEUE_READY, 1);
    *driver.ring(queue) = ring;
    driver.set(register::STATUS, RUNNING);
    answered(driver, queue);
}

/// Virtio 1.2, 2.4.1 and 4.2.2.1.
fn a_reset_leaves_nothing_behind(driver: &mut GuestDriver, queue: u32) {
    let fresh = window(driver);
    driver.start(u64::MAX);
    answered(driver, queue);
    assert!(driver.interrupted());
    driver.reset();
    assert_eq!(window(driver), fresh, "reset is not fresh");
    let before = driver.ring(queue).used_index();
    let request = [driver.holding(&[0; 16]), driver.room(513)];
    driver.ring(queue).add(&request);
    driver.kick(queue);
    assert_eq!(driver.ring(queue).used_index(), before, "used after reset");
    assert!(!driver.interrupted(), "interrupt after reset");
    for _ in 0..3 {
        driver.start(u64::MAX);
        answered(driver, queue);
    }
}

/// Virtio 1.2, 4.2.2.2: QueueReady zero, read back, means that the device has let go.
fn a_queue_can_be_taken_back(driver: &mut GuestDriver, queue: u32) {
    driver.start(u64::MAX);
    answered(driver, queue);
    driver.set(register::QUEUE_SELECT, queue);
    driver.set(register::QUEUE_READY, 0);
    assert_eq!(driver.get(register::QUEUE_READY), 0);
    let request = [driver.holding(&[0; 16]), driver.room(513)];
    driver.ring(queue).add(&request);
    driver.kick(queue);
    assert_eq!(
        driver.ring(queue).used_index(),
        1,
        "used after it was taken back"
    );
    assert!(!driver.needs_reset());
    driver.start(u64::MAX);
    answered(driver, queue);
}

/// Of a machine that is paused, nothing changes; what was asked for meanwhile is done afterwards.
fn a_paused_device_rests(driver: &mut GuestDriver, queue: u32) {
    driver.start(u64::MAX);
    for _ in 0..3 {
        answered(driver, queue);
        let rest = driver.handle.begin_pause().expect("the device is there");
        driver.run();
        assert_eq!(
            rest.within(Duration::ZERO),
            Some(Ok(())),
            "it is not at rest"
        );
        let request = [driver.holding(&[0; 16]), driver.room(513)];
        let used = driver.ring(queue).used_index();
        driver.ring(queue).add(&request);
        let before = memory(driver);
        driver.interrupted();
        driver.kick(queue);
        // A device tells what it is and did though it rests.
        driver.handle.inspect().expect("the device is there");
        driver.run();
        assert!(memory(driver) == before, "guest memory has changed");
        assert!(!driver.interrupted(), "an interrupt from a device at rest");
        driver.handle.resume().expect("the device is there");
        driver.run();
        assert_eq!(driver.ring(queue).used_index(), used.wrapping_add(1));
        driver.ring(queue).take_used();
    }
    // One that is reset before it goes on is as any other.
    drop(driver.handle.begin_pause());
    driver.run();
    driver.reset();
    driver.handle.resume().expect("the device is there");
    driver.start(u64::MAX);
    answered(driver, queue);
}

/// All of guest memory.
fn memory(driver: &GuestDriver) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (start, end) in [(0, HOLE), (AFTER_HOLE, END)] {
        let len = usize::try_from(end - start).expect("small");
        let mut part = vec![0; len];
        driver.ram.read_bytes(start, &mut part).expect("memory");
        bytes.extend(part);
    }
    bytes
}

/// Virtio 1.2, 2.1.1, 2.1.2 and 2.7.6: one notice, no work, no spinning, and reset mends it.
fn a_broken_queue_waits_for_reset(driver: &mut GuestDriver, queue: u32) {
    driver.start(u64::MAX);
    answered(driver, queue);
    driver.set(register::INTERRUPT_ACKNOWLEDGE, u32::MAX);
    driver.interrupted();
    driver.ring(queue).set_available_index(0x8000);
    driver.kick(queue);
    assert!(driver.needs_reset());
    assert!(driver.interrupted(), "the driver was not told");
    assert_eq!(driver.get(register::INTERRUPT_STATUS), 2);
    driver.ring(queue).set_available_index(1);
    for _ in 0..10 {
        driver.kick(queue);
    }
    assert!(!driver.interrupted(), "the driver was told again");
    assert_eq!(driver.ring(queue).used_index(), 1);
    driver.reset();
    assert_eq!(driver.get(register::STATUS), 0);
    driver.start(u64::MAX);
    answered(driver, queue);
}
