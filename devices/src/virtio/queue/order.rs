//! Chains that a device cannot use, while it holds others that came before them.
//!
//! They wait for those: devices answer in the order in which they took, on which the saved state of
//! a queue rests.

use virtio_queue::QueueT;

use super::Virtqueue;
use crate::virtio::Chain;

impl Virtqueue {
    /// Gives the chain that was taken last back as it is, when all before it have gone back.
    pub fn refuse(&mut self, chain: Chain) {
        let place = self.queue.next_avail().wrapping_sub(1);
        self.refused.push_back((place, chain));
        self.complete_together([]);
    }

    /// The refused chain whose turn it is when so many have gone back; any, from a queue that the
    /// driver has taken back, where there is no order any more.
    pub(super) fn refused_at(&mut self, next: u16) -> Option<(Chain, u32)> {
        let live = self.is_live();
        let due = |(place, _): &mut (u16, Chain)| *place == next || !live;
        let (_, chain) = self.refused.pop_front_if(due)?;
        Some((chain, 0))
    }
}
