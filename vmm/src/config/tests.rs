use api::spec::{
    BalloonSpec, ConsolePortSpec, ConsoleSpec, DiskFormat, DiskSpec, NetKind, NetSpec, PortBackend,
    RateSpec, SizeSpec,
};
use devices::net::tap::TapRequest;

use super::*;

fn text(size: &str) -> Option<SizeSpec> {
    Some(SizeSpec::Text(size.to_owned()))
}

fn disk(id: Option<&str>) -> DiskSpec {
    DiskSpec {
        path: "/d".into(),
        read_only: true,
        id: id.map(Into::into),
        ..DiskSpec::default()
    }
}

fn refuse(spec: &MachineSpec) -> (String, String) {
    let error = Config::try_from(spec).unwrap_err();
    (error.to_string(), error.remedy())
}

fn with(change: impl FnOnce(&mut MachineSpec)) -> MachineSpec {
    let mut spec = MachineSpec::default();
    change(&mut spec);
    spec
}

#[test]
fn defaults() {
    let config = Config::try_from(&MachineSpec::default()).unwrap();
    assert_eq!(config.memory.bytes(), 128 << 20);
    assert_eq!(config.cpus.get(), 1);
    let kernel = KernelSpec {
        path: "/k".into(),
        format: KernelFormat::Auto,
        protocol: KernelProtocol::Auto,
    };
    let config = Config::try_from(&with(|spec| spec.kernel = Some(kernel))).unwrap();
    assert_eq!(config.memory.bytes(), 512 << 20);
}

#[test]
fn memory() {
    for (size, huge, error, remedy) in [
        ("0", false, "memory 0: less than 16 MiB", "at least 16 MiB"),
        ("1", false, "memory 1: less than 16 MiB", "at least 16 MiB"),
        (
            "15M",
            false,
            "memory 15M: less than 16 MiB",
            "at least 16 MiB",
        ),
        (
            "16777217",
            false,
            "memory 16777217: not a multiple of 4 KiB",
            "multiple of 4 KiB",
        ),
        (
            "17M",
            true,
            "memory 17M: not a multiple of 2 MiB",
            "multiple of 2 MiB",
        ),
        (
            "17T",
            false,
            "memory 17T: more than 16 TiB",
            "at most 16 TiB",
        ),
        (
            "99999999T",
            false,
            "memory 99999999T: larger than any machine's memory",
            "such as 512M",
        ),
        (
            "lots",
            false,
            "memory lots: not a whole number with a unit",
            "such as 512M",
        ),
        (
            "",
            false,
            "memory : not a whole number with a unit",
            "such as 512M",
        ),
        (
            "-1G",
            false,
            "memory -1G: not a whole number with a unit",
            "such as 512M",
        ),
    ] {
        let spec = with(|spec| {
            spec.memory = text(size);
            spec.hugepages = huge;
        });
        let (message, hint) = refuse(&spec);
        assert!(message.starts_with(error), "{message}");
        assert!(hint.contains(remedy), "{hint}");
    }
    for mib in [16, 17, 2047, 2048, 2049, 3071, 3072, 3073, 4096, 6144] {
        let spec = with(|spec| spec.memory = text(&format!("{mib}M")));
        assert_eq!(Config::try_from(&spec).unwrap().memory.bytes(), mib << 20);
    }
}

#[test]
fn cpus() {
    for (cpus, error, remedy) in [
        (
            0,
            "cpus 0: a machine needs at least one",
            "give cpus of 1 or more",
        ),
        (
            65,
            "cpus 65: more than 64, the most of a machine",
            "give cpus of at most 64",
        ),
        (257, "cpus 257: more than 64", "at most 64"),
        (
            u64::MAX,
            "cpus 18446744073709551615: more than 64",
            "at most 64",
        ),
    ] {
        let (message, hint) = refuse(&with(|spec| spec.cpus = cpus));
        assert!(message.starts_with(error), "{message}");
        assert!(hint.contains(remedy), "{hint}");
    }
    for cpus in [1, 2, 64] {
        let config = Config::try_from(&with(|spec| spec.cpus = cpus)).unwrap();
        assert_eq!(u64::from(config.cpus.get()), cpus);
    }
}

