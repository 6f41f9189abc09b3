//! The balloon against its driver (virtio 1.2, 5.5).

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::inspect::Value;
use crate::testing::driver::register;
use crate::testing::{AFTER_HOLE, Buffer, END, GuestDriver, HOLE, conformance, persistence};
use crate::virtio::features;

const INFLATE: u32 = 0;
const DEFLATE: u32 = 1;
const STATISTICS: u32 = 2;
const HINTS: u32 = 3;
const REPORTS: u32 = 4;

const MEMORY: u64 = 3 << 20;

fn settings() -> Settings {
    Settings {
        memory_bytes: MEMORY,
        deflate_on_oom: true,
        reporting: true,
        hinting: true,
        ..Settings::default()
    }
}

fn balloon(settings: Settings) -> Box<Balloon> {
    Box::new(Balloon::new(settings).unwrap())
}

fn driver() -> GuestDriver {
    GuestDriver::started(balloon(settings()))
}

fn report(driver: &mut GuestDriver) -> Report {
    let handle = driver.handle.clone();
    let report = std::thread::spawn(move || handle.inspect());
    while !report.is_finished() {
        driver.run();
    }
    report.join().unwrap().unwrap()
}

fn number(driver: &mut GuestDriver, name: &str) -> u64 {
    match report(driver).find(name) {
        Some(Value::Number(number)) => *number,
        other => panic!("{name}: {other:?}"),
    }
}

fn command(driver: &mut GuestDriver, command: BalloonCommand) -> Result<(), CommandError> {
    let answer = driver
        .handle
        .begin(DeviceCommand::Balloon(command))
        .unwrap();
    driver.run();
    answer.within(Duration::ZERO).unwrap()
}

fn numbers(driver: &mut GuestDriver, pages: &[u64]) -> Buffer {
    let word = |at: &u64| u32::try_from(at >> 12).unwrap().to_le_bytes();
    let bytes: Vec<u8> = pages.iter().flat_map(word).collect();
    driver.holding(&bytes)
}

#[test]
fn conforms() {
    conformance::check(&|| balloon(settings()), INFLATE);
    conformance::check(&|| balloon(Settings::default()), DEFLATE);
}

/// A request cannot name more than there is, so its rest is not looked at.
#[test]
fn requests_end_where_the_guest_has_no_more() {
    let mut driver = driver();
    let all = u32::try_from(MEMORY / PAGE_BYTES).unwrap();
    // The same list again and again, three times as long as it may be.
    let list = driver.holding(
        &(0x90..0x190_u32)
            .flat_map(u32::to_le_bytes)
            .collect::<Vec<_>>(),
    );
    let times = usize::try_from(all / 0x100).unwrap();
    assert_eq!(driver.request(INFLATE, &vec![list; times]), Some(0));
    assert_eq!(number(&mut driver, "malformed_requests"), 0);
    let repeated = number(&mut driver, "repeated_pages");
    assert_eq!(repeated, u64::from(all) - 0x100);
    assert_eq!(driver.request(INFLATE, &vec![list; 3 * times]), Some(0));
    assert_eq!(number(&mut driver, "malformed_requests"), 1);
    assert_eq!(
        number(&mut driver, "repeated_pages"),
        repeated + u64::from(all)
    );
    let free = Buffer::writable(AFTER_HOLE, 0x10_0000);
    assert_eq!(driver.request(REPORTS, &[free; 3]), Some(0));
    assert_eq!(number(&mut driver, "malformed_requests"), 1);
    assert_eq!(driver.request(REPORTS, &[free; 9]), Some(0));
    assert_eq!(number(&mut driver, "malformed_requests"), 2);
    assert_eq!(number(&mut driver, "reported_bytes"), 2 * MEMORY);
}

/// 5.5.6: what is given up reads as zeroes, and each page is counted once.
#[test]
fn pages_go_and_come_back() {
    let mut driver = driver();
    driver.ram.write_bytes(0x30_0000, &[0xaa; 0x3000]).unwrap();
    let pages = numbers(&mut driver, &[0x30_0000, 0x30_1000, 0x30_0000]);
    assert_eq!(driver.request(INFLATE, &[pages]), Some(0));
    assert!(driver.interrupted());
    assert_eq!(driver.ram.read::<u8>(0x30_1fff), Ok(0));
    assert_eq!(driver.ram.read::<u8>(0x30_2000), Ok(0xaa));
    assert_eq!(number(&mut driver, "ballooned_pages"), 2);
    assert_eq!(number(&mut driver, "discarded_bytes"), 0x2000);
    assert_eq!(number(&mut driver, "repeated_pages"), 1);
    let pages = numbers(&mut driver, &[0x30_0000, 0x30_2000]);
    assert_eq!(driver.request(DEFLATE, &[pages]), Some(0));
    assert_eq!(number(&mut driver, "ballooned_pages"), 1);
    assert_eq!(number(&mut driver, "unknown_pages"), 1);
    // A reset gives all of them back to the driver.
    driver.start(u64::MAX);
    assert_eq!(number(&mut driver, "ballooned_pages"), 0);
}

