//! Features that are kept from a guest, each with everything that depends on it.

use super::Leaf;

/// A feature that can be hidden.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Feature {
    /// `cmpxchg16b`.
    CmpXchg16b,
    /// `popcnt`.
    Popcnt,
    /// `xsave` and every register that only it can save: AVX, AVX-512, AMX, protection keys.
    Xsave,
    /// Supervisor mode access prevention: `clac` and `stac`.
    Smap,
    /// Supervisor mode execution prevention.
    Smep,
    /// Fast `rep movsb`.
    Erms,
    /// Fast `rep movsb` for few bytes.
    Fsrm,
    /// KVM's features that make a guest execute `vmcall`: waking a waiting vCPU, sending
    /// interrupts, yielding. An emulating KVM executes that instruction for ever.
    Hypercalls,
}

impl Feature {
    const ALL: [Self; 8] = [
        Self::CmpXchg16b,
        Self::Popcnt,
        Self::Xsave,
        Self::Smap,
        Self::Smep,
        Self::Erms,
        Self::Fsrm,
        Self::Hypercalls,
    ];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Where it and what depends on it are shown.
    fn shown(self) -> &'static [Shown] {
        match self {
            Self::CmpXchg16b => const { &[shown(1, 0, 0, 0, 1 << 13, 0)] },
            Self::Popcnt => const { &[shown(1, 0, 0, 0, 1 << 23, 0)] },
            Self::Xsave => XSAVE,
            Self::Smap => const { &[shown(7, 0, 0, 1 << 20, 0, 0)] },
            Self::Smep => const { &[shown(7, 0, 0, 1 << 7, 0, 0)] },
            Self::Erms => const { &[shown(7, 0, 0, 1 << 9, 0, 0)] },
            Self::Fsrm => const { &[shown(7, 0, 0, 0, 0, 1 << 4)] },
            Self::Hypercalls => {
                // PV_UNHALT, PV_SEND_IPI, PV_SCHED_YIELD.
                const { &[shown(0x4000_0001, 0, 1 << 7 | 1 << 11 | 1 << 13, 0, 0, 0)] }
            }
        }
    }
}

/// Bits of one leaf.
#[derive(Clone, Copy, Debug)]
struct Shown {
    function: u32,
    /// None for every index.
    index: Option<u32>,
    bits: [u32; 4],
}

const fn shown(function: u32, index: u32, eax: u32, ebx: u32, ecx: u32, edx: u32) -> Shown {
    Shown {
        function,
        index: Some(index),
        bits: [eax, ebx, ecx, edx],
    }
}

const fn whole(function: u32) -> Shown {
    Shown {
        function,
        index: None,
        bits: [u32::MAX; 4],
    }
}

/// XSAVE and what needs registers that only it saves.
const XSAVE: &[Shown] = &[
    // FMA, XSAVE, OSXSAVE, AVX, F16C.
    shown(
        1,
        0,
        0,
        0,
        1 << 12 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29,
        0,
    ),
    shown(
        7,
        0,
        0,
        // AVX2, MPX, AVX512 F, DQ, IFMA, PF, ER, CD, BW, VL.
        1 << 5
            | 1 << 14
            | 1 << 16
            | 1 << 17
            | 1 << 21
            | 1 << 26
            | 1 << 27
            | 1 << 28
            | 1 << 30
            | 1 << 31,
        // AVX512 VBMI, PKU, OSPKE, AVX512 VBMI2, shadow stacks, VAES, VPCLMULQDQ, AVX512 VNNI,
        // BITALG, VPOPCNTDQ.
        1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14,
        // AVX512 4VNNIW, 4FMAPS, VP2INTERSECT, AMX BF16, AVX512 FP16, AMX TILE, AMX INT8.
        1 << 2 | 1 << 3 | 1 << 8 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 25,
    ),
    shown(
        7,
        1,
        // SHA512, SM3, SM4, AVX-VNNI, AVX512 BF16, AMX FP16, AVX-IFMA.
        1 << 0 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 21 | 1 << 23,
        0,
        0,
        // AVX-VNNI-INT8, AVX-NE-CONVERT, AMX COMPLEX, AVX-VNNI-INT16, AVX10, APX.
        1 << 4 | 1 << 5 | 1 << 8 | 1 << 10 | 1 << 19 | 1 << 21,
    ),
    // The areas of XSAVE, AMX's tiles, AVX10.
    whole(0xd),
    whole(0x1d),
    whole(0x1e),
    whole(0x24),
    // XOP, lightweight profiling, FMA4.
    shown(0x8000_0001, 0, 0, 0, 1 << 11 | 1 << 15 | 1 << 16, 0),
];

/// A set of features to hide.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Hide(u8);

impl Hide {
    /// Nothing: a host that runs guests as hardware would.
    #[must_use]
    pub const fn none() -> Self {
        Self(0)
    }

    /// What a KVM that emulates the guest's kernel cannot execute there and lets CPUID hide.
    #[must_use]
    pub const fn emulated_kernel() -> Self {
        Self::none()
            .and(Feature::CmpXchg16b)
            .and(Feature::Xsave)
            .and(Feature::Hypercalls)
    }

    /// This set and `feature`.
    #[must_use]
    pub const fn and(self, feature: Feature) -> Self {
        Self(self.0 | feature.bit())
    }

    /// Whether `feature` is hidden.
    #[must_use]
    pub const fn hides(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// Takes the hidden features out of a leaf.
    pub(super) fn apply(self, leaf: &mut Leaf) {
        let hidden = Feature::ALL
            .into_iter()
            .filter(|feature| self.hides(*feature));
        let places = hidden.flat_map(Feature::shown).filter(|shown| {
            shown.function == leaf.function
                && shown
                    .index
                    .is_none_or(|index| !leaf.significant_index || index == leaf.index)
        });
        for shown in places {
            let [eax, ebx, ecx, edx] = shown.bits;
            leaf.eax &= !eax;
            leaf.ebx &= !ebx;
            leaf.ecx &= !ecx;
            leaf.edx &= !edx;
        }
    }
}
