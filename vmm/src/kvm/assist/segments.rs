//! Reads segment descriptors from the guest's tables, for `lsl` and `lar`.

use kvm_bindings::kvm_sregs;

use super::address_space::{AddressSpace, Blocked};

/// What `lsl` and `lar` tell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Description {
    /// In bytes.
    pub(super) limit: u32,
    /// The second word of the descriptor, masked as `lar` does.
    pub(super) access: u32,
}

/// The code or data segment that `selector` names, or `None` when it names nothing readable at
/// this privilege. System segments are left out: no kernel asks for them.
pub(super) fn describe(
    space: &AddressSpace<'_>,
    sregs: &kvm_sregs,
    selector: u16,
) -> Result<Option<Description>, Blocked> {
    let (base, table_limit) = if selector & 4 == 0 {
        (sregs.gdt.base, u32::from(sregs.gdt.limit))
    } else {
        (sregs.ldt.base, sregs.ldt.limit)
    };
    let offset = u32::from(selector & !7);
    if selector & !3 == 0 || offset + 7 > table_limit {
        return Ok(None);
    }
    let raw = space.read_number(base.wrapping_add(u64::from(offset)), 8)?;
    Ok(from_raw(raw, selector & 3, sregs.cs.dpl))
}

fn from_raw(raw: u64, requested: u16, cpl: u8) -> Option<Description> {
    let [b0, b1, _, _, _, access, flags, _] = raw.to_le_bytes();
    let code_or_data = access & 0x10 != 0;
    let conforming = access & 0x1c == 0x1c;
    let dpl = access >> 5 & 3;
    let allowed = conforming || (u16::from(dpl) >= requested && dpl >= cpl);
    if !code_or_data || !allowed {
        return None;
    }
    let short = u32::from_le_bytes([b0, b1, flags & 0xf, 0]);
    let limit = if flags & 0x80 != 0 {
        short << 12 | 0xfff
    } else {
        short
    };
    let access = u32::from_le_bytes([0, access, flags & 0xf0, 0]);
    Some(Description { limit, access })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_told_as_the_manual_says() {
        // Linux's per-CPU segment: limit 0x12345 in bytes, present, DPL 3, data.
        let cpu_node = 0x0041_f500_0000_2345;
        let told = from_raw(cpu_node, 3, 0).unwrap();
        assert_eq!(
            told,
            Description {
                limit: 0x1_2345,
                access: 0x0040_f500
            }
        );
        let flat = from_raw(0x00af_9b00_0000_ffff, 0, 0).unwrap();
        assert_eq!(flat.limit, u32::MAX);
        // DPL 0 asked for with RPL 3, and from CPL 3; a system segment.
        assert_eq!(from_raw(0x00cf_9300_0000_ffff, 3, 0), None);
        assert_eq!(from_raw(0x00cf_9300_0000_ffff, 0, 3), None);
        assert_eq!(from_raw(0x0000_8b00_0000_0067, 0, 0), None);
    }
}
