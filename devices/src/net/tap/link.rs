//! A tap as the host's end of a guest's network.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::Tap;
use crate::net::{Link, Offloads, Received, Sent, receive_from, send_to};
use crate::ram::GuestRam;
use crate::sys::tap as ioctl;
use crate::virtio::Span;

impl Tap {
    fn queue(&self, queue: u16) -> io::Result<&OwnedFd> {
        let none = io::ErrorKind::InvalidInput;
        self.queues.get(usize::from(queue)).ok_or(none.into())
    }
}

/// In the words of TUNSETOFFLOAD.
pub(super) fn words(offloads: Offloads) -> u32 {
    let word = |set: bool, word: u32| if set { word } else { 0 };
    word(offloads.checksum, libc::TUN_F_CSUM)
        | word(offloads.tso4, libc::TUN_F_TSO4)
        | word(offloads.tso6, libc::TUN_F_TSO6)
        | word(offloads.ecn, libc::TUN_F_TSO_ECN)
}

impl Link for Tap {
    fn describe(&self) -> String {
        format!("tap {}", self.name)
    }

    fn queues(&self) -> u16 {
        // Linux gives a tap 256 of them at most.
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    fn fd(&self, queue: u16) -> Option<BorrowedFd<'_>> {
        self.queue(queue).ok().map(AsFd::as_fd)
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn offloads(&self) -> Offloads {
        Offloads::ALL
    }

    fn set_offloads(&mut self, offloads: Offloads) -> io::Result<()> {
        // The tap has one setting for all of its queues.
        ioctl::set_offload(self.queue(0)?, words(offloads))
    }

    fn set_active(&mut self, queues: u16) -> io::Result<()> {
        for (at, queue) in (0_u16..).zip(&self.queues) {
            let wanted = at < queues.max(1);
            let active = self.active.get_mut(usize::from(at));
            if let Some(active) = active.filter(|active| **active != wanted) {
                ioctl::set_active(queue, wanted)?;
                *active = wanted;
            }
        }
        Ok(())
    }

    fn receive(
        &mut self,
        queue: u16,
        head: &mut [u8],
        ram: &GuestRam,
        spans: &[Span],
    ) -> io::Result<Received> {
        receive_from(self.queue(queue)?, head, ram, spans)
    }

    fn send(
        &mut self,
        queue: u16,
        head: &[u8],
        ram: &GuestRam,
        spans: &[Span],
    ) -> io::Result<Sent> {
        send_to(self.queue(queue)?, head, ram, spans)
    }
}
