//! The socket of passt: a stream on which each frame follows its length in four bytes, the highest
//! first. Frames have no header of virtio there, so that nothing is left to the other side.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};

use super::{HEADER_BYTES, Link, MOST_FRAME_BYTES, Offloads, Received, Sent};
use crate::host::reason;
use crate::ram::GuestRam;
use crate::virtio::Span;

const LENGTH_BYTES: usize = 4;
/// The header of a frame that is finished and lies in one buffer.
const PLAIN: [u8; HEADER_BYTES] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// A socket that passt doesn't answer.
#[derive(Debug, thiserror::Error)]
#[error("passt {path}: can't be reached: {}", reason(cause))]
pub struct PasstError {
    /// The socket's path.
    pub path: String,
    /// The host's reason.
    pub cause: io::Error,
}

/// A network behind passt.
#[derive(Debug)]
pub struct Passt {
    socket: OwnedFd,
    mtu: u16,
    /// What came of the frame under way, its length in front.
    coming: Vec<u8>,
    /// A frame that the socket took a part of: all of it, and how much has gone.
    going: (Vec<u8>, usize),
}

impl Passt {
    /// Connects to passt's socket at `path`; packets are of up to `mtu` bytes.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(path: &Path, mtu: u16) -> Result<Self, PasstError> {
        let open = || {
            let flags = SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(socket)
        };
        let socket = open().map_err(|cause: Errno| PasstError {
            path: path.display().to_string(),
            cause: cause.into(),
        })?;
        Ok(Self::new(socket, mtu))
    }

    fn new(socket: OwnedFd, mtu: u16) -> Self {
        Self {
            socket,
            mtu,
            coming: Vec::new(),
            going: (Vec::new(), 0),
        }
    }

    /// How many bytes the frame under way has with its length, or the length alone while that is
    /// not whole; none when there is no such frame.
    fn wanted(&self) -> Option<usize> {
        let Some(length) = self.coming.first_chunk::<LENGTH_BYTES>() else {
            return Some(LENGTH_BYTES);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let fits = (1..=MOST_FRAME_BYTES).contains(&length);
        fits.then(|| LENGTH_BYTES.saturating_add(length))
    }

    /// Takes what there is of the frame under way and nothing of the next one, so that the
    /// descriptor tells of that: true when it is whole.
    fn fill(&mut self) -> io::Result<Option<bool>> {
        loop {
            let Some(wanted) = self.wanted() else {
                // The two sides no longer agree where frames begin.
                return Ok(None);
            };
            let have = self.coming.len();
            if have == wanted && have > LENGTH_BYTES {
                return Ok(Some(true));
            }
            self.coming.resize(wanted, 0);
            let rest = self.coming.get_mut(have..).unwrap_or_default();
            let came = recv(&self.socket, rest, RecvFlags::DONTWAIT);
            let bytes = came.map_or(0, |(bytes, _)| bytes);
            self.coming.truncate(have.saturating_add(bytes));
            match came {
                Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(None),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Some(false)),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Sends what is left of a frame: true when all of it has gone.
    fn flush(&mut self) -> io::Result<bool> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            let (frame, gone) = &self.going;
            let rest = frame.get(*gone..).unwrap_or_default();
            if rest.is_empty() {
                self.going.0.clear();
                self.going.1 = 0;
                return Ok(true);
            }
            match send(&self.socket, rest, flags) {
                Ok(bytes) => self.going.1 = gone.saturating_add(bytes),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Copies a frame to `head` and then to guest memory: false when it does not fit.
fn place(frame: &[u8], head: &mut [u8], ram: &GuestRam, spans: &[Span]) -> io::Result<bool> {
    let (header, front) = head.split_at_mut(HEADER_BYTES.min(head.len()));
    header.copy_from_slice(PLAIN.get(..header.len()).unwrap_or_default());
    let (first, mut rest) = frame.split_at(front.len().min(frame.len()));
    front
        .iter_mut()
        .zip(first)
        .for_each(|(to, byte)| *to = *byte);
    for span in spans {
        let len = usize::try_from(span.len).unwrap_or(usize::MAX);
        let (part, after) = rest.split_at(len.min(rest.len()));
        let outside = |_| io::Error::from(io::ErrorKind::InvalidInput);
        ram.write_bytes(span.at, part).map_err(outside)?;
        rest = after;
    }
    Ok(rest.is_empty())
}

impl Link for Passt {
    fn describe(&self) -> String {
        "passt".to_owned()
    }

    fn queues(&self) -> u16 {
        1
    }

    fn fd(&self, queue: u16) -> Option<BorrowedFd<'_>> {
        (queue == 0).then(|| self.socket.as_fd())
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn set_offloads(&mut self, _offloads: Offloads) -> io::Result<()> {
        Ok(())
    }

    fn set_active(&mut self, _queues: u16) -> io::Result<()> {
        Ok(())
    }

    fn receive(
        &mut self,
        _queue: u16,
        head: &mut [u8],
        ram: &GuestRam,
        spans: &[Span],
    ) -> io::Result<Received> {
        match self.fill()? {
            None => return Ok(Received::Closed),
            Some(false) => return Ok(Received::Nothing),
            Some(true) => {}
        }
        let frame = self.coming.get(LENGTH_BYTES..).unwrap_or_default();
        let len = frame.len().saturating_add(HEADER_BYTES);
        let placed = place(frame, head, ram, spans);
        self.coming.clear();
        Ok(match placed? {
            true => Received::Frame(len),
            false => Received::TooLarge,
        })
    }

    fn send(
        &mut self,
        _queue: u16,
        head: &[u8],
        ram: &GuestRam,
        spans: &[Span],
    ) -> io::Result<Sent> {
        // A frame that the socket has a part of is the one that comes again now.
        if self.going.0.is_empty() {
            let parts = spans.iter().map(|span| u64::from(span.len)).sum::<u64>();
            let front = head.get(HEADER_BYTES..).unwrap_or_default();
            let parts = usize::try_from(parts).unwrap_or(usize::MAX);
            let len = front.len().saturating_add(parts);
            if len > MOST_FRAME_BYTES {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let frame = &mut self.going.0;
            frame.extend(u32::try_from(len).unwrap_or_default().to_be_bytes());
            frame.extend(front);
            for span in spans {
                let start = frame.len();
                let len = usize::try_from(span.len).unwrap_or_default();
                frame.resize(start.saturating_add(len), 0);
                let part = frame.get_mut(start..).unwrap_or_default();
                if ram.read_bytes(span.at, part).is_err() {
                    frame.clear();
                    return Err(io::ErrorKind::InvalidInput.into());
                }
            }
        }
        Ok(match self.flush()? {
            true => Sent::Whole,
            false => Sent::Full,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::testing::small_ram;

    fn pair() -> (Passt, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Passt::new(ours.into(), 1500), theirs)
    }

    const ROOM: [Span; 2] = [
        Span {
            at: 0x1000,
            len: 40,
        },
        Span {
            at: 0x3000,
            len: 2000,
        },
    ];

    #[test]
    fn frames_come_in_pieces_and_one_at_a_time() {
        let ram = small_ram();
        let (mut link, mut passt) = pair();
        let frame: Vec<u8> = (0..100).collect();
        let mut stream = 100_u32.to_be_bytes().to_vec();
        stream.extend(&frame);
        stream.extend([0, 0, 0, 14]);
        stream.extend([7; 14]);
        let mut head = [9; HEADER_BYTES + 14];
        let mut receive = |link: &mut Passt| link.receive(0, &mut head, &ram, &ROOM).unwrap();
        for cut in [0..1, 1..4, 4..50] {
            assert_eq!(receive(&mut link), Received::Nothing);
            passt.write_all(&stream[cut]).unwrap();
        }
        assert_eq!(receive(&mut link), Received::Nothing);
        passt.write_all(&stream[50..]).unwrap();
        assert_eq!(receive(&mut link), Received::Frame(112));
        assert_eq!(head[..HEADER_BYTES], PLAIN);
        assert_eq!(head[HEADER_BYTES..], frame[..14]);
        let (mut first, mut second) = ([0; 40], [0; 46]);
        ram.read_bytes(0x1000, &mut first).unwrap();
        ram.read_bytes(0x3000, &mut second).unwrap();
        assert_eq!([&first[..], &second[..]].concat(), frame[14..]);
        let mut head = [0; HEADER_BYTES + 14];
        let next = link.receive(0, &mut head, &ram, &ROOM).unwrap();
        assert_eq!(next, Received::Frame(26));
        drop(passt);
        let end = link.receive(0, &mut head, &ram, &ROOM).unwrap();
        assert_eq!(end, Received::Closed);
    }

    #[test]
    fn a_frame_without_room_is_lost_and_one_without_end_ends_the_link() {
        let ram = small_ram();
        let (mut link, mut passt) = pair();
        let mut head = [0; HEADER_BYTES];
        passt.write_all(&[0, 0, 0, 60]).unwrap();
        passt.write_all(&[1; 60]).unwrap();
        let lost = link.receive(0, &mut head, &ram, &ROOM[..1]).unwrap();
        assert_eq!(lost, Received::TooLarge);
        for length in [[0; 4], [0xff; 4], [0, 2, 0, 0]] {
            let (mut link, mut passt) = pair();
            passt.write_all(&length).unwrap();
            let end = link.receive(0, &mut head, &ram, &ROOM).unwrap();
            assert_eq!(end, Received::Closed, "{length:?}");
        }
    }

    #[test]
    fn what_is_sent_goes_whole_however_the_socket_takes_it() {
        let ram = small_ram();
        let (mut link, mut passt) = pair();
        let body = Span {
            at: 0x1000,
            len: 1000,
        };
        ram.write_bytes(0x1000, &[5; 1000]).unwrap();
        let head = [&PLAIN[..], &[6; 14]].concat();
        let mut sent = 0_u32;
        let mut got = Vec::new();
        passt.set_nonblocking(true).unwrap();
        while sent < 2000 {
            match link.send(0, &head, &ram, &[body]).unwrap() {
                Sent::Whole => sent += 1,
                Sent::Full => {
                    let mut some = [0; 3001];
                    let bytes = passt.read(&mut some).unwrap();
                    got.extend(&some[..bytes]);
                }
            }
        }
        drop(link);
        passt.set_nonblocking(false).unwrap();
        passt.read_to_end(&mut got).unwrap();
        let one = [&1014_u32.to_be_bytes()[..], &[6; 14], &[5; 1000]].concat();
        assert_eq!(got.len(), one.len() * 2000);
        assert!(got.chunks(one.len()).all(|frame| frame == one));
    }

    #[test]
    fn nobody_who_listens_is_told() {
        let error = Passt::connect(Path::new("/nonexistent/passt"), 1500).unwrap_err();
        let text = error.to_string();
        assert_eq!(
            text,
            "passt /nonexistent/passt: can't be reached: no such file or directory"
        );
    }
}
