//! Which model-specific registers are set before a guest runs, and which are saved with it.

/// IA32_MISC_ENABLE (Intel SDM 4, table 2-2).
const MISC_ENABLE: u32 = 0x1a0;
/// Its bit for fast string operations.
const FAST_STRINGS: u64 = 1;

/// IA32_TIME_STAMP_COUNTER.
pub const TSC: u32 = 0x10;
/// IA32_TSC_DEADLINE: what it means depends on the counter and on the local APIC's timer mode.
pub const TSC_DEADLINE: u32 = 0x6e0;

/// The memory type ranges (Intel SDM 3, 12.11), which KVM keeps and does not list.
const MTRR_FIRST: u32 = 0x200;
const MTRR_LAST: u32 = 0x20f;
const MTRR_FIXED: [u32; 11] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
];
const MTRR_DEFAULT: u32 = 0x2ff;
/// IA32_PAT.
const PAT: u32 = 0x277;

/// The registers that every vCPU starts with, as index and value. All others start as KVM resets
/// them. Without fast strings, Linux takes the processor for one whose firmware turned off
/// `rep movsb`, and copies slowly.
#[must_use]
pub fn boot_msrs() -> Vec<(u32, u64)> {
    vec![(MISC_ENABLE, FAST_STRINGS)]
}

/// The registers that are saved with a vCPU, in the order in which they are put back: those that
/// KVM `listed` and those that it keeps without listing them. The deadline comes last.
#[must_use]
pub fn saved_msrs(listed: &[u32]) -> Vec<u32> {
    let unlisted = (MTRR_FIRST..=MTRR_LAST).chain(MTRR_FIXED);
    let unlisted = unlisted.chain([MTRR_DEFAULT, PAT]);
    let mut all: Vec<_> = listed.iter().copied().chain(unlisted).collect();
    all.sort_unstable();
    all.dedup();
    // The sort keeps false before true, and each half in its order.
    all.sort_by_key(|&index| index == TSC_DEADLINE);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_strings_are_on() {
        assert_eq!(boot_msrs(), [(0x1a0, 1)]);
    }

    #[test]
    fn each_saved_register_is_there_once_and_the_deadline_last() {
        let saved = saved_msrs(&[0xc000_0080, TSC_DEADLINE, TSC, PAT]);
        assert_eq!(saved.first(), Some(&TSC));
        assert_eq!(saved.last(), Some(&TSC_DEADLINE));
        for index in [
            TSC,
            TSC_DEADLINE,
            PAT,
            MTRR_DEFAULT,
            0x200,
            0x26f,
            0xc000_0080,
        ] {
            assert_eq!(
                saved.iter().filter(|&&one| one == index).count(),
                1,
                "{index:#x}"
            );
        }
    }
}
