use super::*;
use crate::inspect::Value;
use crate::testing::{Buffer, GuestDriver, conformance};

#[test]
fn conforms() {
    conformance::check(&|| Box::new(Rng::new()), 0);
}

/// Virtio 1.2, 5.4.6.1 and 5.4.6.2.
#[test]
fn fills_scattered_buffers_and_nothing_else() {
    let mut driver = GuestDriver::started(Box::new(Rng::new()));
    let buffers = [driver.room(1), driver.room(4096), driver.room(33)];
    let beyond = driver.holding(&[0xee; 16]);
    assert_eq!(driver.request(0, &buffers), Some(4130));
    let bytes: Vec<u8> = buffers.iter().flat_map(|b| driver.bytes(*b)).collect();
    let zeroes = bytes.iter().filter(|byte| **byte == 0).count();
    assert!(zeroes < 100, "{zeroes} zeroes in 4130 bytes are not random");
    assert_eq!(driver.bytes(beyond), [0xee; 16]);
}

/// Virtio 1.2, 5.4.6.2: fewer bytes than wanted may be given.
#[test]
fn a_huge_request_gets_a_bounded_answer() {
    let mut driver = GuestDriver::started(Box::new(Rng::new()));
    let most = u32::try_from(MOST_BYTES_A_REQUEST).unwrap();
    let huge = Buffer::writable(0x8_0000, 0x10_0000);
    assert_eq!(driver.request(0, &[huge]), Some(most));
}

/// Virtio 1.2, 5.4.6.1: a driver must not send these; they come back.
#[test]
fn requests_without_room_come_back_empty() {
    let mut driver = GuestDriver::started(Box::new(Rng::new()));
    let readable = driver.holding(&[1; 8]);
    assert_eq!(driver.request(0, &[readable]), Some(0));
    let empty = Buffer::writable(0x8_0000, 0);
    assert_eq!(driver.request(0, &[empty]), Some(0));
    assert!(!driver.needs_reset());
}

#[test]
fn many_requests_take_several_turns_and_one_interrupt_each() {
    let mut driver = GuestDriver::started(Box::new(Rng::new()));
    for _ in 0..64 {
        let room = Buffer::writable(0x8_0000, 0x10_0000);
        driver.ring(0).add(&[room]);
    }
    driver.set(crate::virtio::transport::mmio::QUEUE_NOTIFY, 0);
    driver.step();
    assert_eq!(driver.ring(0).used_index(), 4, "256 KiB a turn");
    assert!(driver.interrupted());
    driver.run();
    assert_eq!(driver.ring(0).used_index(), 64);
}

#[test]
fn reports_what_it_did() {
    let mut driver = GuestDriver::started(Box::new(Rng::new()));
    let room = driver.room(100);
    driver.request(0, &[room]);
    let handle = driver.handle.clone();
    let report = std::thread::spawn(move || handle.inspect());
    while !report.is_finished() {
        driver.run();
    }
    let report = report.join().unwrap().unwrap();
    assert_eq!(report.find("bytes"), Some(&Value::Number(100)));
    assert_eq!(report.find("requests"), Some(&Value::Number(1)));
}

/// A limit makes requests wait, and a new one lets them go on; nothing spins meanwhile.
#[test]
fn a_limit_is_kept() {
    use crate::limit::{BucketSpec, Limits};
    use crate::virtio::DeviceCommand;
    use std::time::Duration;

    let limit = |size, refill| Limits {
        bytes: Some(BucketSpec {
            size,
            burst: 0,
            refill: Duration::from_secs(refill),
        }),
        operations: None,
    };
    let mut driver = GuestDriver::started(Box::new(Rng::limited(limit(1000, 3600)).unwrap()));
    let room = driver.room(600);
    assert_eq!(driver.request(0, &[room]), Some(600));
    assert_eq!(driver.request(0, &[room]), Some(400), "what is left");
    assert_eq!(driver.request(0, &[room]), None);
    assert!(!driver.step(), "the device spins");
    let again = DeviceCommand::Limit(limit(500, 3600));
    driver.handle.send(again).unwrap();
    while driver.ring(0).used_index() < 3 {
        driver.run();
    }
    assert_eq!(driver.ring(0).take_used().map(|(_, len)| len), Some(500));
    // A limit on a device that had none, and none at all.
    let mut driver = GuestDriver::started(Box::new(Rng::new()));
    let some = DeviceCommand::Limit(limit(10, 3600));
    driver.handle.send(some).unwrap();
    driver.run();
    assert_eq!(driver.request(0, &[room]), Some(10));
    assert_eq!(driver.request(0, &[room]), None);
    let none = DeviceCommand::Limit(Limits::default());
    driver.handle.send(none).unwrap();
    while driver.ring(0).used_index() < 2 {
        driver.run();
    }
    assert_eq!(driver.ring(0).take_used().map(|(_, len)| len), Some(600));
    assert_eq!(driver.request(0, &[room]), Some(600));
}
