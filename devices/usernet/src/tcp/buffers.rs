//! How large the buffers of a connection are: large while there are few, small when there are many,
//! and never more than a limit in all.

use crate::config::Limits;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer};

/// Each of the two buffers of a connection has at least this size.
pub(super) const LEAST: usize = 16 << 10;
/// What a connection needs at least, both directions together.
pub(crate) const LEAST_FOR_FLOW: u64 = 2 * (16 << 10);
const MOST: usize = 512 << 10;
/// Ended connections whose buffers wait for the next.
const KEPT: usize = 16;

/// An engine for one connection.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) sockets: SocketSet<'static>,
    pub(super) handle: SocketHandle,
    size: usize,
}

impl Machine {
    fn new(size: usize) -> Self {
        let buffer = || SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(), buffer());
        // The link loses nothing and has no delay: what can be sent is sent.
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(None);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            sockets,
            handle,
            size,
        }
    }

    pub(super) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

/// Buffers of all connections.
#[derive(Debug)]
pub(super) struct Buffers {
    /// Bytes that may be given away beyond the least.
    free: usize,
    kept: Vec<Machine>,
}

impl Buffers {
    pub(super) fn new(limits: &Limits) -> Self {
        let total = usize::try_from(limits.tcp_bytes).unwrap_or(usize::MAX);
        let flows = usize::try_from(limits.tcp_flows).unwrap_or(usize::MAX);
        Self {
            free: total.saturating_sub(flows.saturating_mul(2 * LEAST)),
            kept: Vec::new(),
        }
    }

    /// Machine for one more connection.
    pub(super) fn take(&mut self) -> Machine {
        let size = self.size();
        self.free = self.free.saturating_sub(2 * (size - LEAST));
        let place = self.kept.iter().rposition(|machine| machine.size == size);
        match place {
            Some(place) => self.kept.swap_remove(place),
            None => Machine::new(size),
        }
    }

    /// A size of which there can be sixteen more.
    fn size(&self) -> usize {
        let mut size = MOST;
        while size > LEAST && 32 * (size - LEAST) > self.free {
            size /= 2;
        }
        size
    }

    /// Takes back what an ended connection had.
    pub(super) fn give(&mut self, mut machine: Machine) {
        self.free += 2 * (machine.size - LEAST);
        if self.kept.len() < KEPT {
            machine.socket().abort();
            self.kept.push(machine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_shrink_and_keep_to_the_limit() {
        let limits = Limits::default();
        let mut buffers = Buffers::new(&limits);
        let mut total = 0;
        let mut machines = Vec::new();
        for _ in 0..limits.tcp_flows {
            let size = buffers.size();
            // Only the sizes are counted here; the buffers themselves would be 256 MiB.
            buffers.free -= 2 * (size - LEAST);
            total += 2 * size;
            machines.push(size);
        }
        assert!(u64::try_from(total).unwrap() <= limits.tcp_bytes, "{total}");
        assert_eq!(machines.first(), Some(&MOST));
        assert_eq!(machines.last(), Some(&LEAST));
        assert!(machines.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn buffers_come_back() {
        let mut buffers = Buffers::new(&Limits::default());
        let free = buffers.free;
        let machine = buffers.take();
        assert!(buffers.free < free);
        buffers.give(machine);
        assert_eq!((buffers.free, buffers.kept.len()), (free, 1));
        buffers.take();
        assert!(buffers.kept.is_empty());
    }
}
