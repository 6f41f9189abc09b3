//! What waits, what is dropped and what stays unread, for a guest that never reads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;

#[derive(Clone)]
struct Source {
    left: Arc<Mutex<VecDeque<u8>>>,
    escapes: bool,
}

impl AsRawFd for Source {
    fn as_raw_fd(&self) -> RawFd {
        -1
    }
}

impl ConsoleSource for Source {
    fn read(&mut self, room: usize, bytes: &mut Vec<u8>) -> bool {
        let mut left = self.left.lock().unwrap();
        let len = room.min(left.len());
        bytes.extend(left.drain(..len));
        len > 0
    }

    fn has_escapes(&self) -> bool {
        self.escapes
    }
}

fn buffer(text: &[u8], escapes: bool) -> (InputBuffer, Source) {
    let source = Source {
        left: Arc::new(Mutex::new(text.iter().copied().collect())),
        escapes,
    };
    (InputBuffer::new(Box::new(source.clone())), source)
}

fn text(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

#[test]
fn a_guest_that_never_reads_has_bounded_input() {
    const ROOM: usize = 64;
    for len in [0, 1, 63, 64, 65, 4096, 4097, 65_536, 65_537, 200_000] {
        let (mut typed, source) = buffer(&text(len), true);
        while typed.wants(0) {
            typed.read(0);
        }
        assert_eq!(source.left.lock().unwrap().len(), 0, "all of {len} is read");
        let kept = len.min(TYPED_WAITING);
        assert_eq!(typed.pending(), &text(len)[..kept], "{len}");
        assert_eq!(typed.dropped(), (len - kept) as u64, "{len}");

        let (mut piped, source) = buffer(&text(len), false);
        while piped.wants(ROOM.saturating_sub(piped.pending().len())) {
            piped.read(ROOM.saturating_sub(piped.pending().len()));
        }
        piped.read(0);
        let kept = len.min(ROOM);
        assert_eq!(piped.pending(), &text(len)[..kept], "{len}");
        assert_eq!(source.left.lock().unwrap().len(), len - kept, "{len}");
        assert_eq!(piped.dropped(), 0);
    }
}

proptest! {
    /// A pipe loses nothing, whatever the guest takes when.
    #[test]
    fn a_pipe_is_whole(len in 0..10_000_usize, takes: Vec<u16>) {
        let (mut piped, _) = buffer(&text(len), false);
        let mut got = Vec::new();
        for take in takes.into_iter().chain(std::iter::repeat_n(u16::MAX, 200)) {
            piped.read(64_usize.saturating_sub(piped.pending().len()));
            let take = usize::from(take).min(piped.pending().len());
            got.extend_from_slice(&piped.pending()[..take]);
            piped.taken(take);
        }
        prop_assert_eq!(got, text(len));
    }
}

#[test]
fn what_is_typed_after_the_guest_came_back_arrives() {
    let (mut typed, source) = buffer(&text(TYPED_WAITING + CHUNK), true);
    for _ in 0..=TYPED_WAITING / CHUNK {
        typed.read(0);
    }
    assert_eq!(typed.dropped(), CHUNK as u64);
    typed.taken(TYPED_WAITING - 1);
    source.left.lock().unwrap().extend(b"more");
    typed.read(0);
    assert_eq!(typed.pending().len(), 5);
    assert!(typed.pending().ends_with(b"more"));
    assert_eq!(typed.dropped(), CHUNK as u64);
}
