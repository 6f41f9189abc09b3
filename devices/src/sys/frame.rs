//! Whole frames between descriptors that keep them apart and memory: the guest's, and a few bytes
//! of the host's in front.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::stream::moved;
use super::{EMPTY, gather};
use crate::disk::spans::total;
use crate::net::{Received, Sent};
use crate::ram::GuestRam;
use crate::virtio::Span;

/// Pieces of a frame: most have a few, those of 64 KiB in small buffers some dozens, and the kernel
/// takes no more than 1024.
const FEW_PIECES: usize = 8;
const SOME_PIECES: usize = 64;
const MOST_PIECES: usize = 1024;
/// Of them, the host's own, and one for a span that runs over the seam of two regions.
const BESIDE: usize = 3;

/// How long a list of pieces is made: a short one is made quickly.
enum Pieces {
    Few,
    Some,
    Many,
}

impl Pieces {
    fn of(spans: &[Span]) -> Self {
        let wanted = spans.len().saturating_add(BESIDE);
        if wanted <= FEW_PIECES {
            Self::Few
        } else if wanted <= SOME_PIECES {
            Self::Some
        } else {
            Self::Many
        }
    }
}

/// Receives one frame from a tap or a socket that keeps messages apart: `head`, then the spans of
/// guest memory. No more than about a thousand pieces of it are filled.
///
/// # Errors
/// The host's; a frame that it had is lost.
pub fn receive_from(
    fd: impl AsFd,
    head: &mut [u8],
    ram: &GuestRam,
    spans: &[Span],
) -> io::Result<Received> {
    let fd = fd.as_fd();
    match Pieces::of(spans) {
        Pieces::Few => receive::<FEW_PIECES>(fd, head, ram, spans),
        Pieces::Some => receive::<SOME_PIECES>(fd, head, ram, spans),
        Pieces::Many => receive::<MOST_PIECES>(fd, head, ram, spans),
    }
}

/// Sends one frame to a tap or a socket that keeps messages apart: `head`, then the spans of guest
/// memory.
///
/// # Errors
/// The host's; [`io::ErrorKind::InvalidInput`] for a frame in more pieces than the kernel takes.
pub fn send_to(fd: impl AsFd, head: &[u8], ram: &GuestRam, spans: &[Span]) -> io::Result<Sent> {
    let fd = fd.as_fd();
    match Pieces::of(spans) {
        Pieces::Few => send::<FEW_PIECES>(fd, head, ram, spans),
        Pieces::Some => send::<SOME_PIECES>(fd, head, ram, spans),
        Pieces::Many => send::<MOST_PIECES>(fd, head, ram, spans),
    }
}

fn receive<const MOST: usize>(
    fd: BorrowedFd<'_>,
    head: &mut [u8],
    ram: &GuestRam,
    spans: &[Span],
) -> io::Result<Received> {
    let mut list = [EMPTY; MOST];
    let (count, room) = gather_behind(ram, spans, piece(head), &mut list)?;
    // A byte more than there is room for: a frame that reaches it was too large.
    let mut beyond = [0_u8; 1];
    let mut used = count;
    if let Some(last) = list.get_mut(count) {
        *last = piece(&mut beyond);
        used += 1;
    }
    let count = i32::try_from(used).map_err(|_| io::ErrorKind::InvalidInput)?;
    let (fd, list) = (fd.as_raw_fd(), list.as_ptr());
    let got = moved(|| {
        // SAFETY: the first and the last piece are the exclusively borrowed `head` and `beyond`.
        // The others come from slices of guest memory, which stays mapped as long as `ram` lives;
        // nobody holds references into it, so that the kernel may write it at any time, as the
        // guest itself does.
        unsafe { libc::readv(fd, list, count) }
    });
    match got {
        Ok(0) => Ok(Received::Closed),
        Ok(bytes) if bytes > room => Ok(Received::TooLarge),
        Ok(bytes) => Ok(Received::Frame(bytes)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Received::Nothing),
        Err(error) => Err(error),
    }
}

fn send<const MOST: usize>(
    fd: BorrowedFd<'_>,
    head: &[u8],
    ram: &GuestRam,
    spans: &[Span],
) -> io::Result<Sent> {
    let mut list = [EMPTY; MOST];
    let first = libc::iovec {
        iov_base: head.as_ptr().cast_mut().cast(),
        iov_len: head.len(),
    };
    let (count, bytes) = gather_behind(ram, spans, first, &mut list)?;
    let wanted = total(spans).saturating_add(head.len() as u64);
    let count = i32::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
    if bytes as u64 != wanted {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let (fd, list) = (fd.as_raw_fd(), list.as_ptr());
    let sent = moved(|| {
        // SAFETY: as above; the kernel only reads the pieces, the first of which is `head`.
        unsafe { libc::writev(fd, list, count) }
    });
    match sent {
        // Such descriptors take all of a frame or nothing.
        Ok(_) => Ok(Sent::Whole),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Sent::Full),
        Err(error) => Err(error),
    }
}

