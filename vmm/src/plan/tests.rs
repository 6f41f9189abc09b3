use std::fs;
use std::path::Path;

use api::spec::{
    BalloonSpec, ConsoleDevice, ConsolePortSpec, DiskSpec, EgressSpec, FlowSpec, KernelFormat,
    KernelSpec, MachineSpec, NetKind, NetSpec, PortBackend, RateSpec, SizeSpec, SourceMac,
    Transport, UserNetSpec, WatchdogAction,
};

use super::*;
use crate::host::KvmCaps;

const MIB: u64 = 1 << 20;

/// A kernel of one page at 16 MiB, entered at its start.
fn kernel() -> Kernel {
    let mut image = Vec::new();
    image.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0"); // 64 bits, little endian
    image.extend([2, 0, 62, 0, 1, 0, 0, 0]); // executable, x86-64, version 1
    for word in [0x100_0000_u64, 64, 0] {
        image.extend(word.to_le_bytes()); // entry, program headers, section headers
    }
    image.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    image.extend([1, 0, 0, 0, 7, 0, 0, 0]); // PT_LOAD, rwx
    for word in [0x1000_u64, 0x100_0000, 0x100_0000, 0x1000, 0x1000, 0x1000] {
        image.extend(word.to_le_bytes());
    }
    image.resize(0x2000, 0x90);
    Kernel::open(&image).unwrap()
}

fn host() -> HostCaps {
    HostCaps {
        kvm: KvmCaps::stock(),
        memory_bytes: 16 << 30,
        free_hugepages: 0,
        assisted: false,
        kernel_arguments: Vec::new(),
    }
}

fn own_kernel() -> MachineSpec {
    MachineSpec {
        kernel: Some(KernelSpec {
            path: "/boot/vmlinux".into(),
            format: KernelFormat::Auto,
            protocol: KernelProtocol::Auto,
        }),
        ..MachineSpec::default()
    }
}

fn disk(path: &str, read_only: bool) -> DiskSpec {
    DiskSpec {
        path: path.into(),
        read_only,
        ..DiskSpec::default()
    }
}

fn plan_of(spec: &MachineSpec, host: &HostCaps, acpi: bool) -> Result<Blueprint, PlanError> {
    let config = Config::try_from(spec).unwrap();
    let inputs = Inputs {
        config: &config,
        host,
        kernel: &kernel(),
        kernel_reads_acpi: acpi,
        initrd_bytes: spec
            .initrd
            .as_ref()
            .map(|path| match path == Path::new("/large") {
                true => 20 * MIB,
                false => 3 * MIB + 17,
            }),
    };
    plan(&inputs)
}

fn cmdline(spec: &MachineSpec, acpi: bool) -> String {
    plan_of(spec, &host(), acpi).unwrap().cmdline
}

/// Whole plans as users see them. `CORACLE_BLESS=1` writes them anew.
#[test]
fn plans_are_golden() {
    let weak = HostCaps {
        assisted: true,
        kernel_arguments: vec!["noxsave", "clearcpuid=151"],
        ..host()
    };
    let full = MachineSpec {
        initrd: Some("/boot/initrd".into()),
        cmdline: "loglevel=7 -- single".into(),
        cpus: 4,
        memory: Some(SizeSpec::Text("6G".into())),
        disks: vec![
            disk("/a.img", true),
            DiskSpec {
                id: Some("data".into()),
                ..disk("/b.img", false)
            },
        ],
        console: api::spec::ConsoleSpec {
            backend: api::spec::ConsoleBackend::File("/log".into()),
            device: ConsoleDevice::Virtio,
        },
        balloon: Some(BalloonSpec {
            size: Some(SizeSpec::Text("1G".into())),
            deflate_on_oom: true,
            stats_seconds: 5,
            reporting: true,
            hinting: true,
        }),
        console_ports: vec![ConsolePortSpec {
            name: "org.example.agent".into(),
            backend: PortBackend::Socket("/run/agent".into()),
            console: false,
        }],
        watchdog: Some(WatchdogAction::Reset),
        nets: vec![
            NetSpec {
                kind: NetKind::Tap,
                name: Some("vm0".into()),
                mtu: Some(9000),
                queues: Some(2),
                rx: FlowSpec {
                    bandwidth: Some(RateSpec::of_text("10M+1G")),
                    packets: None,
                },
                ..NetSpec::default()
            },
            NetSpec {
                mac: Some("02:00:00:00:00:01".into()),
                source: SourceMac::Any,
                user: UserNetSpec {
                    publish: vec!["8080:80".into()],
                    egress: vec![
                        EgressSpec::Allow("10.0.0.1:443".into()),
                        EgressSpec::Deny("10.0.0.0/8".into()),
                    ],
                    ..UserNetSpec::default()
                },
                ..NetSpec::default()
            },
        ],
        ..own_kernel()
    };
    let with_net = MachineSpec {
        nets: vec![NetSpec::default()],
        ..MachineSpec::default()
    };
    let huge = MachineSpec {
        hugepages: true,
        rng: false,
        platform: PlatformTables::Mptable,
        memory: Some(SizeSpec::Text("64M".into())),
        ..own_kernel()
    };
    let pages = HostCaps {
        free_hugepages: 32,
        ..host()
    };
    let on_pci = MachineSpec {
        transport: Transport::Pci,
        initrd: None,
        ..full.clone()
    };
    for (name, spec, host, acpi) in [
        ("own-kernel-pci", &on_pci, &host(), true),
        ("built-in", &MachineSpec::default(), &host(), false),
        ("built-in-net", &with_net, &host(), false),
        ("built-in-weak-host", &MachineSpec::default(), &weak, false),
        ("own-kernel-acpi", &full, &host(), true),
        ("own-kernel-hugepages", &huge, &pages, true),
    ] {
        let blueprint = plan_of(spec, host, acpi).unwrap();
        let mut text = serde_json::to_string_pretty(&blueprint.describe()).unwrap();
        text.push('\n');
        let golden = format!("{}/src/plan/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("CORACLE_BLESS").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            text == expected,
            "{golden} differs; CORACLE_BLESS=1 writes it anew:\n{text}"
        );
    }
}

