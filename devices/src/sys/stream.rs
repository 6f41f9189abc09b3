//! Stream sockets and guest memory: what one system call moves between them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::{EMPTY, PIECES, each_piece};
use crate::ram::GuestRam;
use crate::virtio::Span;

/// Pieces of guest memory, gathered for one system call.
pub(crate) struct Pieces<'a> {
    // Keeps the memory mapped that `list` points to.
    ram: &'a GuestRam,
    list: [libc::iovec; PIECES],
    count: usize,
}

impl<'a> Pieces<'a> {
    /// None yet.
    pub(crate) fn new(ram: &'a GuestRam) -> Self {
        let list = [EMPTY; PIECES];
        let count = 0;
        Self { ram, list, count }
    }

    /// Adds up to `max` of the bytes of `spans` that follow the first `skip`: how many, which is
    /// less than there are when no more pieces fit.
    pub(crate) fn add(&mut self, spans: &[Span], skip: u64, max: usize) -> usize {
        let mut added = 0_usize;
        let gathered = each_piece(self.ram, spans, skip, |slice| {
            let guard = slice.ptr_guard_mut();
            let wanted = guard.len().min(max.saturating_sub(added));
            match self.list.get_mut(self.count) {
                Some(piece) if wanted > 0 => {
                    piece.iov_base = guard.as_ptr().cast();
                    piece.iov_len = wanted;
                }
                _ => return false,
            }
            added = added.saturating_add(wanted);
            self.count += 1;
            true
        });
        // A span was found to be memory when its chain was taken. Were it none, what came before
        // it counts.
        drop(gathered);
        added
    }

    /// Fills the pieces, from the first on, with what a socket has now: how many bytes, zero at
    /// the end of the stream.
    pub(crate) fn receive(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let mut message = self.message();
        let fd = socket.as_fd().as_raw_fd();
        moved(|| {
            // SAFETY: the message names pieces of guest memory, which stays mapped as long as
            // `ram` is borrowed. Nobody holds references into guest memory, so that the kernel
            // may write it at any time, as the guest itself does.
            unsafe { libc::recvmsg(fd, &raw mut message, libc::MSG_DONTWAIT) }
        })
    }

    /// Sends as much of the pieces, from the first on, as a socket takes now: how many bytes.
    pub(crate) fn send(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let message = self.message();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let fd = socket.as_fd().as_raw_fd();
        moved(|| {
            // SAFETY: as above; the kernel only reads the pieces.
            unsafe { libc::sendmsg(fd, &raw const message, flags) }
        })
    }

    fn message(&mut self) -> libc::msghdr {
        libc::msghdr {
            msg_name: std::ptr::null_mut(),
            msg_namelen: 0,
            msg_iov: self.list.as_mut_ptr(),
            msg_iovlen: self.count,
            msg_control: std::ptr::null_mut(),
            msg_controllen: 0,
            msg_flags: 0,
        }
    }
}

/// Repeats a call that a signal interrupts.
pub(super) fn moved(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(count) => return Ok(count),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::testing::{SEAM, small_ram};

    #[test]
    fn bytes_go_through_scattered_memory_and_back() {
        let ram = small_ram();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        // The second span runs over the seam of two regions.
        let spans = [(0x1000, 10), (SEAM - 4, 8), (0x5000, 100)];
        let spans = spans.map(|(at, len)| Span { at, len });
        let text: Vec<u8> = (0..60).collect();
        theirs.write_all(&text).unwrap();
        let mut pieces = Pieces::new(&ram);
        assert_eq!(pieces.add(&spans, 5, 30), 30);
        assert_eq!(pieces.add(&spans, 100, usize::MAX), 18);
        assert_eq!(pieces.receive(&ours).unwrap(), 48);
        let mut pieces = Pieces::new(&ram);
        assert_eq!(pieces.add(&spans, 5, 30), 30);
        assert_eq!(pieces.send(&ours).unwrap(), 30);
        let mut back = [0; 30];
        theirs.read_exact(&mut back).unwrap();
        assert_eq!(back, text[..30]);
        drop(theirs);
        let mut rest = Pieces::new(&ram);
        rest.add(&spans, 0, 50);
        assert_eq!(rest.receive(&ours).unwrap(), 12);
        assert_eq!(rest.receive(&ours).unwrap(), 0);
        let gone = rest.send(&ours).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn no_more_pieces_than_fit() {
        let ram = small_ram();
        let spans = [Span { at: 0x1000, len: 3 }; PIECES + 7];
        let mut pieces = Pieces::new(&ram);
        assert_eq!(pieces.add(&spans, 0, usize::MAX), PIECES * 3);
        assert_eq!(pieces.add(&spans, 0, usize::MAX), 0);
    }
}
