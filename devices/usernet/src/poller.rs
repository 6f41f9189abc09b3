//! What is waited for: descriptors in one epoll, and times in order.

use crate::error::{ServeError, is_again};
use crate::slab::Id;
use rustix::event::{Timespec, epoll};
use std::collections::BTreeSet;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

pub(crate) use rustix::event::epoll::EventFlags;

/// Events taken in a turn.
const EVENTS: usize = 128;

/// Whose descriptor or time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Token {
    Link,
    Control,
    /// A place in the list of published TCP ports.
    Listener(u32),
    /// A place in the list of published UDP ports.
    Port(u32),
    Tcp(Id),
    Udp(Id),
    Question(Id),
    Ping(Id),
}

impl Token {
    fn to_bits(self) -> u64 {
        let (kind, rest) = match self {
            Self::Link => (0, 0),
            Self::Control => (1, 0),
            Self::Listener(place) => (2, place.into()),
            Self::Port(place) => (3, place.into()),
            Self::Tcp(id) => (4, id.to_bits()),
            Self::Udp(id) => (5, id.to_bits()),
            Self::Question(id) => (6, id.to_bits()),
            Self::Ping(id) => (7, id.to_bits()),
        };
        kind << 48 | rest
    }

    fn from_bits(bits: u64) -> Self {
        let place = u32::try_from(bits & 0xffff_ffff).unwrap_or(0);
        let id = Id::from_bits(bits);
        match bits >> 48 {
            0 => Self::Link,
            2 => Self::Listener(place),
            3 => Self::Port(place),
            4 => Self::Tcp(id),
            5 => Self::Udp(id),
            6 => Self::Question(id),
            7 => Self::Ping(id),
            _ => Self::Control,
        }
    }
}

/// Descriptors and times.
pub(crate) struct Poller {
    epoll: OwnedFd,
    times: BTreeSet<(Instant, Token)>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}

impl Poller {
    pub(crate) fn new() -> Result<Self, ServeError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC);
        Ok(Self {
            epoll: epoll.map_err(ServeError::host("creating an epoll"))?,
            times: BTreeSet::new(),
        })
    }

    pub(crate) fn add(
        &self,
        fd: impl AsFd,
        token: Token,
        flags: EventFlags,
    ) -> rustix::io::Result<()> {
        epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token.to_bits()),
            flags,
        )
    }

    pub(crate) fn change(
        &self,
        fd: impl AsFd,
        token: Token,
        flags: EventFlags,
    ) -> rustix::io::Result<()> {
        epoll::modify(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token.to_bits()),
            flags,
        )
    }

    /// Makes `token` due at `due`. What is `armed` already and earlier stays: it comes, finds that
    /// it is too early and arms again, which is cheaper than moving it with every packet.
    pub(crate) fn arm(&mut self, armed: &mut Option<Instant>, token: Token, due: Instant) {
        match *armed {
            Some(before) if before <= due => return,
            Some(before) => {
                self.times.remove(&(before, token));
            }
            None => {}
        }
        self.times.insert((due, token));
        *armed = Some(due);
    }

    /// Forgets a time.
    pub(crate) fn disarm(&mut self, armed: &mut Option<Instant>, token: Token) {
        if let Some(before) = armed.take() {
            self.times.remove(&(before, token));
        }
    }

    /// Takes a time that has come; its owner has to forget that it is armed.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Token> {
        let first = *self.times.first()?;
        if first.0 > now {
            return None;
        }
        self.times.remove(&first);
        Some(first.1)
    }

    /// Waits for a descriptor or a time, at most `most`, and says whose it was.
    pub(crate) fn wait(
        &mut self,
        now: Instant,
        most: Option<Duration>,
    ) -> Result<Vec<(Token, EventFlags)>, ServeError> {
        let next = self
            .times
            .first()
            .map(|(due, _)| due.saturating_duration_since(now));
        let timeout = match (next, most) {
            (Some(next), Some(most)) => Some(next.min(most)),
            (next, most) => next.or(most),
        };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        match epoll::wait(&self.epoll, &mut room, timeout.as_ref()) {
            Ok((events, _)) => Ok(events.iter().map(event).collect()),
            Err(errno) if is_again(errno) => Ok(Vec::new()),
            Err(errno) => Err(ServeError::host("waiting for events")(errno)),
        }
    }
}

fn event(event: &epoll::Event) -> (Token, EventFlags) {
    // The structure is packed: its fields are copied.
    let (data, flags) = (event.data, event.flags);
    (Token::from_bits(data.u64()), flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_in_order_and_once() {
        let mut poller = Poller::new().unwrap();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let (mut a, mut b, mut c) = (None, None, None);
        poller.arm(&mut a, Token::Listener(1), at(5));
        poller.arm(&mut b, Token::Listener(2), at(3));
        poller.arm(&mut c, Token::Listener(3), at(1));
        // A later time leaves the earlier one, an earlier one replaces it.
        poller.arm(&mut b, Token::Listener(2), at(9));
        poller.arm(&mut a, Token::Listener(1), at(2));
        poller.disarm(&mut c, Token::Listener(3));
        assert_eq!(poller.due(at(1)), None);
        assert_eq!(poller.due(at(4)), Some(Token::Listener(1)));
        assert_eq!(poller.due(at(4)), Some(Token::Listener(2)));
        assert_eq!(poller.due(at(99)), None);
    }
}
