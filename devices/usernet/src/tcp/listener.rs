//! A published port: what waits to be accepted, and how many have been that the guest has not
//! answered yet.

use crate::net::Net;
use crate::poller::{EventFlags, Token};
use rustix::fd::OwnedFd;

/// Connections that a guest may owe an answer. The others wait where the host keeps them: asked
/// for all at once, a guest's kernel forgets some that it has agreed to, as its queues overflow.
const UNANSWERED: u32 = 64;

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: OwnedFd,
    pub(super) guest_port: u16,
    place: u32,
    unanswered: u32,
    watched: bool,
}

impl Listener {
    pub(super) fn new(
        net: &Net,
        socket: OwnedFd,
        guest_port: u16,
        place: u32,
    ) -> rustix::io::Result<Self> {
        net.poller
            .add(&socket, Token::Listener(place), EventFlags::IN)?;
        Ok(Self {
            socket,
            guest_port,
            place,
            unanswered: 0,
            watched: true,
        })
    }

    /// Whether the guest may be asked for one more connection; else the port is looked at again
    /// when it has answered.
    pub(super) fn may_ask(&mut self, net: &Net) -> bool {
        let may = self.unanswered < UNANSWERED;
        self.watch(net, may);
        may
    }

    pub(super) fn asked(&mut self) {
        self.unanswered += 1;
    }

    /// The guest has answered, or the connection is no more.
    pub(super) fn answered(&mut self, net: &Net) {
        self.unanswered = self.unanswered.saturating_sub(1);
        if self.unanswered <= UNANSWERED / 2 {
            self.watch(net, true);
        }
    }

    fn watch(&mut self, net: &Net, wanted: bool) {
        if self.watched == wanted {
            return;
        }
        let flags = match wanted {
            true => EventFlags::IN,
            false => EventFlags::empty(),
        };
        let changed = net
            .poller
            .change(&self.socket, Token::Listener(self.place), flags);
        // What is watched stays so until it is not: at worst the port is looked at in vain.
        if changed.is_ok() {
            self.watched = wanted;
        }
    }
}
