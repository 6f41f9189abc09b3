//! Leaves of made-up hosts, before and after.

use proptest::prelude::*;

use super::*;

fn leaf(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> Leaf {
    let significant_index = matches!(
        function,
        0x4 | 0x7 | 0xb | 0xd | 0x1d | 0x1e | 0x1f | 0x8000_001d
    );
    Leaf {
        function,
        index,
        significant_index,
        eax,
        ebx,
        ecx,
        edx,
    }
}

const ONES: [u32; 4] = [u32::MAX; 4];
const ZEROS: [u32; 4] = [0; 4];

fn registers(leaf: &Leaf) -> [u32; 4] {
    [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]
}

/// A processor that has everything; caches as Intel's and AMD's processors show them.
fn host(vendor: [u8; 4]) -> Vec<Leaf> {
    let mut leaves = vec![leaf(0, 0, [0x24, u32::from_le_bytes(vendor), 0, 0])];
    leaves.extend(
        (1..=0x24)
            .filter(|f| ![4, 7, 0xb, 0xd, 0x1f].contains(f))
            .map(|function| leaf(function, 0, ONES)),
    );
    let caches = [0x0400_0121, 0x0400_0122, 0x0400_0143, 0x0400_4163, 0];
    for (index, eax) in (0..).zip(caches) {
        leaves.push(leaf(0x4, index, [eax, 0x02c0_003f, 0x3f, 0]));
        leaves.push(leaf(0x8000_001d, index, [eax, 0x02c0_003f, 0x3f, 0]));
    }
    leaves.extend(
        [0x7, 0xb, 0xd, 0x1f]
            .iter()
            .flat_map(|function| (0..3).map(|index| leaf(*function, index, ONES))),
    );
    let extended = (0x8000_0000..=0x8000_0022).filter(|f| *f != 0x8000_001d);
    leaves.extend(extended.map(|function| leaf(function, 0, ONES)));
    leaves.push(leaf(
        0x4000_0000,
        0,
        [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d],
    ));
    leaves.push(leaf(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]));
    leaves
}

fn policy(vcpu: u32, cpus: u32) -> CpuidPolicy {
    CpuidPolicy {
        vcpu,
        cpus,
        hide: Hide::none(),
        tsc_deadline: true,
    }
}

fn find(leaves: &[Leaf], function: u32, index: u32) -> Leaf {
    let mut found = leaves
        .iter()
        .filter(|leaf| (leaf.function, leaf.index) == (function, index));
    let leaf = *found
        .next()
        .unwrap_or_else(|| panic!("no leaf {function:#x}/{index}"));
    assert!(found.next().is_none(), "leaf {function:#x}/{index} twice");
    leaf
}

#[test]
fn leaf_1_is_that_of_a_guest() {
    let leaves = guest_leaves(&host(*b"Genu"), &policy(3, 6));
    let leaf = find(&leaves, 1, 0);
    assert_eq!(leaf.ebx >> 24, 3, "APIC identity");
    assert_eq!(leaf.ebx >> 16 & 0xff, 8, "identities in the package");
    assert_eq!(
        leaf.ecx, 0xf7fb_3603,
        "hypervisor and deadline, not what only a host can use"
    );
    assert_eq!(leaf.edx & (1 << 28), 1 << 28, "several processors");
    assert_eq!(leaf.edx & HOST_ONLY_1_EDX, 0);
    let one = find(&guest_leaves(&host(*b"Genu"), &policy(0, 1)), 1, 0);
    assert_eq!((one.ebx >> 16, one.edx & 1 << 28), (1, 0));
}

#[test]
fn the_guests_own_bits_are_set_even_where_kvm_does_not_report_them() {
    let bare = [leaf(0, 0, [1, 0, 0, 0]), leaf(1, 0, ZEROS)];
    for tsc_deadline in [false, true] {
        let policy = CpuidPolicy {
            tsc_deadline,
            ..policy(0, 1)
        };
        let leaf = find(&guest_leaves(&bare, &policy), 1, 0);
        assert_eq!(leaf.ecx, 1 << 31 | u32::from(tsc_deadline) << 24);
    }
    let off = CpuidPolicy {
        tsc_deadline: false,
        ..policy(0, 1)
    };
    assert_eq!(
        find(&guest_leaves(&host(*b"Genu"), &off), 1, 0).ecx & 1 << 24,
        0
    );
}

