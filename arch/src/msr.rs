//! Which model-specific registers are set before a guest runs.

/// IA32_MISC_ENABLE (Intel SDM 4, table 2-2).
const MISC_ENABLE: u32 = 0x1a0;
/// Its bit for fast string operations.
const FAST_STRINGS: u64 = 1;

/// The registers that every vCPU starts with, as index and value. All others start as KVM resets
/// them. Without fast strings, Linux takes the processor for one whose firmware turned off
/// `rep movsb`, and copies slowly.
#[must_use]
pub fn boot_msrs() -> Vec<(u32, u64)> {
    vec![(MISC_ENABLE, FAST_STRINGS)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_strings_are_on() {
        assert_eq!(boot_msrs(), [(0x1a0, 1)]);
    }
}
