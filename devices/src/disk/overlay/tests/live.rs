//! Requests against what they must do, without a loss of power.

use super::kit::{FormulaBase, Random, SECTOR, base_sector, header, new_store, open, ram, spans};
use crate::disk::overlay::delta::Delta;
use crate::disk::overlay::store::Store;
use crate::disk::overlay::tests::kit::CrashStore;
use crate::ram::GuestRam;

const CAPACITY: u64 = 512 * 1003;
const BASE: u64 = 512 * 700;

fn delta(cluster_bytes: u32) -> Delta<CrashStore> {
    open(&new_store(&header(CAPACITY, BASE, cluster_bytes)))
}

fn read(delta: &mut Delta<CrashStore>, ram: &GuestRam, sector: u64, count: u64) -> Vec<u8> {
    let mut random = Random(sector ^ count);
    let spans = spans(&mut random, count * SECTOR);
    delta.read(sector * SECTOR, ram, &spans).unwrap();
    let mut bytes = Vec::new();
    for span in spans {
        let mut part = vec![0; usize::try_from(span.len).unwrap()];
        ram.read_bytes(span.at, &mut part).unwrap();
        bytes.extend(part);
    }
    bytes
}

fn original(sector: u64) -> [u8; 512] {
    if sector < BASE / SECTOR {
        base_sector(sector)
    } else {
        [0; 512]
    }
}

#[test]
fn a_new_delta_reads_as_its_base_and_zeroes_behind_it() {
    let ram = ram();
    let mut delta = delta(4096);
    let all = read(&mut delta, &ram, 0, CAPACITY / SECTOR);
    for (sector, bytes) in (0..).zip(all.chunks(512)) {
        assert_eq!(bytes, original(sector), "sector {sector}");
    }
    assert_eq!(delta.map().count(), 0);
}

#[test]
fn zeroes_hide_the_base_though_only_a_part_of_a_cluster_is_zeroed() {
    for unmap in [false, true] {
        for cluster_bytes in [4096, 65_536] {
            let ram = ram();
            let mut delta = delta(cluster_bytes);
            delta.write_zeroes(5 * SECTOR, 300 * SECTOR, unmap).unwrap();
            let all = read(&mut delta, &ram, 0, 320);
            for (sector, bytes) in (0..).zip(all.chunks(512)) {
                let zero = (5..305).contains(&sector);
                let expected = if zero { [0; 512] } else { original(sector) };
                assert_eq!(bytes, expected, "sector {sector}");
            }
        }
    }
}

#[test]
fn a_discard_of_less_than_a_cluster_copies_nothing() {
    let mut delta = delta(65_536);
    delta.discard(SECTOR, 100 * SECTOR).unwrap();
    assert_eq!(delta.map().count(), 0);
    delta.discard(SECTOR, 300 * SECTOR).unwrap();
    assert_eq!(delta.map().count(), 1);
    let ram = ram();
    assert_eq!(read(&mut delta, &ram, 128, 1), [0; 512]);
    assert_eq!(read(&mut delta, &ram, 127, 1), base_sector(127));
}

#[test]
fn a_write_that_fails_changes_no_map_and_no_other_sector() {
    let ram = ram();
    for budget in 0..4 {
        let store = new_store(&header(CAPACITY, BASE, 4096));
        let mut delta = open(&store);
        ram.write_bytes(0x1000, &[1; 20 * 512]).unwrap();
        store.fail_after(Some(budget));
        let span = crate::virtio::Span {
            at: 0x1000,
            len: 20 * 512,
        };
        let result = delta.write(3 * SECTOR, &ram, &[span]);
        store.fail_after(None);
        // A head, a middle and a tail are three writes.
        assert_eq!(result.is_ok(), budget >= 3);
        if let Err(failed) = result {
            assert_eq!(
                failed.done,
                [0, 5 * 512, 13 * 512][usize::try_from(budget).unwrap()]
            );
            assert_eq!(delta.map().count(), budget);
        }
        let all = read(&mut delta, &ram, 0, 40);
        for (sector, bytes) in (0..).zip(all.chunks(512)) {
            if !(3..23).contains(&sector) {
                assert_eq!(bytes, original(sector), "sector {sector}");
            }
        }
    }
}

/// The store of a file, unlike the one of these tests, can lose nothing with the process alone. So
/// it is looked at another way: a pipe cannot be flushed, and the host says so when it is asked.
#[test]
fn a_flush_reaches_the_host() {
    let (_reader, writer) = std::io::pipe().unwrap();
    let pipe = std::fs::File::from(std::os::fd::OwnedFd::from(writer));
    let refused = Some(rustix::io::Errno::INVAL.raw_os_error());
    assert_eq!(pipe.sync().unwrap_err().raw_os_error(), refused);
}

#[test]
fn after_a_flush_that_failed_none_promises_anything() {
    let store = new_store(&header(CAPACITY, BASE, 4096));
    let mut delta = open(&store);
    delta.write_zeroes(0, 8192, true).unwrap();
    store.fail_after(Some(0));
    assert!(delta.flush().is_err());
    store.fail_after(None);
    let error = delta.flush().unwrap_err();
    assert!(
        error.to_string().contains("an earlier flush failed"),
        "{error}"
    );
    // It works again once it is opened again.
    open(&store).flush().unwrap();
}

#[test]
fn a_delta_over_a_delta_reads_through_both() {
    let ram = ram();
    let mut lower = delta(65_536);
    lower.write_zeroes(10 * SECTOR, SECTOR, false).unwrap();
    lower.flush().unwrap();
    let header = header(CAPACITY, CAPACITY, 4096);
    let mut upper = Delta::load(new_store(&header), header, Box::new(lower), false).unwrap();
    ram.write_bytes(0x1000, &[7; 512]).unwrap();
    let span = crate::virtio::Span {
        at: 0x1000,
        len: 512,
    };
    upper.write(12 * SECTOR, &ram, &[span]).unwrap();
    let all = read(&mut upper, &ram, 0, 20);
    for (sector, bytes) in (0..).zip(all.chunks(512)) {
        let expected = match sector {
            10 => [0; 512],
            12 => [7; 512],
            _ => original(sector),
        };
        assert_eq!(bytes, expected, "sector {sector}");
    }
    assert_eq!(upper.map().count(), 1);
}

#[test]
fn bytes_put_from_the_monitor_are_like_writes() {
    let ram = ram();
    for cluster_bytes in [4096, 65_536] {
        let mut delta = delta(cluster_bytes);
        delta.put(3 * SECTOR, &[9; 512 * 200]).unwrap();
        delta.put(300 * SECTOR, &[0; 512 * 200]).unwrap();
        let all = read(&mut delta, &ram, 0, 600);
        for (sector, bytes) in (0..).zip(all.chunks(512)) {
            let expected = match sector {
                3..203 => [9; 512],
                300..500 => [0; 512],
                _ => original(sector),
            };
            assert_eq!(bytes, expected, "sector {sector}");
        }
    }
}

#[test]
fn a_base_that_ends_within_a_cluster() {
    let header = header(CAPACITY, 512 * 3, 4096);
    let base = Box::new(FormulaBase(512 * 3));
    let mut delta = Delta::load(new_store(&header), header, base, false).unwrap();
    let ram = ram();
    delta.write_zeroes(SECTOR, SECTOR, false).unwrap();
    let all = read(&mut delta, &ram, 0, 16);
    let filled: Vec<bool> = all.chunks(512).map(|bytes| bytes != [0; 512]).collect();
    let expected: Vec<bool> = (0..16).map(|sector| sector == 0 || sector == 2).collect();
    assert_eq!(filled, expected);
}