/// faults.md 96 and 97.
#[test]
fn odd_page_numbers_are_ignored_and_counted() {
    let mut driver = driver();
    let odd = [
        HOLE,
        END,
        0xd000_0000,
        0xfee0_0000,
        u64::from(u32::MAX) << 12,
    ];
    let pages = numbers(&mut driver, &odd);
    assert_eq!(driver.request(INFLATE, &[pages]), Some(0));
    assert_eq!(driver.request(DEFLATE, &[pages]), Some(0));
    assert_eq!(number(&mut driver, "invalid_pages"), 5);
    assert_eq!(number(&mut driver, "ballooned_pages"), 0);
    // Scattered, cut short, empty, for the device to write: whole numbers count, and all return.
    let page = 0x30_u32.to_le_bytes();
    let scattered = [
        driver.holding(&page[..1]),
        driver.holding(&page[1..]),
        driver.holding(&[0x31, 0, 0]),
    ];
    assert_eq!(driver.request(INFLATE, &scattered), Some(0));
    assert_eq!(number(&mut driver, "ballooned_pages"), 1);
    assert_eq!(number(&mut driver, "malformed_requests"), 1);
    let room = driver.room(16);
    assert_eq!(driver.request(INFLATE, &[room]), Some(0));
    assert_eq!(driver.request(INFLATE, &[Buffer::readable(0, 0)]), Some(0));
    assert_eq!(driver.bytes(room), [0; 16]);
    assert!(!driver.needs_reset());
}

/// faults.md 97: a driver that gives up its own rings finds them empty, and the device lives on.
#[test]
fn rings_in_the_balloon_are_survived() {
    for page in [0x1_0000, 0x1_1000, 0x1_2000, 0x8_0000] {
        let mut driver = driver();
        let pages = numbers(&mut driver, &[page]);
        driver.ring(INFLATE).add(&[pages]);
        driver.kick(INFLATE);
        driver.kick(INFLATE);
        driver.start(u64::MAX);
        let pages = numbers(&mut driver, &[0x30_0000]);
        assert_eq!(driver.request(INFLATE, &[pages]), Some(0));
    }
}

/// Many numbers take several turns.
#[test]
fn a_turn_is_bounded() {
    let mut driver = GuestDriver::started(balloon(Settings {
        memory_bytes: 1 << 30,
        ..settings()
    }));
    driver
        .ram
        .write_bytes(0x30_0000, &[0xff; 0x10_0000])
        .unwrap();
    for _ in 0..8 {
        driver
            .ring(INFLATE)
            .add(&[Buffer::readable(0x30_0000, 0x1_8000)]);
    }
    driver.set(crate::virtio::transport::mmio::QUEUE_NOTIFY, INFLATE);
    driver.step();
    assert_eq!(driver.ring(INFLATE).used_index(), 0, "16384 numbers a turn");
    driver.run();
    assert_eq!(driver.ring(INFLATE).used_index(), 8);
    assert_eq!(number(&mut driver, "invalid_pages"), 8 * 0x6000);
}

