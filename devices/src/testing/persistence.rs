//! What holds for every virtio device that is saved and restored over the same guest memory.

use crate::state::Persist;
use crate::virtio::transport::mmio::QUEUE_NOTIFY;
use crate::virtio::{VirtioDevice, features};

use super::driver::{AGREED, GuestDriver, RUNNING, register};

type Make<'a> = &'a dyn Fn() -> Box<dyn VirtioDevice>;

/// Runs all checks; `make` and `queue` are as for [`check`](super::conformance::check) of the
/// conformance suite.
pub fn check(make: Make<'_>, queue: u32) {
    every_state_of_a_set_up_is_kept(make, queue);
    what_is_asked_for_around_a_save_is_done_once(make, queue);
    bad_bytes_are_no_state_or_another(make, queue);
    a_driver_s_features_have_to_be_there(make);
}

/// Nothing but all of a state is one.
///
/// # Panics
/// When a part of it or more than it is taken.
pub fn cuts_are_refused(part: &mut dyn Persist, state: &[u8]) {
    for len in 0..state.len() {
        let cut = state.get(..len).expect("a part");
        assert!(part.restore(cut).is_err(), "cut after {len} bytes");
    }
    let longer = [state, &[0]].concat();
    assert!(part.restore(&longer).is_err(), "a byte too many");
}

/// Saves a device and restores another in its place: it has the same state, which is given.
///
/// # Panics
/// When it has not.
pub fn moved(driver: &mut GuestDriver, make: Make<'_>) -> Vec<u8> {
    let state = driver.save();
    let restored = driver.restore(make, &state);
    assert_eq!(restored, Ok(()), "a saved state was refused");
    assert_eq!(
        driver.save(),
        state,
        "what was restored is not what was saved"
    );
    driver.resume();
    state
}

/// The steps of a driver up to its reset, with a save and a restore after each.
fn every_state_of_a_set_up_is_kept(make: Make<'_>, queue: u32) {
    let mut driver = GuestDriver::new(make());
    let offered = driver.offered();
    moved(&mut driver, make);
    driver.set(register::STATUS, 1);
    moved(&mut driver, make);
    driver.set(register::STATUS, 1 | 2);
    for page in [0, 1] {
        driver.set(register::DRIVER_FEATURES_SELECT, page);
        let part = u32::try_from(offered >> (32 * page) & 0xffff_ffff).expect("a page");
        driver.set(register::DRIVER_FEATURES, part);
        moved(&mut driver, make);
    }
    driver.set(register::STATUS, AGREED);
    assert_eq!(driver.get(register::STATUS), AGREED, "features were lost");
    moved(&mut driver, make);
    driver.set_up_queues();
    moved(&mut driver, make);
    driver.set(register::STATUS, RUNNING);
    driver.run();
    moved(&mut driver, make);
    assert_eq!(driver.get(register::STATUS), RUNNING);
    answer(&mut driver, queue);
    moved(&mut driver, make);
    driver.set(register::QUEUE_SELECT, queue);
    driver.set(register::QUEUE_READY, 0);
    moved(&mut driver, make);
    let request = [driver.holding(&[0; 16]), driver.room(513)];
    driver.ring(queue).add(&request);
    driver.kick(queue);
    assert!(
        !came_back(&mut driver, queue),
        "a queue that was taken back is used"
    );
    driver.start(u64::MAX);
    moved(&mut driver, make);
    driver.ring(queue).set_available_index(0x8000);
    driver.kick(queue);
    assert!(driver.needs_reset());
    moved(&mut driver, make);
    assert!(driver.needs_reset(), "a need of reset was lost");
    driver.start(u64::MAX);
    answer(&mut driver, queue);
    driver.reset();
    moved(&mut driver, make);
}

fn answer(driver: &mut GuestDriver, queue: u32) {
    let request = [driver.holding(&[0; 16]), driver.room(513)];
    let answer = driver.request(queue, &request);
    assert!(answer.is_some(), "the request was not answered");
}

fn came_back(driver: &mut GuestDriver, queue: u32) -> bool {
    driver.ring(queue).take_used().is_some()
}

/// Requests that came before the save, while nobody listened, and after it, around the ring.
fn what_is_asked_for_around_a_save_is_done_once(make: Make<'_>, queue: u32) {
    for accepted in [u64::MAX, !features::RING_EVENT_IDX] {
        let mut driver = GuestDriver::started_with(make(), accepted);
        for round in 0..200_u32 {
            let mut asked = Vec::new();
            let mut ask = |driver: &mut GuestDriver| {
                let request = [driver.holding(&[0; 16]), driver.room(513)];
                asked.push(driver.ring(queue).add(&request));
            };
            let (before, paused, after) = (round % 3, round % 4, round % 2);
            (0..before).for_each(|_| ask(&mut driver));
            driver.set(QUEUE_NOTIFY, queue);
            for _ in 0..round % 5 {
                driver.step();
            }
            let state = driver.save();
            (0..paused).for_each(|_| ask(&mut driver));
            // Lost with the device that it rings.
            driver.set(QUEUE_NOTIFY, queue);
            driver.restore(make, &state).expect("a good state");
            driver.interrupted();
            driver.resume();
            assert!(driver.interrupted(), "an interrupt on its way was lost");
            (0..after).for_each(|_| ask(&mut driver));
            driver.kick(queue);
            for head in asked {
                let used = driver.ring(queue).take_used();
                assert_eq!(used.map(|(head, _)| head), Some(head), "round {round}");
            }
            assert!(
                !came_back(&mut driver, queue),
                "answered twice, round {round}"
            );
        }
    }
}

/// What is cut or longer is no state. What has a bit changed may be one: of a device that works.
fn bad_bytes_are_no_state_or_another(make: Make<'_>, queue: u32) {
    let mut driver = GuestDriver::started(make());
    answer(&mut driver, queue);
    let state = driver.save();
    for len in 0..state.len() {
        let cut = state.get(..len).expect("a part");
        assert!(driver.restore(make, cut).is_err(), "cut after {len} bytes");
    }
    let longer = [&state[..], &[0]].concat();
    assert!(driver.restore(make, &longer).is_err(), "a byte too many");
    for at in 0..state.len() {
        let mut other = state.clone();
        let byte = other.get_mut(at).expect("a byte");
        *byte ^= 1 << (at % 8);
        if driver.restore(make, &other).is_ok() {
            driver.resume();
            driver.kick(queue);
            driver.start(u64::MAX);
            answer(&mut driver, queue);
        }
    }
}

/// A device here may offer less than where it was saved: of what its driver uses, all is there.
fn a_driver_s_features_have_to_be_there(make: Make<'_>) {
    let mut driver = GuestDriver::started(make());
    let offered = driver.offered();
    let state = driver.save();
    let text = state.to_vec();
    let place = text
        .windows(8)
        .position(|part| part == offered.to_le_bytes());
    let place = place.expect("the accepted features");
    let alien = 1 << 63;
    let other = (offered | alien).to_le_bytes();
    let mut changed = state;
    changed
        .get_mut(place..place + 8)
        .expect("eight bytes")
        .copy_from_slice(&other);
    let refused = driver
        .restore(make, &changed)
        .expect_err("a feature too many");
    assert_eq!(refused, crate::state::BadState::Features(alien));
}