fn piece(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

/// Fills `list` with the host's piece and as many of guest memory as fit, one place left free:
/// how many, and how many bytes they are.
fn gather_behind(
    ram: &GuestRam,
    spans: &[Span],
    first: libc::iovec,
    list: &mut [libc::iovec],
) -> io::Result<(usize, usize)> {
    let Some(([front, places @ ..], [_free])) = list.split_last_chunk_mut() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    *front = first;
    let count = gather(ram, spans, 0, places)?;
    let bytes = places.iter().take(count).map(|piece| piece.iov_len);
    let bytes = bytes.fold(first.iov_len, usize::saturating_add);
    Ok((count.saturating_add(1), bytes))
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::testing::{HOLE, SEAM, small_ram};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn spans(list: &[(u64, u32)]) -> Vec<Span> {
        list.iter().map(|&(at, len)| Span { at, len }).collect()
    }

    #[test]
    fn frames_go_through_scattered_memory_and_back() {
        let ram = small_ram();
        let (ours, theirs) = pair();
        let frame: Vec<u8> = (0..200).collect();
        // The second span runs over the seam of two regions.
        let room = spans(&[(0x1000, 10), (SEAM - 4, 8), (0x5000, 1), (0x6000, 400)]);
        let mut head = [0; 12];
        let empty = receive_from(&ours, &mut head, &ram, &room).unwrap();
        assert_eq!(empty, Received::Nothing);
        for _ in 0..2 {
            rustix::io::write(&theirs, &frame).unwrap();
        }
        let got = receive_from(&ours, &mut head, &ram, &room).unwrap();
        assert_eq!(got, Received::Frame(200));
        assert_eq!(head, frame[..12]);
        let mut back = [0; 8];
        ram.read_bytes(SEAM - 4, &mut back).unwrap();
        assert_eq!(back, frame[22..30]);
        assert_eq!(ram.read::<u8>(0x5000), Ok(30));
        // What was received is sent as it is.
        let filled = spans(&[(0x1000, 10), (SEAM - 4, 8), (0x5000, 1), (0x6000, 169)]);
        assert_eq!(send_to(&ours, &head, &ram, &filled).unwrap(), Sent::Whole);
        let mut echo = [0; 300];
        assert_eq!(rustix::io::read(&theirs, &mut echo).unwrap(), 200);
        assert_eq!(echo[..200], frame);
        // All into the host's memory, and nothing from the other end any more.
        let mut whole = [0; 200];
        let got = receive_from(&ours, &mut whole, &ram, &[]).unwrap();
        assert_eq!((got, &whole[..]), (Received::Frame(200), &frame[..]));
        drop(theirs);
        let got = receive_from(&ours, &mut head, &ram, &room).unwrap();
        assert_eq!(got, Received::Closed);
        assert!(send_to(&ours, &head, &ram, &filled).is_err());
    }

    #[test]
    fn a_frame_that_is_too_large_is_told_from_one_that_just_fits() {
        let ram = small_ram();
        let (ours, theirs) = pair();
        for count in [1_usize, 3, 5, 6, 40, 61, 62, 500, 1021] {
            let room = vec![Span { at: 0x1000, len: 3 }; count];
            for (more, fits) in [(0, true), (1, false), (9, false)] {
                rustix::io::write(&theirs, &vec![7; 12 + 3 * count + more]).unwrap();
                let got = receive_from(&ours, &mut [0; 12], &ram, &room).unwrap();
                let expected = match fits {
                    true => Received::Frame(12 + 3 * count),
                    false => Received::TooLarge,
                };
                assert_eq!(got, expected, "{count} pieces, {more} bytes more");
            }
        }
    }

    #[test]
    fn what_the_kernel_does_not_take_is_said() {
        let ram = small_ram();
        let (ours, theirs) = pair();
        let many = vec![Span { at: 0x1000, len: 1 }; MOST_PIECES];
        let error = send_to(&ours, &[0; 12], &ram, &many).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        let hole = spans(&[(HOLE, 1)]);
        assert!(send_to(&ours, &[0; 12], &ram, &hole).is_err());
        assert!(receive_from(&ours, &mut [0; 12], &ram, &hole).is_err());
        let large = spans(&[(0x1000, 60_000)]);
        let sent = std::iter::from_fn(|| match send_to(&ours, &[0; 12], &ram, &large) {
            Ok(Sent::Whole) => Some(()),
            Ok(Sent::Full) => None,
            Err(error) => panic!("{error}"),
        });
        assert!(sent.count() > 0);
        rustix::io::read(&theirs, &mut [0; 64]).unwrap();
        assert_eq!(send_to(&ours, &[0; 12], &ram, &large).unwrap(), Sent::Whole);
    }
}
