//! The ring on files and pipes, which wait and come short as long as a test wants.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use super::*;
use crate::testing::{SEAM, small_ram};

/// A ring of so many entries, unless the host has none.
fn ring(file: &impl AsFd, depth: u16) -> Option<Ring> {
    match Ring::new(file, depth) {
        Ok(ring) => Some(ring),
        Err(error) => {
            harness::skip::skipped(&format!("the host has no io_uring: {error}"));
            None
        }
    }
}

fn read(ring: &mut Ring, tag: u16, ram: &GuestRam, spans: &[Span]) -> bool {
    let transfer = Transfer {
        direction: Direction::Read,
        offset: 0,
        skip: 0,
        ram,
        spans,
    };
    ring.transfer(tag, transfer)
}

fn pipe() -> (OwnedFd, File) {
    let (ours, theirs) = rustix::pipe::pipe().unwrap();
    (ours, theirs.into())
}

/// Waits for the next end.
fn next(ring: &mut Ring) -> Ended {
    loop {
        if let Some(ended) = ring.next_ended() {
            return ended;
        }
        ring.submit().unwrap();
        ring.wait(Duration::from_secs(1));
    }
}

#[test]
fn a_tag_is_free_again_when_its_end_was_seen() {
    let file = tempfile::tempfile().unwrap();
    let Some(mut ring) = ring(&file, 2) else {
        return;
    };
    assert!(ring.sync(1));
    assert!(!ring.sync(1), "in use");
    assert!(!ring.sync(2), "out of range");
    assert!(ring.sync(0));
    ring.submit().unwrap();
    for _ in 0..2 {
        assert!(next(&mut ring).result.is_ok());
    }
    assert_eq!(ring.running(), 0);
    assert!(ring.sync(1));
    assert_eq!(next(&mut ring).tag, 1);
}

#[test]
fn what_is_no_memory_is_not_taken() {
    let (ours, _theirs) = pipe();
    let Some(mut ring) = ring(&ours, 2) else {
        return;
    };
    let outside = Span {
        at: crate::testing::HOLE - 4,
        len: 8,
    };
    assert!(!read(&mut ring, 0, &small_ram(), &[outside]));
    assert!(!read(&mut ring, 0, &small_ram(), &[]));
    assert_eq!(ring.running(), 0);
}

/// What comes in pieces is gone on with, over the seam of two regions, until it is whole.
#[test]
fn short_transfers_go_on() {
    let (ours, mut theirs) = pipe();
    let ram = small_ram();
    let Some(mut ring) = ring(&ours, 2) else {
        return;
    };
    let spans = [(0x1000, 3), (SEAM - 5, 10), (0x2000, 7)].map(|(at, len)| Span { at, len });
    theirs.write_all(&[1; 5]).unwrap();
    assert!(read(&mut ring, 1, &ram, &spans));
    ring.submit().unwrap();
    while !ring.has_more() {
        assert!(ring.next_ended().is_none());
        ring.wait(Duration::from_secs(1));
    }
    assert_eq!(ring.running(), 1);
    theirs.write_all(&[2; 15]).unwrap();
    let ended = next(&mut ring);
    assert_eq!((ended.tag, ended.done), (1, 20));
    ended.result.unwrap();
    let mut found = [0; 10];
    ram.read_bytes(SEAM - 5, &mut found).unwrap();
    assert_eq!(found, [1, 1, 2, 2, 2, 2, 2, 2, 2, 2]);
}

/// The end of what can be read is told with how far it came.
#[test]
fn the_end_of_a_file_ends_a_read() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[9; 700]).unwrap();
    let Some(mut ring) = ring(&file, 2) else {
        return;
    };
    let span = [Span { at: 0, len: 1024 }];
    assert!(read(&mut ring, 0, &small_ram(), &span));
    let ended = next(&mut ring);
    assert_eq!(ended.done, 700);
    let kind = ended.result.unwrap_err().kind();
    assert_eq!(kind, io::ErrorKind::UnexpectedEof);
}

/// What is given up ends with an error, is not tried again, and leaves the ring in order.
#[test]
fn what_is_given_up_ends() {
    let (ours, mut theirs) = pipe();
    let ram = small_ram();
    let Some(mut ring) = ring(&ours, 4) else {
        return;
    };
    let span = [Span { at: 0x1000, len: 8 }];
    // One that has not begun, one that waits, and one that was gone on with on a thread.
    theirs.write_all(&[1; 3]).unwrap();
    for tag in 0..2 {
        assert!(read(&mut ring, tag, &ram, &span));
    }
    ring.submit().unwrap();
    while !ring.has_more() {
        assert!(ring.next_ended().is_none());
        ring.wait(Duration::from_secs(1));
    }
    ring.submit().unwrap();
    assert!(read(&mut ring, 2, &ram, &span));
    ring.cancel();
    for _ in 0..3 {
        let ended = next(&mut ring);
        assert!(ended.result.is_err(), "{}", ended.tag);
    }
    assert_eq!((ring.running(), ring.has_more()), (0, false));
    theirs.write_all(&[5; 8]).unwrap();
    assert!(read(&mut ring, 0, &ram, &span));
    let ended = next(&mut ring);
    assert_eq!((ended.done, ended.result.is_ok()), (8, true));
}

/// What was never submitted is not begun by the ring's end, and is not waited for.
#[test]
fn the_end_of_a_ring_begins_nothing() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[9; 512]).unwrap();
    let ram = small_ram();
    let Some(mut ring) = ring(&file, 4) else {
        return;
    };
    let transfer = Transfer {
        direction: Direction::Write,
        offset: 0,
        skip: 0,
        ram: &ram,
        spans: &[Span { at: 0, len: 512 }],
    };
    assert!(ring.transfer(3, transfer));
    drop(ring);
    let mut found = [0; 512];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, 0).unwrap();
    assert_eq!(found, [9; 512]);
}