#[test]
fn cmdline() {
    for (line, error, remedy) in [
        (
            "a\0b",
            "cmdline \"a\\0b\": contains a NUL byte",
            "take a NUL byte out of cmdline",
        ),
        (
            "a\nb",
            "cmdline \"a\\nb\": contains a newline",
            "take a newline out",
        ),
        (
            "a\rb",
            "cmdline \"a\\rb\": contains a carriage return",
            "take a carriage return out",
        ),
        (
            "a\u{1b}b",
            "cmdline \"a\\u{1b}b\": contains a control character",
            "take a control",
        ),
    ] {
        let (message, hint) = refuse(&with(|spec| line.clone_into(&mut spec.cmdline)));
        assert_eq!(message, error);
        assert!(hint.contains(remedy), "{hint}");
    }
    let long = format!("{}\n", "x".repeat(5000));
    let (message, _) = refuse(&with(|spec| spec.cmdline = long));
    assert!(message.len() < 100, "{message}");
    let config = Config::try_from(&with(|spec| spec.cmdline = " a=\"é b\"\tc ".into())).unwrap();
    assert_eq!(config.cmdline.as_str(), "a=\"é b\"\tc");
}

#[test]
fn paths() {
    let empty_kernel = KernelSpec {
        path: "".into(),
        format: KernelFormat::Auto,
        protocol: KernelProtocol::Auto,
    };
    for (spec, error) in [
        (
            with(|spec| spec.kernel = Some(empty_kernel)),
            "kernel \"\": is empty",
        ),
        (
            with(|spec| spec.initrd = Some("".into())),
            "initrd \"\": is empty",
        ),
        (
            with(|spec| spec.initrd = Some("a\0b".into())),
            "initrd a\0b: contains a NUL byte",
        ),
        (
            with(|spec| {
                spec.disks = vec![DiskSpec {
                    path: "".into(),
                    ..disk(None)
                }];
            }),
            "disk \"\"",
        ),
        (
            with(|spec| {
                spec.console = ConsoleSpec {
                    backend: ConsoleBackend::File("".into()),
                    ..Default::default()
                };
            }),
            "console \"\": is empty",
        ),
    ] {
        let (message, _) = refuse(&spec);
        assert!(message.starts_with(error), "{message}");
    }
}

#[test]
fn disks() {
    for (disks, error) in [
        (vec![disk(Some(""))], "disk id \"\": not 1 to 64 letters"),
        (
            vec![disk(Some("a b"))],
            "disk id \"a b\": not 1 to 64 letters",
        ),
        (vec![disk(Some("é"))], "disk id \"é\": not 1 to 64 letters"),
        (
            vec![disk(Some(&"1".repeat(65)))],
            "disk id \"1111111111111111111111111111111111111111\"…: not 1 to 64",
        ),
        (
            vec![disk(Some("a")), disk(Some("a"))],
            "disk id a: given twice",
        ),
        (
            vec![disk(None); 14],
            "disks 14: more than 13, the most of a machine",
        ),
    ] {
        let (message, hint) = refuse(&with(|spec| spec.disks = disks));
        assert!(message.starts_with(error), "{message}");
        assert!(!hint.is_empty());
    }
    let good = vec![
        disk(Some("12345678901234567890")),
        disk(Some("a.b-c_d")),
        disk(None),
    ];
    assert_eq!(
        Config::try_from(&with(|spec| spec.disks = good))
            .unwrap()
            .disks
            .len(),
        3
    );
    assert!(Config::try_from(&with(|spec| spec.disks = vec![disk(None); 13])).is_ok());
}

