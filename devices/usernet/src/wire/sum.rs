//! The Internet's checksum (RFC 1071).

use std::net::IpAddr;

/// The sum of 16-bit words, not folded.
pub(crate) fn of(data: &[u8]) -> u64 {
    // Words of four bytes are summed up in the machine's order: the folded sum of them is the
    // folded sum of the halves, and swapping its bytes at the end gives the network's.
    let mut sum = 0_u64;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    sum += u64::from(u32::from_ne_bytes(last));
    u64::from(u16::from_be_bytes(fold(sum).to_ne_bytes()))
}

/// Folds a sum to 16 bits.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// What TCP, UDP and ICMPv6 sum up besides their own bytes.
pub(crate) fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> u64 {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => of(&address.octets()),
        IpAddr::V6(address) => of(&address.octets()),
    };
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    address(from) + address(to) + u64::from(protocol) + length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_rfc() {
        // The example of RFC 1071, section 3.
        assert_eq!(fold(of(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        assert_eq!(fold(of(&[0xab])), 0xab00);
        assert_eq!(fold(of(&[1, 2, 3])), 0x0402);
        assert_eq!(fold(of(&[])), 0);
        assert_eq!(fold(of(&[0xff; 64])), 0xffff);
    }
}