#[test]
fn the_same_inputs_make_the_same_plan() {
    let spec = own_kernel();
    let one = plan_of(&spec, &host(), true).unwrap();
    let two = plan_of(&spec, &host(), true).unwrap();
    assert_eq!(format!("{one:?}"), format!("{two:?}"));
}

/// Nothing that is placed overlaps, and all of it is in memory; for sizes on both sides of the
/// hole, and with every device there can be.
#[test]
fn placements_are_apart_and_inside() {
    for mib in [32, 128, 2047, 2048, 2049, 3071, 3072, 3073, 4096, 6144] {
        let spec = MachineSpec {
            memory: Some(SizeSpec::Bytes(mib * MIB)),
            initrd: Some("/i".into()),
            cpus: 64,
            disks: vec![disk("/d", true); 13],
            platform: PlatformTables::Both,
            ..own_kernel()
        };
        let blueprint = plan_of(&spec, &host(), true).unwrap();
        let mut taken: Vec<(u64, u64)> = blueprint
            .boot
            .iter()
            .flat_map(|boot| &boot.placements)
            .chain(&blueprint.tables)
            .map(|one| (one.address, one.address + one.source.len()))
            .collect();
        taken.sort_unstable();
        for pair in taken.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{mib} MiB: {pair:x?}");
        }
        let slots = &blueprint.memory.slots;
        assert_eq!(slots.iter().map(|slot| slot.len).sum::<u64>(), mib * MIB);
        for (start, end) in taken {
            let inside = |slot: &MemorySlot| slot.start <= start && end <= slot.start + slot.len;
            assert!(slots.iter().any(inside), "{mib} MiB: {start:x}..{end:x}");
        }
    }
}

#[test]
fn lines_and_windows_are_used_once() {
    let spec = MachineSpec {
        disks: vec![disk("/d", true); 13],
        console: api::spec::ConsoleSpec {
            device: ConsoleDevice::Virtio,
            ..Default::default()
        },
        ..MachineSpec::default()
    };
    let blueprint = plan_of(&spec, &host(), false).unwrap();
    assert_eq!(
        blueprint.virtio().count(),
        16,
        "console, rng, system and 13 disks"
    );
    let mut lines: Vec<u32> = blueprint
        .devices
        .iter()
        .filter_map(|one| one.line)
        .collect();
    let count = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), count);
    let names: std::collections::BTreeSet<_> =
        blueprint.devices.iter().map(|one| &one.name).collect();
    assert_eq!(names.len(), blueprint.devices.len());
}

