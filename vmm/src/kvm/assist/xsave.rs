//! The standard format of `xsave`: which bytes belong to which component (SDM volume 1, 13.4).

use std::ops::Range;

use kvm_bindings::kvm_xsave;

use super::AssistError;
use super::address_space::{AddressSpace, Blocked};
use super::perform::{Exception, Stop, Work};

/// Where the header is: XSTATE_BV, XCOMP_BV.
const HEADER: usize = 512;
/// KVM's area without its extension.
const AREA: usize = 4096;
/// MXCSR and its mask, which belong to SSE and AVX together.
const MXCSR: Range<usize> = 24..32;
/// MXCSR among KVM's 32-bit words.
const MXCSR_WORD: usize = 6;

/// The byte ranges of a component in the standard format; x87 has two, around MXCSR.
fn ranges(component: u32) -> [Range<usize>; 2] {
    match component {
        0 => [0..24, 32..160],
        1 => [160..416, 0..0],
        _ => {
            let leaf = std::arch::x86_64::__cpuid_count(0xd, component);
            let number = |value| usize::try_from(value).unwrap_or(usize::MAX);
            let (start, end) = (
                number(leaf.ebx),
                number(leaf.ebx).saturating_add(number(leaf.eax)),
            );
            if start >= HEADER + 64 && end <= AREA {
                [start..end, 0..0]
            } else {
                [0..0, 0..0]
            }
        }
    }
}

fn bytes_of(state: &kvm_xsave) -> Vec<u8> {
    state
        .region
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    if let Some(part) = bytes.get(at..at + 8) {
        eight.copy_from_slice(part);
    }
    u64::from_le_bytes(eight)
}

/// `xsave`: writes the wanted components of `state` and the header's bits for them.
pub(super) fn save(
    space: &AddressSpace<'_>,
    at: u64,
    wanted: u64,
    state: &kvm_xsave,
) -> Result<(), Stop> {
    if !at.is_multiple_of(64) {
        return Err(Stop::Exception(Exception::PROTECTION));
    }
    let bytes = bytes_of(state);
    let write = |range: Range<usize>| -> Result<(), Blocked> {
        let piece = bytes.get(range.clone()).ok_or(Blocked::NotRam)?;
        space.write(at.wrapping_add(range.start as u64), piece)
    };
    let here = number(&bytes, HEADER);
    for component in (0..63).filter(|bit| wanted >> bit & 1 != 0) {
        for range in ranges(component) {
            write(range)?;
        }
    }
    if wanted & 0b110 != 0 {
        write(MXCSR)?;
    }
    let header = at.wrapping_add(HEADER as u64);
    let old = space.read_number(header, 8)?;
    let new = (old & !wanted) | (here & wanted);
    space.write(header, &new.to_le_bytes())?;
    Ok(())
}

/// `xrstor` of the standard format: loads the wanted components, or their initial values.
pub(super) fn restore(work: &Work<'_>, at: u64, wanted: u64) -> Result<(), Stop> {
    let protection = Stop::Exception(Exception::PROTECTION);
    if !at.is_multiple_of(64) {
        return Err(protection);
    }
    let mut header = [0; 24];
    work.space
        .read(at.wrapping_add(HEADER as u64), &mut header)?;
    let (present, compacted) = (number(&header, 0), number(&header, 8));
    if compacted >> 63 != 0 {
        return Err(Stop::Unknown);
    }
    if compacted != 0 || number(&header, 16) != 0 {
        return Err(protection);
    }
    let mut state = get(work)?;
    let mut bytes = bytes_of(&state);
    let mut load = |range: Range<usize>| -> Result<(), Blocked> {
        let from = at.wrapping_add(range.start as u64);
        let piece = bytes.get_mut(range).ok_or(Blocked::NotRam)?;
        work.space.read(from, piece)
    };
    for component in (0..63).filter(|bit| wanted & present >> bit & 1 != 0) {
        for range in ranges(component) {
            load(range)?;
        }
    }
    if wanted & 0b110 != 0 {
        load(MXCSR)?;
    }
    // A component that the area does not hold gets its initial value: KVM sees a cleared bit.
    let bits = (number(&bytes, HEADER) & !wanted) | (present & wanted);
    if let Some(place) = bytes.get_mut(HEADER..HEADER + 8) {
        place.copy_from_slice(&bits.to_le_bytes());
    }
    for (word, four) in state.region.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*four);
    }
    set(work, &state)
}

/// MXCSR, which KVM_GET_FPU leaves out.
pub(super) fn mxcsr(work: &Work<'_>) -> Result<u32, Stop> {
    let state = get(work)?;
    state.region.get(MXCSR_WORD).copied().ok_or(Stop::Unknown)
}

/// Sets MXCSR. It counts only where the header says that SSE state is there; KVM has filled in
/// the initial values if it was not.
pub(super) fn set_mxcsr(work: &Work<'_>, value: u32) -> Result<(), Stop> {
    let mut state = get(work)?;
    for (at, bits, keep) in [(MXCSR_WORD, value, 0), (HEADER / 4, 0b10, u32::MAX)] {
        let word = state.region.get_mut(at).ok_or(Stop::Unknown)?;
        *word = (*word & keep) | bits;
    }
    set(work, &state)
}

/// KVM's copy of the extended state.
pub(super) fn get(work: &Work<'_>) -> Result<kvm_xsave, AssistError> {
    work.vcpu
        .get_xsave()
        .map_err(AssistError::kvm("reading extended state (KVM_GET_XSAVE)"))
}

#[expect(
    unsafe_code,
    reason = "kvm-ioctls marks KVM_SET_XSAVE as unsafe for large areas"
)]
fn set(work: &Work<'_>, state: &kvm_xsave) -> Result<(), Stop> {
    // SAFETY: no dynamically enabled feature (AMX) is ever switched on for a guest of a host
    // that needs this, so KVM reads no more than the 4096 bytes that `state` has.
    unsafe { work.vcpu.set_xsave(state) }
        .map_err(AssistError::kvm("writing extended state (KVM_SET_XSAVE)"))?;
    Ok(())
}
