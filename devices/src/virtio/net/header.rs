//! What a frame's header may say: what both sides agreed on, about bytes that the frame has.

use super::wire::{ETHERNET_BYTES, Header, flags, gso};
use crate::net::Offloads;

/// Something in a header that was not agreed on, or that its frame cannot be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct BadOffload;

impl Header {
    /// The header of a guest's frame of `bytes` as it is passed on, or why it is not. Flags that
    /// mean nothing here are left out (5.1.6.2.2), and the length of the headers is no more than
    /// a hint.
    pub(super) fn for_host(self, bytes: usize, agreed: Offloads) -> Result<Self, BadOffload> {
        let flags = self.flags & flags::NEEDS_CSUM;
        self.check(bytes, agreed)?;
        let most = u16::try_from(bytes).unwrap_or(u16::MAX);
        let sum = flags & flags::NEEDS_CSUM != 0;
        let segments = self.gso_type != gso::NONE;
        Ok(Self {
            flags,
            gso_type: self.gso_type,
            hdr_len: self.hdr_len.get().min(most).into(),
            gso_size: if segments { self.gso_size } else { 0.into() },
            csum_start: if sum { self.csum_start } else { 0.into() },
            csum_offset: if sum { self.csum_offset } else { 0.into() },
            num_buffers: 0.into(),
        })
    }

    /// The header of a frame for the guest, which lies in `buffers` of its buffers.
    pub(super) fn for_guest(
        self,
        bytes: usize,
        agreed: Offloads,
        buffers: u16,
    ) -> Result<Self, BadOffload> {
        self.check(bytes, agreed)?;
        let known = match agreed.checksum {
            true => flags::NEEDS_CSUM | flags::DATA_VALID,
            false => 0,
        };
        Ok(Self {
            flags: self.flags & known,
            num_buffers: buffers.into(),
            ..self
        })
    }

    fn check(&self, bytes: usize, agreed: Offloads) -> Result<(), BadOffload> {
        let sum = self.flags & flags::NEEDS_CSUM != 0;
        let start = usize::from(self.csum_start.get());
        if sum {
            let end = start.saturating_add(usize::from(self.csum_offset.get()));
            let inside = start >= ETHERNET_BYTES && end.saturating_add(2) <= bytes;
            if !agreed.checksum || !inside {
                return Err(BadOffload);
            }
        }
        let may_cut = match self.gso_type & !gso::ECN {
            gso::NONE => {
                return if self.gso_type == 0 {
                    Ok(())
                } else {
                    Err(BadOffload)
                };
            }
            gso::TCPV4 => agreed.tso4,
            gso::TCPV6 => agreed.tso6,
            _ => false,
        };
        let may_mark = agreed.ecn || self.gso_type & gso::ECN == 0;
        // Each segment has a checksum of its own to be finished (5.1.6.2.1).
        match may_cut && may_mark && sum && self.gso_size.get() != 0 {
            true => Ok(()),
            false => Err(BadOffload),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp() -> Header {
        Header {
            flags: flags::NEEDS_CSUM,
            gso_type: gso::TCPV4,
            hdr_len: 54.into(),
            gso_size: 1460.into(),
            csum_start: 34.into(),
            csum_offset: 16.into(),
            num_buffers: 0.into(),
        }
    }

    #[test]
    fn what_was_agreed_on_goes_through_both_ways() {
        let all = Offloads::ALL;
        let plain = Header::default();
        assert_eq!(plain.for_host(60, Offloads::default()), Ok(plain));
        assert_eq!(tcp().for_host(9000, all), Ok(tcp()));
        let received = tcp().for_guest(9000, all, 7).unwrap();
        assert_eq!(
            received,
            Header {
                num_buffers: 7.into(),
                ..tcp()
            }
        );
        // Unknown flags are ignored, hints cut, and fields without a meaning cleared.
        let odd = Header {
            flags: 0xfe,
            hdr_len: u16::MAX.into(),
            gso_size: 9.into(),
            csum_start: 7.into(),
            csum_offset: 7.into(),
            num_buffers: 7.into(),
            ..plain
        };
        let passed = Header {
            hdr_len: 60.into(),
            ..plain
        };
        assert_eq!(odd.for_host(60, all), Ok(passed));
        let valid = Header {
            flags: 0xfe,
            ..plain
        };
        assert_eq!(
            valid.for_guest(60, all, 1).unwrap().flags,
            flags::DATA_VALID
        );
        let none = Offloads::default();
        assert_eq!(valid.for_guest(60, none, 1).unwrap().flags, 0);
    }

    #[test]
    fn what_was_not_agreed_on_or_cannot_be_is_refused() {
        let all = Offloads::ALL;
        let none = Offloads::default();
        let sum = Offloads {
            checksum: true,
            ..none
        };
        let six = Offloads { tso6: true, ..sum };
        let four = Offloads { tso4: true, ..sum };
        let ecn = Header {
            gso_type: gso::TCPV4 | gso::ECN,
            ..tcp()
        };
        let v6 = Header {
            gso_type: gso::TCPV6,
            ..tcp()
        };
        for (header, agreed) in [
            (tcp(), none),
            (tcp(), sum),
            (tcp(), six),
            (v6, four),
            (ecn, four),
            (
                Header {
                    gso_type: 0,
                    ..tcp()
                },
                none,
            ),
            (
                Header {
                    gso_type: gso::ECN,
                    ..tcp()
                },
                all,
            ),
            (
                Header {
                    gso_type: 2,
                    ..tcp()
                },
                all,
            ),
            (
                Header {
                    gso_type: 3,
                    ..tcp()
                },
                all,
            ),
            (
                Header {
                    gso_type: 5,
                    ..tcp()
                },
                all,
            ),
            (Header { flags: 0, ..tcp() }, all),
            (
                Header {
                    gso_size: 0.into(),
                    ..tcp()
                },
                all,
            ),
            (
                Header {
                    csum_start: 13.into(),
                    ..tcp()
                },
                all,
            ),
            (
                Header {
                    csum_start: 83.into(),
                    ..tcp()
                },
                all,
            ),
            (
                Header {
                    csum_start: u16::MAX.into(),
                    ..tcp()
                },
                all,
            ),
            (
                Header {
                    csum_offset: 65.into(),
                    ..tcp()
                },
                all,
            ),
            (
                Header {
                    csum_offset: u16::MAX.into(),
                    ..tcp()
                },
                all,
            ),
        ] {
            assert_eq!(header.for_host(100, agreed), Err(BadOffload), "{header:?}");
            assert_eq!(
                header.for_guest(100, agreed, 1),
                Err(BadOffload),
                "{header:?}"
            );
        }
        let last = Header {
            csum_start: 82.into(),
            ..tcp()
        };
        assert_eq!(last.for_host(100, four), Ok(last));
    }
}