#[test]
fn console_ports() {
    let port = |name: &str, backend: PortBackend| ConsolePortSpec {
        name: name.into(),
        backend,
        console: false,
    };
    let ports = |ports: Vec<ConsolePortSpec>| with(|spec| spec.console_ports = ports);
    let long = PortBackend::Socket("x".repeat(108).into());
    for (bad, error) in [
        (
            vec![port("", PortBackend::Pty)],
            "console port name \"\": not 1 to 64",
        ),
        (
            vec![port("a/b", PortBackend::Pty)],
            "console port name \"a/b\": not 1 to 64",
        ),
        (
            vec![port(&"x".repeat(65), PortBackend::Pty)],
            "console port name \"xxx",
        ),
        (
            vec![port("a", PortBackend::Pty); 2],
            "console port name a: given twice",
        ),
        (vec![port("a", long)], "console port socket xxx"),
        (
            vec![port("a", PortBackend::File("a\0b".into()))],
            "console port file a\0b: contains a NUL byte",
        ),
        (
            (0..16)
                .map(|n| port(&n.to_string(), PortBackend::Pty))
                .collect(),
            "console ports 16: more than 15",
        ),
    ] {
        let (message, hint) = refuse(&ports(bad));
        assert!(message.starts_with(error), "{message}");
        assert!(!hint.is_empty());
    }
    let good = ports(vec![port("org.example_1-a", PortBackend::Pty)]);
    assert_eq!(Config::try_from(&good).unwrap().console_ports.len(), 1);
}

#[test]
fn roots() {
    let root = |path: &str, partuuid: Option<&str>| DiskSpec {
        path: path.into(),
        root: true,
        partuuid: partuuid.map(Into::into),
        ..DiskSpec::default()
    };
    let spec = |disks, kernel| MachineSpec {
        disks,
        kernel,
        ..MachineSpec::default()
    };
    let kernel = || {
        Some(KernelSpec {
            path: "/k".into(),
            format: KernelFormat::Auto,
            protocol: KernelProtocol::Auto,
        })
    };
    for (spec, message) in [
        (
            spec(vec![root("/a", None)], None),
            "root disk /a: the built-in",
        ),
        (
            spec(vec![root("/a", None), root("/b", None)], kernel()),
            "root disk /b: given twice",
        ),
        (
            spec(vec![root("/a", Some("x y"))], kernel()),
            "partuuid \"x y\": not 1 to 64 hex",
        ),
        (spec(vec![root("/a", Some(""))], kernel()), "partuuid"),
    ] {
        let (came, hint) = refuse(&spec);
        assert!(came.starts_with(message) && !hint.is_empty(), "{came}");
    }
    let read = Config::try_from(&spec(vec![root("/a", Some("0EA-01"))], kernel())).unwrap();
    assert_eq!(read.disks[0].root, Some(Root::Partition("0EA-01".into())));
}

#[test]
fn limits_of_random_numbers() {
    for (limit, error) in [
        ("0", "rng limit 0: lets nothing through"),
        ("fast", "rng limit fast: not a whole number"),
    ] {
        let (message, hint) = refuse(&with(|spec| {
            spec.rng_bandwidth = Some(RateSpec::of_text(limit));
        }));
        assert!(message.starts_with(error), "{message}");
        assert!(!hint.is_empty());
    }
    let config = Config::try_from(&with(|spec| {
        spec.rng_bandwidth = Some(RateSpec::of_text("64K"));
    }))
    .unwrap();
    assert_eq!(
        config.rng_limits.bytes.map(|bucket| bucket.size),
        Some(65_536)
    );
}