/// 5.5.4 and 5.5.6.1: the target is told, what the driver says of itself is bounded.
#[test]
fn targets_are_told_and_answers_are_bounded() {
    let mut driver = driver();
    assert_eq!(driver.config(0), 0);
    let target = |bytes| BalloonCommand::Target { bytes };
    command(&mut driver, target(1 << 20)).unwrap();
    assert_eq!(driver.config(0), 256);
    assert_eq!(driver.get(register::INTERRUPT_STATUS), 2);
    driver.set(register::INTERRUPT_ACKNOWLEDGE, 2);
    command(&mut driver, target(1 << 20)).unwrap();
    assert_eq!(driver.get(register::INTERRUPT_STATUS), 0, "no change");
    for (bytes, text) in [(MEMORY + 4096, "more than"), (4097, "whole number")] {
        let error = command(&mut driver, target(bytes)).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
    assert_eq!(number(&mut driver, "target_pages"), 256);
    for (actual, told) in [(256, 256), (u32::MAX, MEMORY >> 12)] {
        driver.set(0x104, actual);
        assert_eq!(driver.config(4), actual);
        assert_eq!(number(&mut driver, "actual_pages"), told);
    }
    // What the driver may not write stays, and a reset forgets what it wrote.
    driver.set(0x100, 7);
    driver.set(0x108, 7);
    assert_eq!((driver.config(0), driver.config(8)), (256, 0));
    driver.start(u64::MAX);
    assert_eq!((driver.config(0), driver.config(4)), (256, 0));
}

fn entry(tag: u16, value: u64) -> Vec<u8> {
    [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
}

/// 5.5.6.3: the buffer stays with the device until statistics are wanted.
#[test]
fn statistics_are_asked_for() {
    let mut driver = driver();
    let buffer = driver.holding(&[entry(4, 4096), entry(99, 1)].concat());
    assert_eq!(driver.request(STATISTICS, &[buffer]), None);
    assert_eq!(number(&mut driver, "statistics/free_memory"), 4096);
    assert!(!driver.interrupted() && !driver.step(), "idle");
    let often = BalloonCommand::StatisticsEvery(Duration::from_millis(1));
    command(&mut driver, often).unwrap();
    while driver.ring(STATISTICS).used_index() == 0 {
        driver.run();
    }
    assert_eq!(driver.ring(STATISTICS).take_used(), Some((0, 0)));
    assert!(driver.interrupted());
    command(&mut driver, BalloonCommand::StatisticsEvery(Duration::ZERO)).unwrap();
    // Too much of it, too many buffers: bounded, and the older ones come back.
    for len in [0x10_0000, 0, 9, 10] {
        driver
            .ring(STATISTICS)
            .add(&[Buffer::readable(0x8_0000, len)]);
    }
    driver.kick(STATISTICS);
    assert_eq!(driver.ring(STATISTICS).used_index(), 4);
    assert_eq!(number(&mut driver, "statistics/reports"), 5);
    // A driver without the queue is not asked.
    let mut driver = GuestDriver::started_with(balloon(settings()), !F_STATS_VQ);
    command(&mut driver, often).unwrap();
    assert!(!driver.step());
}

/// The buffer with the statistics, the pages and what the host asked for outlive a restore.
#[test]
fn a_balloon_is_saved_and_restored() {
    let make = || -> Box<dyn VirtioDevice> { balloon(settings()) };
    let mut driver = driver();
    let buffer = driver.holding(&entry(4, 4096));
    assert_eq!(driver.request(STATISTICS, &[buffer]), None);
    let pages = numbers(&mut driver, &[0x30_0000, 0x30_1000]);
    driver.request(INFLATE, &[pages]).unwrap();
    let target = BalloonCommand::Target { bytes: 1 << 20 };
    command(&mut driver, target).unwrap();
    driver.set(0x104, 2);
    let hint = BalloonCommand::StartHinting {
        acknowledge_on_stop: true,
    };
    command(&mut driver, hint).unwrap();
    persistence::moved(&mut driver, &make);
    assert_eq!((driver.config(0), driver.config(4)), (256, 2));
    assert_eq!(driver.config(8), 2, "the hinting command");
    assert_eq!(number(&mut driver, "statistics/free_memory"), 4096);
    assert_eq!(number(&mut driver, "ballooned_pages"), 2);
    assert_eq!(number(&mut driver, "target_bytes"), 1 << 20);
    let again = numbers(&mut driver, &[0x30_1000]);
    driver.request(INFLATE, &[again]).unwrap();
    assert_eq!(number(&mut driver, "repeated_pages"), 1);
    // The one buffer is asked for once, and a second restore changes nothing of that.
    persistence::moved(&mut driver, &make);
    let often = BalloonCommand::StatisticsEvery(Duration::from_millis(1));
    command(&mut driver, often).unwrap();
    while driver.ring(STATISTICS).used_index() == 0 {
        driver.run();
    }
    assert_eq!(driver.ring(STATISTICS).take_used(), Some((0, 0)));
    command(&mut driver, BalloonCommand::StatisticsEvery(Duration::ZERO)).unwrap();
    driver.run();
    assert_eq!(driver.ring(STATISTICS).take_used(), None);
}

/// A long request that was half done is done once more, and comes back once.
#[test]
fn a_request_under_way_is_done_after_a_restore() {
    let large = || Settings {
        memory_bytes: 1 << 30,
        ..settings()
    };
    let make = || -> Box<dyn VirtioDevice> { balloon(large()) };
    let mut driver = GuestDriver::started(make());
    let pages: Vec<u64> = (0x300..0x400).map(|page| page << 12).collect();
    let buffer = numbers(&mut driver, &pages);
    let head = driver.ring(INFLATE).add(&[buffer; 100]);
    driver.set(crate::virtio::transport::mmio::QUEUE_NOTIFY, INFLATE);
    driver.step();
    assert_eq!(driver.ring(INFLATE).used_index(), 0, "it is under way");
    persistence::moved(&mut driver, &make);
    assert_eq!(driver.ring(INFLATE).take_used(), Some((head, 0)));
    assert_eq!(driver.ring(INFLATE).take_used(), None);
    assert_eq!(number(&mut driver, "ballooned_pages"), 0x100);
}

/// 5.5.6.6: free pages go back; scattered ones and those over a seam too, their neighbours stay.
#[test]
fn reported_pages_go() {
    let mut driver = driver();
    driver.ram.write_bytes(0xc_0000, &[0xaa; 0x8_0000]).unwrap();
    let free = [
        Buffer::writable(0xc_0800, 0x2000),
        Buffer::writable(0xf_f000, 0x2000),
    ];
    assert_eq!(driver.request(REPORTS, &free), Some(0));
    assert_eq!(number(&mut driver, "discarded_bytes"), 0x3000);
    assert_eq!(number(&mut driver, "reported_bytes"), 0x4000);
    for (at, value) in [
        (0xc_0fff, 0xaa),
        (0xc_1000, 0),
        (0xc_2000, 0xaa),
        (0xf_f000, 0),
        (0x10_0fff, 0),
        (0x10_1000, 0xaa),
    ] {
        assert_eq!(driver.ram.read::<u8>(at), Ok(value), "{at:#x}");
    }
    // Nothing to discard, nothing wrong.
    let readable = driver.holding(&[1; 8]);
    assert_eq!(driver.request(REPORTS, &[readable]), Some(0));
}

/// 5.5.6.6.2: free pages that hold something else than zeroes must keep it.
#[test]
fn poisoned_pages_are_kept() {
    let mut driver = GuestDriver::new(balloon(settings()));
    for (poison, accepted, kept) in [
        (0xaa_u32, true, true),
        (0, true, false),
        (0xaa, false, false),
    ] {
        driver.reset();
        let mut features = driver.offered();
        if !accepted {
            features &= !F_PAGE_POISON;
        }
        assert!(driver.agree(features));
        driver.set(0x10c, poison);
        driver.set_up_queues();
        driver.set(register::STATUS, crate::testing::driver::RUNNING);
        driver.run();
        // Too late to change it.
        driver.set(0x10c, 0x55 ^ poison);
        driver.ram.write_bytes(0x30_0000, &[0xaa; 0x1000]).unwrap();
        let free = Buffer::writable(0x30_0000, 0x1000);
        assert_eq!(driver.request(REPORTS, &[free]), Some(0));
        let expected = if kept { 0xaa } else { 0 };
        assert_eq!(driver.ram.read::<u8>(0x30_0000), Ok(expected), "{poison}");
    }
    assert_eq!(number(&mut driver, "kept_poisoned_bytes"), 0x1000);
}

/// 5.5.6.5: hints count while the guest is at the host's command, and not a moment longer.
#[test]
fn hints_belong_to_a_command() {
    let mut driver = driver();
    let start = |acknowledge_on_stop| BalloonCommand::StartHinting {
        acknowledge_on_stop,
    };
    let free = Buffer::writable(0x30_0000, 0x1000);
    let hint = |driver: &mut GuestDriver| {
        driver.ram.write_bytes(0x30_0000, &[0xaa; 0x1000]).unwrap();
        assert_eq!(driver.request(HINTS, &[free]), Some(0));
        driver.ram.read::<u8>(0x30_0000) == Ok(0)
    };
    let say = |driver: &mut GuestDriver, command: u32| {
        let buffer = driver.holding(&command.to_le_bytes());
        assert_eq!(driver.request(HINTS, &[buffer]), Some(0));
    };
    assert!(!hint(&mut driver), "nobody asked");
    command(&mut driver, start(true)).unwrap();
    assert_eq!(driver.config(8), 2);
    assert_eq!(driver.get(register::INTERRUPT_STATUS) & 2, 2);
    assert!(!hint(&mut driver), "before the guest has begun");
    say(&mut driver, 1);
    assert!(!hint(&mut driver), "at another command");
    say(&mut driver, 2);
    assert!(hint(&mut driver));
    let short = driver.holding(&[2, 0, 0]);
    assert_eq!(driver.request(HINTS, &[short]), Some(0));
    assert_eq!(number(&mut driver, "malformed_requests"), 1);
    say(&mut driver, 0);
    assert_eq!(driver.config(8), 1, "let go at once");
    assert!(!hint(&mut driver), "after the end");
    command(&mut driver, start(false)).unwrap();
    assert_eq!(driver.config(8), 3);
    say(&mut driver, 3);
    assert!(hint(&mut driver));
    say(&mut driver, 0);
    assert_eq!(driver.config(8), 3, "kept until the host says so");
    command(&mut driver, BalloonCommand::StopHinting).unwrap();
    assert_eq!(driver.config(8), 1);
    assert_eq!(number(&mut driver, "hinting/host_cmd"), 1);
    assert_eq!(number(&mut driver, "hinted_bytes"), 0x2000);
    // A driver that does not know hints, and none at all.
    driver.start(!F_FREE_PAGE_HINT);
    assert!(matches!(
        command(&mut driver, start(true)),
        Err(CommandError::NoDriver)
    ));
    command(&mut driver, BalloonCommand::NeedDriver).unwrap();
    driver.reset();
    for asked in [BalloonCommand::StopHinting, BalloonCommand::NeedDriver] {
        assert!(matches!(
            command(&mut driver, asked),
            Err(CommandError::NoDriver)
        ));
    }
}

#[test]
fn what_is_not_asked_for_is_not_offered() {
    for (reporting, hinting, queues) in [(false, false, 3), (false, true, 4), (true, false, 5)] {
        let some = Settings {
            reporting,
            hinting,
            ..Settings::default()
        };
        let balloon = Balloon::new(some).unwrap();
        let identity = balloon.identity();
        assert_eq!(identity.queue_sizes.len(), queues);
        assert_eq!(identity.features & F_PAGE_REPORTING != 0, reporting);
        assert_eq!(identity.features & F_DEFLATE_ON_OOM, 0);
    }
    let mut driver = GuestDriver::started(balloon(Settings::default()));
    let refused = command(&mut driver, BalloonCommand::StopHinting);
    assert!(matches!(refused, Err(CommandError::NotSupported)));
    let answer = driver.handle.begin(DeviceCommand::Rescan).unwrap();
    driver.run();
    assert!(answer.within(Duration::ZERO).unwrap().is_err());
}

#[test]
fn missing_queues_need_a_reset() {
    for missing in [INFLATE, DEFLATE] {
        let mut driver = GuestDriver::new(balloon(settings()));
        assert!(driver.agree(features::VERSION_1));
        driver.set_up_queues();
        driver.set(register::QUEUE_SELECT, missing);
        driver.set(register::QUEUE_READY, 0);
        driver.set(register::STATUS, crate::testing::driver::RUNNING);
        driver.run();
        assert!(driver.needs_reset());
        driver.start(u64::MAX);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever comes in whichever queue: every buffer comes back (but one of the statistics),
    /// only memory that was named is touched, and the device is alive afterwards.
    #[test]
    fn anything_is_survived(
        requests in prop::collection::vec(
            (
                0_u32..5,
                prop::collection::vec(
                    (0x30_0000_u64..0x3f_0000, 0_u32..0x4000, any::<bool>()),
                    1..6,
                ),
            ),
            1..30,
        )
    ) {
        let mut driver = driver();
        let mut sent = [0_u16; 5];
        for (queue, mut buffers) in requests {
            buffers.sort_by_key(|buffer| buffer.2);
            let buffer = |(at, len, writable)| Buffer { at, len, writable };
            let buffers: Vec<_> = buffers.into_iter().map(buffer).collect();
            driver.ring(queue).add(&buffers);
            sent[queue as usize] += 1;
            driver.kick(queue);
        }
        for (queue, sent) in (0..).zip(sent) {
            let back = driver.ring(queue).used_index();
            let held = u16::from(queue == STATISTICS && sent > 0);
            prop_assert_eq!(back + held, sent);
        }
        prop_assert!(!driver.needs_reset());
        driver.start(u64::MAX);
        let pages = numbers(&mut driver, &[0x30_0000]);
        prop_assert_eq!(driver.request(INFLATE, &[pages]), Some(0));
    }
}
