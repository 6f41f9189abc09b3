//! A driver and a device on two threads, each asleep whenever it has nothing to do: a doorbell or
//! an interrupt that is lost leaves one of them asleep for ever.

use std::sync::atomic::fence;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::*;

const REQUESTS: u32 = 20_000;
/// Far longer than anything takes that is not lost.
const LOST: Duration = Duration::from_secs(20);

/// The driver of 2.7.13 and 2.7.14: keeps one to eight requests at the device. It hesitates a
/// little longer each time, so that its next request comes at every moment of the device's going
/// to sleep.
fn drive(mut ring: Ring, line: &IrqLine, bell: &Sender<()>) {
    let mut sent = 0_u16;
    for number in 0..REQUESTS {
        // Mostly one: then the device goes to sleep after each request.
        let depth = if number % 64 < 48 { 1 } else { number % 8 + 1 };
        wait_for_used(&ring, line, sent, u16::try_from(depth - 1).unwrap());
        for _ in 0..number % 97 {
            std::hint::spin_loop();
        }
        ring.add(&[Buffer::readable(DATA, 1)]);
        fence(Ordering::SeqCst);
        if ring.available_event() == sent {
            // The device is gone only when its side has failed.
            let _ = bell.send(());
        }
        sent = sent.wrapping_add(1);
    }
    wait_for_used(&ring, line, sent, 0);
}

/// Waits until at most `most` of the requests before `sent` are at the device.
fn wait_for_used(ring: &Ring, line: &IrqLine, sent: u16, most: u16) {
    let back = || sent.wrapping_sub(ring.used_index()) <= most;
    // A while awake, so that the device is met on its way to sleep.
    for _ in 0..200 {
        if back() {
            return;
        }
        std::hint::spin_loop();
    }
    while !back() {
        ring.set_used_event(sent.wrapping_sub(most).wrapping_sub(1));
        fence(Ordering::SeqCst);
        if !back() {
            assert!(interrupted(line), "a lost interrupt");
        }
    }
}

fn interrupted(line: &IrqLine) -> bool {
    let asleep = Instant::now();
    while !line.take() {
        if asleep.elapsed() > LOST {
            return false;
        }
        std::thread::yield_now();
    }
    true
}

fn serve(queue: &mut Virtqueue, bell: &Receiver<()>) {
    let mut served = 0;
    loop {
        while let Some(chain) = queue.pop().unwrap() {
            queue.complete(chain, 0);
            served += 1;
            if served % 3 == 0 {
                queue.notify();
            }
        }
        queue.notify();
        if served == REQUESTS {
            return;
        }
        // Awake for a while too: a look at the bell costs less than the driver's hesitation.
        let asleep = Instant::now();
        while bell.try_recv().is_err() {
            assert!(asleep.elapsed() < LOST, "a lost doorbell after {served}");
            std::hint::spin_loop();
        }
        while bell.try_recv().is_ok() {}
    }
}

/// 2.7.7 and 2.7.10: whoever goes to sleep says so first and then looks once more.
#[test]
fn no_notification_is_lost() {
    let Rig {
        ring,
        mut queue,
        line,
        ..
    } = rig();
    let (bell, rings) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| drive(ring, &line, &bell));
        serve(&mut queue, &rings);
    });
}