/// As many devices as there are slots on the bus, each with a window, a number and messages of
/// its own, and none of them told of by the command line.
#[test]
fn a_pci_bus_holds_31_devices() {
    let spec = MachineSpec {
        disks: vec![disk("/d", true); 29],
        transport: Transport::Pci,
        console: api::spec::ConsoleSpec {
            device: ConsoleDevice::Virtio,
            ..Default::default()
        },
        ..own_kernel()
    };
    let blueprint = plan_of(&spec, &host(), false).unwrap();
    let places: Vec<_> = blueprint
        .devices
        .iter()
        .filter_map(|device| match device.at {
            Window::Pci(place) => Some(place),
            _ => None,
        })
        .collect();
    assert_eq!(places.len(), 31, "console, rng and 29 disks");
    assert!(places.iter().map(|one| one.device).eq(1..=31));
    let mut gsi = 24;
    for (number, place) in (1..).zip(&places) {
        assert_eq!(place.window, 0xd100_0000 + number * 0x8000);
        assert_eq!(place.first_gsi, gsi);
        gsi += u32::from(place.vectors);
    }
    assert_eq!(blueprint.gsis(), usize::try_from(gsi).unwrap());
    assert!(blueprint.platform.virtio.is_empty());
    assert!(!blueprint.cmdline.contains("virtio_mmio.device="));
    assert!(!blueprint.cmdline.contains("pci=off"));
    let more = MachineSpec {
        disks: vec![disk("/d", true); 30],
        ..spec
    };
    let error = Config::try_from(&more).unwrap_err();
    assert_eq!(
        error.to_string(),
        "disks 30: more than 29, the most of a machine"
    );
    let built_in = MachineSpec {
        transport: Transport::Pci,
        ..MachineSpec::default()
    };
    let error = Config::try_from(&built_in).unwrap_err();
    assert_eq!(
        error.to_string(),
        "transport pci: the built-in guest's kernel has no driver for it"
    );
    assert_eq!(
        error.remedy(),
        "give a kernel that has, or leave transport out"
    );
}

#[test]
fn devices_are_told_of_once() {
    let with = |platform| MachineSpec {
        platform,
        ..own_kernel()
    };
    for (platform, acpi, tables, by_cmdline) in [
        (PlatformTables::Auto, true, 2, false),
        (PlatformTables::Auto, false, 1, true),
        (PlatformTables::Acpi, true, 1, false),
        (PlatformTables::Acpi, false, 1, false),
        (PlatformTables::Mptable, true, 1, true),
        (PlatformTables::Mptable, false, 1, true),
        (PlatformTables::Both, true, 2, false),
        (PlatformTables::Both, false, 2, true),
    ] {
        let blueprint = plan_of(&with(platform), &host(), acpi).unwrap();
        assert_eq!(blueprint.tables.len(), tables, "{platform} {acpi}");
        let announced = blueprint
            .cmdline
            .contains("virtio_mmio.device=4K@0xd0000000:5");
        assert_eq!(announced, by_cmdline, "{platform} {acpi}");
    }
    let off = MachineSpec {
        cmdline: "acpi=off".into(),
        ..own_kernel()
    };
    assert!(cmdline(&off, true).contains("virtio_mmio.device="));
}

#[test]
fn only_some_plans_read_the_whole_kernel() {
    for (spec, reads) in [
        (MachineSpec::default(), false),
        (own_kernel(), true),
        (
            MachineSpec {
                platform: PlatformTables::Both,
                ..own_kernel()
            },
            true,
        ),
        (
            MachineSpec {
                platform: PlatformTables::Acpi,
                ..own_kernel()
            },
            false,
        ),
        (
            MachineSpec {
                platform: PlatformTables::Mptable,
                ..own_kernel()
            },
            false,
        ),
    ] {
        let config = Config::try_from(&spec).unwrap();
        assert_eq!(depends_on_acpi(&config), reads, "{}", spec.platform);
    }
}

#[test]
fn the_users_words_come_last() {
    let spec = MachineSpec {
        cmdline: "console=ttyS1 -- sh".into(),
        ..own_kernel()
    };
    let line = cmdline(&spec, false);
    assert!(line.starts_with("console=ttyS0 quiet "), "{line}");
    assert!(line.ends_with(":5 console=ttyS1 -- sh"), "{line}");
    let bare = MachineSpec {
        default_cmdline: false,
        rng: false,
        ..spec
    };
    assert_eq!(cmdline(&bare, false), "console=ttyS1 -- sh");
}

#[test]
fn the_first_disk_is_the_root_where_nothing_else_is() {
    let with = |disks, cmdline: &str| MachineSpec {
        disks,
        cmdline: cmdline.into(),
        ..own_kernel()
    };
    let line = cmdline(&with(vec![disk("/d", false)], ""), true);
    assert!(line.ends_with("root=/dev/vda rw"), "{line}");
    let line = cmdline(&with(vec![disk("/d", true)], ""), true);
    assert!(line.ends_with("root=/dev/vda ro"), "{line}");
    let line = cmdline(&with(vec![disk("/d", true)], "root=/dev/vdb"), true);
    assert!(!line.contains("root=/dev/vda"), "{line}");
    assert!(!cmdline(&with(vec![], ""), true).contains("root="));
    let initrd = MachineSpec {
        initrd: Some("/i".into()),
        ..with(vec![disk("/d", true)], "")
    };
    assert!(!cmdline(&initrd, true).contains("root="));
}