#[test]
fn balloons() {
    let balloon = |size: &str, stats_seconds| {
        let size = text(size);
        with(|spec| {
            spec.balloon = Some(BalloonSpec {
                size,
                stats_seconds,
                ..BalloonSpec::default()
            });
        })
    };
    for (size, stats, error, remedy) in [
        (
            "128M",
            0,
            "balloon size 128M: more than the guest's 128 MiB",
            "below 128 MiB",
        ),
        (
            "1T",
            0,
            "balloon size 1T: more than the guest's 128 MiB",
            "below 128 MiB",
        ),
        (
            "5000",
            0,
            "balloon size 5000: not a multiple of 4 KiB",
            "multiple of 4 KiB",
        ),
        (
            "much",
            0,
            "balloon size much: not a whole number",
            "such as 512M",
        ),
        (
            "64M",
            86_401,
            "balloon stats 86401 s: longer than a day",
            "at most a day",
        ),
    ] {
        let (message, hint) = refuse(&balloon(size, stats));
        assert!(message.starts_with(error), "{message}");
        assert!(hint.contains(remedy), "{hint}");
    }
    let config = Config::try_from(&balloon("64M", 86_400)).unwrap();
    let settings = config.balloon.unwrap();
    assert_eq!(settings.target_bytes, 64 << 20);
    assert_eq!(settings.memory_bytes, 128 << 20);
    // It takes the place of a disk.
    let mut full = balloon("64M", 0);
    full.disks = vec![disk(None); 13];
    assert_eq!(
        refuse(&full).0,
        "disks 13: more than 12, the most of a machine"
    );
    full.disks.pop();
    assert!(Config::try_from(&full).is_ok());
}

#[test]
fn disk_limits_and_queues() {
    let refused = |change: fn(&mut DiskSpec)| {
        let mut spec = disk(None);
        change(&mut spec);
        refuse(&with(move |machine| machine.disks = vec![spec])).0
    };
    let rate = |text: &str| Some(RateSpec::per_second(SizeSpec::Text(text.into())));
    for (message, part) in [
        (
            refused(|d| d.queues = Some(0)),
            "disk queues 0: not between 1 and 16",
        ),
        (refused(|d| d.queues = Some(17)), "disk queues 17: "),
        (
            refused(|d| d.queues = Some(1 << 40)),
            "disk queues 1099511627776: ",
        ),
        (
            refused(|d| d.iops = Some(RateSpec::per_second(SizeSpec::Bytes(0)))),
            "disk iops 0: lets nothing through",
        ),
        (
            refused(|d| d.bandwidth = Some(RateSpec::per_second(SizeSpec::Text("x".into())))),
            "disk bandwidth x: not a whole number",
        ),
        (
            refused(|d| {
                d.iops = Some(RateSpec {
                    refill_ms: 0,
                    ..RateSpec::per_second(SizeSpec::Bytes(1))
                });
            }),
            "refill time in milliseconds 0: ",
        ),
        (
            refused(|d| (d.format, d.direct) = (DiskFormat::Cow, true)),
            "disk /d: engine and direct are for raw images",
        ),
    ] {
        assert!(message.starts_with(part), "{message}");
    }
    let spec = with(|spec| {
        spec.cpus = 8;
        spec.disks = vec![DiskSpec {
            bandwidth: rate("10M"),
            ..disk(None)
        }];
    });
    let config = Config::try_from(&spec).unwrap();
    assert_eq!(config.disks[0].queues, 4);
    let bytes = config.disks[0].limits.bytes.unwrap();
    assert_eq!((bytes.size, bytes.burst), (10 << 20, 0));
    assert_eq!(bytes.refill, Duration::from_secs(1));
    assert_eq!(config.disks[0].limits.operations, None);
}

#[test]
fn stop_timeouts() {
    let (message, _) = refuse(&with(|spec| spec.stop_timeout_ms = 3_600_001));
    assert_eq!(message, "stop timeout 3600001 ms: longer than an hour");
    let config = Config::try_from(&with(|spec| spec.stop_timeout_ms = 0)).unwrap();
    assert_eq!(config.stop_timeout, Duration::ZERO);
}

