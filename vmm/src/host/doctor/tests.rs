use super::super::KvmCaps;
use super::*;

fn stock() -> Facts {
    Facts {
        kvm: KvmFacts::Usable {
            features: KvmCaps::stock().features().to_vec(),
            tried: vec![],
        },
        vmx: true,
        svm: false,
        virtual_machine: false,
        memory_bytes: 16 << 30,
        free_hugepages: 12,
        tun: DeviceFile::Usable,
        userns_forbidden_by: None,
    }
}

fn by_name<'a>(report: &'a DoctorReport, name: &str) -> &'a Check {
    report
        .checks
        .iter()
        .find(|check| check.name == name)
        .unwrap()
}

#[test]
fn a_good_host_has_nothing_to_mend() {
    let report = judge(&stock());
    assert_eq!(report.kind, HostKind::StockIntel);
    assert!(report.ready);
    for check in &report.checks {
        assert_eq!(
            (check.state, &check.fix),
            (State::Found, &None),
            "{}",
            check.name
        );
    }
}

#[test]
fn kinds_of_hosts() {
    let amd = Facts {
        vmx: false,
        svm: true,
        ..stock()
    };
    assert_eq!(judge(&amd).kind, HostKind::StockAmd);
    let weak = Facts {
        vmx: false,
        virtual_machine: true,
        ..stock()
    };
    assert_eq!(judge(&weak).kind, HostKind::Emulating);
    let none = Facts {
        kvm: KvmFacts::Missing,
        ..weak
    };
    let report = judge(&none);
    assert_eq!(report.kind, HostKind::NoKvm);
    assert!(report.summary.contains("nested"), "{}", report.summary);
}

#[test]
fn what_mends_kvm() {
    let bare = Facts {
        vmx: false,
        svm: false,
        ..stock()
    };
    for (facts, detail, fix) in [
        (
            Facts {
                kvm: KvmFacts::Missing,
                ..stock()
            },
            "is not there",
            "sudo modprobe kvm_intel",
        ),
        (
            Facts {
                kvm: KvmFacts::Missing,
                svm: true,
                ..bare.clone()
            },
            "is not there",
            "sudo modprobe kvm_amd",
        ),
        (
            Facts {
                kvm: KvmFacts::Missing,
                ..bare.clone()
            },
            "VT-x, AMD-V",
            "",
        ),
        (
            Facts {
                kvm: KvmFacts::Missing,
                virtual_machine: true,
                ..bare.clone()
            },
            "nested virtualisation",
            "",
        ),
        (
            Facts {
                kvm: KvmFacts::Denied,
                ..stock()
            },
            "may not open",
            "usermod -aG kvm",
        ),
        (
            Facts {
                kvm: KvmFacts::Denied,
                ..stock()
            },
            "may not open",
            "setfacl",
        ),
        (
            Facts {
                kvm: KvmFacts::Broken("API 11".into()),
                ..stock()
            },
            "API 11",
            "",
        ),
    ] {
        let report = judge(&facts);
        assert!(!report.ready);
        let check = by_name(&report, "/dev/kvm");
        assert!(check.detail.contains(detail), "{check:?}");
        match (&check.fix, fix) {
            (None, "") => {}
            (Some(text), _) if !fix.is_empty() && text.contains(fix) => {}
            _ => panic!("{check:?}"),
        }
    }
}

#[test]
fn what_else_is_mended() {
    let poor = Facts {
        free_hugepages: 0,
        tun: DeviceFile::Missing,
        userns_forbidden_by: Some("kernel.unprivileged_userns_clone=1"),
        ..stock()
    };
    let report = judge(&poor);
    assert!(report.ready, "only options are missing");
    for (name, fix) in [
        ("hugepages", "vm.nr_hugepages="),
        ("/dev/net/tun", "modprobe tun"),
        (
            "user namespaces",
            "sudo sysctl kernel.unprivileged_userns_clone=1",
        ),
    ] {
        let check = by_name(&report, name);
        assert_eq!(check.state, State::Missing);
        assert!(check.fix.as_deref().unwrap().contains(fix), "{check:?}");
    }
    let denied = judge(&Facts {
        tun: DeviceFile::Denied,
        ..stock()
    });
    assert!(
        by_name(&denied, "/dev/net/tun")
            .fix
            .as_deref()
            .unwrap()
            .contains("setfacl")
    );
}

#[test]
fn a_missing_feature_decides_only_where_it_is_needed() {
    for (name, ready) in [
        ("KVM_CAP_SPLIT_IRQCHIP", false),
        ("KVM_CAP_IOEVENTFD", true),
    ] {
        let mut features = KvmCaps::stock().features().to_vec();
        features
            .iter_mut()
            .find(|one| one.name == name)
            .unwrap()
            .found = false;
        let report = judge(&Facts {
            kvm: KvmFacts::Usable {
                features,
                tried: vec![("int3", false)],
            },
            ..stock()
        });
        assert_eq!(report.ready, ready, "{name}");
        assert_eq!(by_name(&report, name).state, State::Missing);
        assert_eq!(by_name(&report, "int3").detail, "Coracle completes it");
    }
}

/// A file system with the files that the facts are read from.
#[test]
fn facts_of_a_root() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let empty = Facts::gather(root.path(), KvmFacts::Missing);
    assert!(!empty.vmx && !empty.svm && empty.free_hugepages == 0);
    assert_eq!(
        (empty.tun, empty.userns_forbidden_by),
        (DeviceFile::Missing, None)
    );

    write(
        "proc/cpuinfo",
        "processor\t: 0\nflags\t\t: fpu vmx hypervisor\n",
    );
    write(
        "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
        "7\n",
    );
    write("dev/net/tun", "");
    write("proc/sys/user/max_user_namespaces", "100\n");
    write("proc/sys/kernel/unprivileged_userns_clone", "0\n");
    let full = Facts::gather(root.path(), KvmFacts::Denied);
    assert!(full.vmx && !full.svm && full.virtual_machine);
    assert_eq!((full.free_hugepages, full.tun), (7, DeviceFile::Usable));
    assert_eq!(
        full.userns_forbidden_by,
        Some("kernel.unprivileged_userns_clone=1")
    );
}