#[test]
fn the_root_is_where_the_user_says_whatever_coracle_would_choose() {
    let root = |partuuid: Option<&str>| DiskSpec {
        root: true,
        partuuid: partuuid.map(Into::into),
        ..disk("/r", true)
    };
    let with = |root, cmdline: &str, default_cmdline| MachineSpec {
        disks: vec![disk("/d", false), root],
        cmdline: cmdline.into(),
        default_cmdline,
        initrd: Some("/i".into()),
        ..own_kernel()
    };
    let own = |root, text| cmdline(&with(root, text, false), true);
    assert_eq!(own(root(None), "a -- b"), "root=/dev/vdb ro a -- b");
    assert_eq!(own(root(None), "root=/dev/vdc"), "root=/dev/vdc");
    assert_eq!(own(root(Some("0ea-01")), ""), "root=PARTUUID=0ea-01 ro");
    assert_eq!(own(disk("/x", false), ""), "");
    let line = cmdline(&with(root(None), "", true), true);
    assert!(line.ends_with("root=/dev/vdb ro"), "{line}");
}

#[test]
fn what_a_weak_host_needs_is_no_choice() {
    let weak = HostCaps {
        kernel_arguments: vec!["noxsave"],
        ..host()
    };
    let bare = MachineSpec {
        cmdline: "x".into(),
        default_cmdline: false,
        ..own_kernel()
    };
    assert_eq!(plan_of(&bare, &weak, true).unwrap().cmdline, "noxsave x");
}

fn refuse(spec: &MachineSpec, host: &HostCaps) -> (String, String) {
    let error = plan_of(spec, host, false).unwrap_err();
    (error.to_string(), error.remedy())
}

#[test]
fn what_the_host_refuses() {
    let memory = |text: &str| MachineSpec {
        memory: Some(SizeSpec::Text(text.into())),
        ..MachineSpec::default()
    };
    let (error, remedy) = refuse(&memory("17G"), &host());
    assert_eq!(error, "memory 17G: more than the 16 GiB of this host");
    assert_eq!(remedy, "give less memory than 16 GiB");

    let few = HostCaps {
        free_hugepages: 63,
        ..host()
    };
    let (error, remedy) = refuse(
        &MachineSpec {
            hugepages: true,
            ..memory("128M")
        },
        &few,
    );
    assert!(
        error.contains("needs 64 reserved pages of 2 MiB and 63 are free"),
        "{error}"
    );
    assert!(remedy.contains("vm.nr_hugepages=64"), "{remedy}");

    let small = HostCaps {
        kvm: KvmCaps {
            max_vcpus: 2,
            ..KvmCaps::stock()
        },
        ..host()
    };
    let (error, _) = refuse(
        &MachineSpec {
            cpus: 3,
            ..MachineSpec::default()
        },
        &small,
    );
    assert_eq!(error, "cpus 3: more than 2, the most of this host's KVM");

    let old = HostCaps {
        kvm: KvmCaps {
            irqfd: false,
            ..KvmCaps::stock()
        },
        ..host()
    };
    let (error, _) = refuse(&MachineSpec::default(), &old);
    assert_eq!(
        error,
        "this host's KVM lacks KVM_CAP_IRQFD, which is needed for interrupts of \
                       devices"
    );
}

#[test]
fn what_does_not_fit() {
    let long = MachineSpec {
        cmdline: "x".repeat(2040),
        ..own_kernel()
    };
    let (error, remedy) = refuse(&long, &host());
    assert!(
        error.starts_with("cmdline \"xxxx") && error.contains("longer than 2047"),
        "{error}"
    );
    assert!(
        error.len() < 150 && remedy.starts_with("shorten"),
        "{error} {remedy}"
    );

    let small = MachineSpec {
        memory: Some(SizeSpec::Text("16M".into())),
        ..own_kernel()
    };
    let (error, remedy) = refuse(&small, &host());
    assert!(
        error.starts_with("kernel /boot/vmlinux: the kernel loads 0x1000000"),
        "{error}"
    );
    assert!(remedy.contains("MiB or more"), "{remedy}");

    let initrd = MachineSpec {
        initrd: Some("/large".into()),
        ..small.clone()
    };
    let initrd = MachineSpec {
        memory: Some(SizeSpec::Text("18M".into())),
        ..initrd
    };
    let (error, remedy) = refuse(&initrd, &host());
    assert!(error.contains("the initrd has 20971520 bytes"), "{error}");
    assert!(
        remedy.contains("more memory or a smaller initrd"),
        "{remedy}"
    );

    let pvh = KernelSpec {
        path: "/k".into(),
        format: KernelFormat::Auto,
        protocol: KernelProtocol::Pvh,
    };
    let (error, remedy) = refuse(
        &MachineSpec {
            kernel: Some(pvh),
            ..own_kernel()
        },
        &host(),
    );
    assert_eq!(error, "kernel /k: the kernel has no pvh entry");
    assert_eq!(remedy, "use protocol linux64");
}