#[test]
fn sizes_are_readable() {
    for (bytes, text) in [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (128 << 20, "128 MiB"),
        ((24 << 30) - 1, "23.9 GiB"),
        (1 << 44, "16 TiB"),
        (u64::MAX, "16777215.9 TiB"),
    ] {
        assert_eq!(Size(bytes).to_string(), text);
    }
}

#[test]
fn sockets() {
    let vsock = |cid, path: &str| {
        let path = path.into();
        with(|spec| spec.vsock = Some(api::spec::VsockSpec { cid, path }))
    };
    for cid in [3, u64::from(u32::MAX) - 1] {
        let config = Config::try_from(&vsock(cid, &"x".repeat(107))).unwrap();
        assert_eq!(config.vsock.map(|one| one.cid), Some(cid));
    }
    for cid in [0, 1, 2, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        let (error, remedy) = refuse(&vsock(cid, "v"));
        assert_eq!(
            error,
            format!("vsock cid {cid}: not between 3 and 4294967294")
        );
        assert_eq!(remedy, "give a vsock cid from 3 to 4294967294");
    }
    let (error, remedy) = refuse(&vsock(3, &"x".repeat(108)));
    assert!(error.ends_with("x: longer than 107 bytes"), "{error}");
    assert_eq!(remedy, "shorten vsock path to at most 107 bytes");
    for (path, problem) in [("", "is empty"), ("a\0b", "contains a NUL byte")] {
        assert!(refuse(&vsock(3, path)).0.ends_with(problem));
    }
}

fn net(change: impl FnOnce(&mut NetSpec)) -> MachineSpec {
    let mut net = NetSpec {
        kind: NetKind::Tap,
        name: Some("vm0".into()),
        ..NetSpec::default()
    };
    change(&mut net);
    with(|spec| spec.nets = vec![net])
}

#[test]
fn network_interfaces() {
    let nets = |spec: &MachineSpec| Config::try_from(spec).unwrap().nets;
    let one = nets(&net(|_| {}));
    let tap = TapRequest {
        name: Some("vm0".into()),
        fds: vec![],
        queues: 1,
        mtu: None,
    };
    assert_eq!(one[0].link, LinkConfig::Tap(tap));
    assert_eq!(one[0].mac.0[0], 2);
    // The address stays what it is as long as the place does, and two have not the same.
    assert_eq!(one, nets(&net(|_| {})));
    let many = with(|spec| spec.nets = vec![NetSpec::default(); 8]);
    let mut macs: Vec<_> = nets(&many).iter().map(|net| net.mac.to_string()).collect();
    assert!(macs.iter().all(|mac| mac.starts_with("02:")), "{macs:?}");
    macs.sort();
    macs.dedup();
    assert_eq!(macs.len(), 8);
    let fds = nets(&net(|net| {
        net.name = None;
        net.fds = vec![3, 4];
    }));
    assert_eq!(fds[0].pairs, 2);
    let mac = nets(&net(|net| net.mac = Some("02:AB:0c:00:00:01".into())))[0].mac;
    assert_eq!(mac.to_string(), "02:ab:0c:00:00:01");
    let user = nets(&with(|spec| spec.nets = vec![NetSpec::default()]));
    assert_eq!(user[0].link.mtu(), Some(1500));
}

