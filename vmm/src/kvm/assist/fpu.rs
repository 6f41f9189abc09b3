//! Performs what reads or changes x87, SSE and extended state, through KVM's own copies of it.

use arch::insn::{Address, Effect, Place, SaveForm, Width};
use kvm_bindings::{Msrs, kvm_fpu, kvm_msr_entry};

use super::AssistError;
use super::perform::{Exception, Stop, Work};
use super::xsave;

const MSR_TSC: u32 = 0x10;
const MSR_TSC_AUX: u32 = 0xc000_0103;
const CR4_OSXSAVE: u64 = 1 << 18;
/// MXCSR bits that no processor lets be set.
const MXCSR_RESERVED: u32 = 0xffff_0000;

/// Performs one of the effects that concern such state.
pub(super) fn perform(work: &mut Work<'_>, effect: Effect, next: u64) -> Result<(), Stop> {
    match effect {
        Effect::LoadMxcsr(at) => {
            let value = read_u32(work, &at, next)?;
            if value & MXCSR_RESERVED != 0 {
                return Err(Stop::Exception(Exception::PROTECTION));
            }
            xsave::set_mxcsr(work, value)?;
        }
        Effect::StoreMxcsr(at) => {
            let value = xsave::mxcsr(work)?;
            work.space
                .write(work.linear(&at, next), &value.to_le_bytes())?;
        }
        Effect::LoadControlWord(at) => {
            let mut word = [0; 2];
            work.space.read(work.linear(&at, next), &mut word)?;
            change(work, |fpu| fpu.fcw = u16::from_le_bytes(word))?;
        }
        Effect::StoreStatusWord(place) => store_status(work, place, next)?,
        // Status word: the flags (bits 0..=7) and B (bit 15).
        Effect::ClearX87Exceptions => change(work, |fpu| fpu.fsw &= 0x7f00)?,
        Effect::EmptyX87Stack => change(work, |fpu| fpu.ftwx = 0)?,
        Effect::ReadXcr => {
            need_osxsave(work)?;
            let value = xcr(work, work.regs.rcx & 0xffff_ffff)?;
            split(work, value);
        }
        Effect::ReadTscp => {
            let [tsc, aux] = msrs(work, [MSR_TSC, MSR_TSC_AUX])?;
            split(work, tsc);
            work.set(1, Width::Dword, aux);
        }
        Effect::ReadTscAux { to } => {
            let [aux] = msrs(work, [MSR_TSC_AUX])?;
            work.set(to, Width::Qword, aux & 0xffff_ffff);
        }
        Effect::SaveState {
            at,
            form: SaveForm::Plain | SaveForm::Optimised,
        } => {
            need_osxsave(work)?;
            let wanted = wanted(work)?;
            let at = work.linear(&at, next);
            let state = work
                .vcpu
                .get_xsave()
                .map_err(AssistError::kvm("reading extended state (KVM_GET_XSAVE)"))?;
            xsave::save(&work.space, at, wanted, &state)?;
        }
        Effect::RestoreState {
            at,
            supervisor: false,
        } => {
            need_osxsave(work)?;
            let wanted = wanted(work)?;
            let at = work.linear(&at, next);
            xsave::restore(work, at, wanted)?;
        }
        _ => return Err(Stop::Unknown),
    }
    Ok(())
}

fn store_status(work: &mut Work<'_>, place: Place, next: u64) -> Result<(), Stop> {
    let word = get(work)?.fsw;
    match place {
        Place::Register { number, .. } => work.set(number, Width::Word, u64::from(word)),
        Place::Memory(at) => work
            .space
            .write(work.linear(&at, next), &word.to_le_bytes())?,
    }
    Ok(())
}

/// EDX:EAX and XCR0: the components that `xsave` and `xrstor` concern.
fn wanted(work: &Work<'_>) -> Result<u64, Stop> {
    let asked = (work.regs.rdx & 0xffff_ffff) << 32 | (work.regs.rax & 0xffff_ffff);
    Ok(asked & xcr(work, 0)?)
}

fn need_osxsave(work: &Work<'_>) -> Result<(), Stop> {
    if work.sregs.cr4 & CR4_OSXSAVE == 0 {
        return Err(Stop::Exception(Exception::UNDEFINED));
    }
    Ok(())
}

fn xcr(work: &Work<'_>, index: u64) -> Result<u64, Stop> {
    let all = work
        .vcpu
        .get_xcrs()
        .map_err(AssistError::kvm("reading XCR0 (KVM_GET_XCRS)"))?;
    let count = usize::try_from(all.nr_xcrs).unwrap_or(0);
    all.xcrs
        .iter()
        .take(count)
        .find(|xcr| u64::from(xcr.xcr) == index)
        .map(|xcr| xcr.value)
        .ok_or(Stop::Exception(Exception::PROTECTION))
}

/// EDX:EAX = value.
fn split(work: &mut Work<'_>, value: u64) {
    work.set(0, Width::Dword, value & 0xffff_ffff);
    work.set(2, Width::Dword, value >> 32);
}

fn read_u32(work: &Work<'_>, at: &Address, next: u64) -> Result<u32, Stop> {
    let mut bytes = [0; 4];
    work.space.read(work.linear(at, next), &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn get(work: &Work<'_>) -> Result<kvm_fpu, AssistError> {
    work.vcpu.get_fpu().map_err(AssistError::kvm(
        "reading the floating point state (KVM_GET_FPU)",
    ))
}

fn change(work: &Work<'_>, edit: impl FnOnce(&mut kvm_fpu)) -> Result<(), AssistError> {
    let mut fpu = get(work)?;
    edit(&mut fpu);
    work.vcpu.set_fpu(&fpu).map_err(AssistError::kvm(
        "writing the floating point state (KVM_SET_FPU)",
    ))
}

fn msrs<const N: usize>(work: &Work<'_>, wanted: [u32; N]) -> Result<[u64; N], AssistError> {
    let entries = wanted.map(|index| kvm_msr_entry {
        index,
        ..Default::default()
    });
    let unread = |index| AssistError::Msr {
        verb: "read",
        index,
    };
    let mut list = Msrs::from_entries(&entries).map_err(|_| unread(MSR_TSC_AUX))?;
    let read = work.vcpu.get_msrs(&mut list).map_err(AssistError::kvm(
        "reading MSRs for an instruction (KVM_GET_MSRS)",
    ))?;
    if let Some(&index) = wanted.get(read) {
        return Err(unread(index));
    }
    let mut values = [0; N];
    for (value, entry) in values.iter_mut().zip(list.as_slice()) {
        *value = entry.data;
    }
    Ok(values)
}