#[test]
fn topology_leaves_agree() {
    // vCPUs, bits of a core's number.
    for (cpus, bits) in [
        (1, 0),
        (2, 1),
        (3, 2),
        (4, 2),
        (5, 3),
        (8, 3),
        (33, 6),
        (64, 6),
    ] {
        let vcpu = cpus - 1;
        let leaves = guest_leaves(&host(*b"Genu"), &policy(vcpu, cpus));
        for function in [0xb, 0x1f] {
            let levels = [0, 1, 2].map(|index| registers(&find(&leaves, function, index)));
            let expected = [
                [0, 1, 0x100, vcpu],
                [bits, cpus, 0x201, vcpu],
                [0, 0, 2, vcpu],
            ];
            assert_eq!(levels, expected, "{cpus} vCPUs");
        }
        let last = (1 << bits) - 1;
        let caches = [0, 1, 2, 3].map(|index| find(&leaves, 4, index).eax);
        assert!(caches.iter().all(|eax| eax >> 26 == last), "{cpus} vCPUs");
        assert_eq!(
            caches.map(|eax| eax >> 14 & 0xfff),
            [0, 0, 0, last],
            "shared: the third level"
        );
        assert_eq!(caches.map(|eax| eax & 0x3fff), [0x121, 0x122, 0x143, 0x163]);
        assert_eq!(find(&leaves, 4, 4).eax, 0, "the end of the list stays it");
    }
}

#[test]
fn amd_has_leaves_of_its_own() {
    for vendor in [*b"Auth", *b"Hygo"] {
        let leaves = guest_leaves(&host(vendor), &policy(5, 6));
        assert_eq!(find(&leaves, 0x8000_0008, 0).ecx & 0xf0ff, 0x3005);
        assert_eq!(registers(&find(&leaves, 0x8000_001e, 0)), [5, 5, 0, 0]);
        assert_eq!(find(&leaves, 0x8000_001d, 3).eax, 0x0401_c163);
        assert_eq!(find(&leaves, 0x8000_0001, 0).ecx & 2, 2);
        let alone = guest_leaves(&host(vendor), &policy(0, 1));
        assert_eq!(find(&alone, 0x8000_0001, 0).ecx & 2, 0);
    }
    let leaves = guest_leaves(&host(*b"Genu"), &policy(5, 6));
    assert_eq!(
        registers(&find(&leaves, 0x8000_0008, 0)),
        ONES,
        "reserved on Intel's"
    );
}

#[test]
fn what_only_a_host_can_use_is_gone() {
    let leaves = guest_leaves(&host(*b"Auth"), &policy(0, 1));
    let gone = [
        3,
        5,
        9,
        0xa,
        0xf,
        0x10,
        0x12,
        0x14,
        0x19,
        0x1a,
        0x1c,
        0x23,
        0x8000_000a,
        0x8000_001b,
        0x8000_001f,
        0x8000_0022,
    ];
    for function in gone {
        assert_eq!(
            registers(&find(&leaves, function, 0)),
            ZEROS,
            "leaf {function:#x}"
        );
    }
    assert_eq!(
        registers(&find(&leaves, 6, 0)),
        [4, 0, 0, 0],
        "the timer that never stops"
    );
    assert_eq!(
        registers(&find(&leaves, 0x8000_0007, 0)),
        [0, 0, 0, 0x100],
        "the steady TSC"
    );
    assert_eq!(find(&leaves, 0x8000_0001, 0).ecx & 4, 0, "SVM");
    assert_eq!(
        find(&leaves, 7, 0).ebx & (1 << 25 | 1 << 2),
        0,
        "trace, SGX"
    );
    assert_eq!(registers(&find(&leaves, 0xd, 0)), ONES, "XSAVE stays");
    assert_eq!(
        find(&leaves, 0x4000_0001, 0).eax,
        0x0100_7efb,
        "KVM's own stay"
    );
    assert_eq!(find(&leaves, 0x4000_0000, 0).ebx, 0x4b4d_564b);
}

#[test]
fn an_old_processor_gets_no_new_leaves() {
    let host = [leaf(0, 0, [0xa, 0, 0, 0]), leaf(1, 0, ZEROS)];
    assert_eq!(guest_leaves(&host, &policy(0, 2)).len(), 2);
    let host = [
        leaf(0, 0, [0xb, 0, 0, 0]),
        leaf(1, 0, ZEROS),
        leaf(0xb, 0, ZEROS),
    ];
    assert_eq!(guest_leaves(&host, &policy(0, 2)).len(), 5);
}