#[test]
fn network_interfaces_that_are_refused() {
    type Change = fn(&mut NetSpec);
    let table: [(Change, &str, &str); 19] = [
        (
            |net| net.mac = Some("2".into()),
            "net mac \"2\": not the Ethernet",
            "02:00:00",
        ),
        (
            |net| net.mac = Some("02-00-00-00-00-01".into()),
            "net mac \"02-00",
            "such as",
        ),
        (
            |net| net.mac = Some("02:00:00:00:00:01:02".into()),
            "net mac",
            "such as",
        ),
        (
            |net| net.mac = Some("02:00:00:00:00:+1".into()),
            "net mac",
            "such as",
        ),
        (
            |net| net.mac = Some("00:00:00:00:00:00".into()),
            "net mac",
            "such as",
        ),
        (
            |net| net.mac = Some("ff:ff:ff:ff:ff:ff".into()),
            "net mac",
            "such as",
        ),
        (
            |net| net.mac = Some("03:00:00:00:00:01".into()),
            "net mac \"03:00:00:00:00:01\": an Ethernet address for groups",
            "such as",
        ),
        (
            |net| net.mtu = Some(67),
            "net mtu 67: not between 68 and 65521",
            "from 68",
        ),
        (
            |net| net.mtu = Some(65_522),
            "net mtu 65522: not between",
            "to 65521",
        ),
        (
            |net| net.queues = Some(0),
            "net queues 0: not between 1 and 16",
            "from 1",
        ),
        (
            |net| net.queues = Some(17),
            "net queues 17: not between",
            "to 16",
        ),
        (
            |net| net.name = Some("a-name-of-16-byt".into()),
            "tap \"a-name-of-16-byt\": longer",
            "15 bytes",
        ),
        (
            |net| net.name = Some(String::new()),
            "tap \"\": not a name",
            "tap0",
        ),
        (
            |net| net.name = Some("a/b".into()),
            "tap \"a/b\": not a name",
            "tap0",
        ),
        (
            |net| net.fds = vec![3],
            "tap \"vm0\": given by name and by",
            "fd=",
        ),
        (
            |net| {
                net.name = None;
                net.fds = vec![3, 3];
            },
            "tap fd 3: given twice",
            "once",
        ),
        (
            |net| {
                net.name = None;
                net.fds = vec![3];
                net.queues = Some(2);
            },
            "net queues 2: not the number",
            "leave",
        ),
        (
            |net| net.user.host = true,
            "net tap: publish, allow",
            "--net user",
        ),
        (
            |net| net.kind = NetKind::User,
            "net user: a name and descriptors",
            "tap:NAME",
        ),
    ];
    for (change, error, remedy) in table {
        let (message, hint) = refuse(&net(change));
        assert!(message.starts_with(error), "{message}");
        assert!(hint.contains(remedy), "{hint}");
    }
    let user = |change: Change| {
        let mut net = NetSpec::default();
        change(&mut net);
        refuse(&with(|spec| spec.nets = vec![net])).0
    };
    assert_eq!(
        user(|net| net.mtu = Some(1279)),
        "net mtu 1279: not between 1280 and 65520"
    );
    assert!(user(|net| net.queues = Some(2)).starts_with("queues of net user or passt 2: "));
    assert!(user(|net| net.path = Some("/p".into())).contains("is for passt"));
    let passt = user(|net| net.kind = NetKind::Passt);
    assert!(passt.starts_with("passt socket \"\": "), "{passt}");
    let nine = with(|spec| spec.nets = vec![NetSpec::default(); 9]);
    assert!(
        refuse(&nine).0.starts_with("nets 9: more than"),
        "{:?}",
        refuse(&nine)
    );
    let twice = net(|_| {});
    let twice = with(|spec| spec.nets = vec![twice.nets[0].clone(); 2]);
    assert_eq!(refuse(&twice).0, "tap vm0: given twice");
    let macs = with(|spec| {
        let mac = Some("02:00:00:00:00:01".into());
        spec.nets = vec![
            NetSpec {
                mac,
                ..NetSpec::default()
            };
            2
        ];
    });
    assert_eq!(refuse(&macs).0, "net mac 02:00:00:00:00:01: given twice");
    // Interfaces take slots that disks could have.
    let full = with(|spec| {
        spec.nets = vec![NetSpec::default(); 8];
        spec.disks = (0..6).map(|_| disk(None)).collect();
    });
    assert!(
        refuse(&full).0.starts_with("disks 6: "),
        "{:?}",
        refuse(&full)
    );
}