#[test]
fn hiding_xsave_hides_all_that_needs_it() {
    let hide = Hide::none().and(Feature::Xsave);
    let leaves = guest_leaves(
        &host(*b"Auth"),
        &CpuidPolicy {
            hide,
            ..policy(0, 1)
        },
    );
    assert_eq!(
        find(&leaves, 1, 0).ecx & (1 << 12 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29),
        0
    );
    for function in [0xd, 0x1d, 0x1e, 0x24] {
        let mut of = leaves.iter().filter(|leaf| leaf.function == function);
        assert!(
            of.all(|leaf| registers(leaf) == ZEROS),
            "leaf {function:#x}"
        );
    }
    let seven = find(&leaves, 7, 0);
    assert_eq!(seven.ebx & (1 << 5 | 1 << 16 | 1 << 31), 0, "AVX2, AVX512");
    assert_eq!(
        seven.ebx & (1 << 3 | 1 << 8 | 1 << 9),
        1 << 3 | 1 << 8 | 1 << 9,
        "BMI, ERMS stay"
    );
    assert_eq!(seven.edx & (1 << 24), 0, "AMX");
    assert_eq!(find(&leaves, 7, 1).eax & (1 << 4), 0, "AVX-VNNI");
    assert_eq!(find(&leaves, 7, 2).eax, u32::MAX);
    assert_eq!(
        find(&leaves, 1, 0).ecx & (1 << 13),
        1 << 13,
        "CX16 is another matter"
    );
}

#[test]
fn each_feature_hides_its_own_bit() {
    // Feature, leaf, register, bit.
    let table = [
        (Feature::CmpXchg16b, 1, 2, 13),
        (Feature::Popcnt, 1, 2, 23),
        (Feature::Xsave, 1, 2, 26),
        (Feature::Smap, 7, 1, 20),
        (Feature::Smep, 7, 1, 7),
        (Feature::Erms, 7, 1, 9),
        (Feature::Fsrm, 7, 3, 4),
        (Feature::Hypercalls, 0x4000_0001, 0, 7),
    ];
    let plain = guest_leaves(&host(*b"Genu"), &policy(0, 1));
    for (feature, function, register, bit) in table {
        let hide = Hide::none().and(feature);
        let hidden = guest_leaves(
            &host(*b"Genu"),
            &CpuidPolicy {
                hide,
                ..policy(0, 1)
            },
        );
        let shown = |leaves: &[Leaf]| registers(&find(leaves, function, 0))[register] >> bit & 1;
        assert_eq!((shown(&plain), shown(&hidden)), (1, 0), "{feature:?}");
        let changed = plain.iter().zip(&hidden).filter(|(a, b)| a != b).count();
        assert!(feature == Feature::Xsave || changed == 1, "{feature:?}");
    }
    assert!(Hide::emulated_kernel().hides(Feature::CmpXchg16b));
    assert!(Hide::emulated_kernel().hides(Feature::Xsave));
    assert!(!Hide::emulated_kernel().hides(Feature::Smap));
}

proptest! {
    /// Whatever the host reports, hiding only takes bits away, and no leaf is there twice.
    #[test]
    fn any_host_gives_sound_leaves(
        values: Vec<(u32, u32, [u32; 4])>,
        vcpu in 0_u32..300,
        cpus in 0_u32..300,
        hidden: u8,
    ) {
        let host: Vec<Leaf> =
            values.iter().map(|(f, i, r)| leaf(f % 0x30, i % 3, *r)).collect();
        let plain = policy(vcpu, cpus);
        let features = [Feature::Xsave, Feature::Smap, Feature::Popcnt, Feature::Fsrm];
        let hide = (0..).zip(features).fold(Hide::none(), |hide, (bit, feature)| {
            if hidden >> bit & 1 == 1 { hide.and(feature) } else { hide }
        });
        let shown = guest_leaves(&host, &plain);
        let fewer = guest_leaves(&host, &CpuidPolicy { hide, ..plain });
        prop_assert_eq!(shown.len(), fewer.len());
        for (all, some) in shown.iter().zip(&fewer) {
            for (all, some) in registers(all).into_iter().zip(registers(some)) {
                prop_assert_eq!(all & some, some);
            }
        }
        let mut first = shown.iter().filter(|leaf| leaf.function == 1);
        prop_assert!(first.all(|leaf| leaf.ecx >> 31 == 1));
    }
}
