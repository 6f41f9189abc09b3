use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use api::spec::{
    BalloonSpec, ConsoleBackend, ConsoleDevice, ConsolePortSpec, DiskSpec, KernelFormat,
    KernelProtocol, KernelSpec, MachineSpec, MmdsSpec, MmdsVersion, NetKind, NetSpec, PanicAction,
    PlatformTables, PortBackend, RateSpec, SizeSpec, Transport, UserNetSpec, VsockSpec,
    WatchdogAction,
};
use clap::CommandFactory;

use super::*;
use crate::exit::Exit;

fn command(words: &[&str]) -> Result<Command, Failure> {
    parse(
        std::iter::once("coracle")
            .chain(words.iter().copied())
            .map(OsString::from),
    )
}

/// The machine that `coracle boot WORDS` asks for.
fn spec(words: &[&str]) -> Result<MachineSpec, Failure> {
    let mut all = vec!["boot"];
    all.extend(words);
    match command(&all)? {
        Command::Boot(flags) => flags.spec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_flags_are_the_default_machine() {
    assert_eq!(spec(&[]).unwrap(), MachineSpec::default());
}

#[test]
fn every_flag() {
    let words = "--kernel /k --kernel-format elf --kernel-protocol pvh --initrd /i --cmdline a=1 \
                 --cmdline -b --no-default-cmdline --cpus 4 --memory 2G --hugepages --disk /d,ro \
                 --disk /e,id=e --net tap:vm0,mtu=9000 --net user -p 8080:80 --mmds /m,compat \
                 --no-rng --rng-limit 64K --balloon size=64M,reporting \
                 --watchdog report \
                 --console-port name=a,pty,console --panic report --vsock cid=9,path=/v \
                 --transport pci \
                 --platform mptable --console file:/log --console-device virtio --stop-timeout 1.5";
    let words: Vec<&str> = words.split_whitespace().collect();
    let expected = MachineSpec {
        kernel: Some(KernelSpec {
            path: "/k".into(),
            format: KernelFormat::Elf,
            protocol: KernelProtocol::Pvh,
        }),
        initrd: Some("/i".into()),
        cmdline: "a=1 -b".into(),
        default_cmdline: false,
        cpus: 4,
        memory: Some(SizeSpec::Text("2G".into())),
        hugepages: true,
        disks: vec![
            DiskSpec {
                path: "/d".into(),
                read_only: true,
                ..DiskSpec::default()
            },
            DiskSpec {
                path: "/e".into(),
                id: Some("e".into()),
                ..DiskSpec::default()
            },
        ],
        nets: vec![
            NetSpec {
                kind: NetKind::Tap,
                name: Some("vm0".into()),
                mtu: Some(9000),
                ..NetSpec::default()
            },
            NetSpec {
                user: UserNetSpec {
                    publish: vec!["8080:80".into()],
                    ..UserNetSpec::default()
                },
                ..NetSpec::default()
            },
        ],
        mmds: Some(MmdsSpec {
            version: MmdsVersion::V2,
            network_interfaces: vec!["net0".into(), "net1".into()],
            ipv4_address: None,
            imds_compat: true,
        }),
        console: api::spec::ConsoleSpec {
            backend: ConsoleBackend::File("/log".into()),
            device: ConsoleDevice::Virtio,
        },
        rng: false,
        rng_bandwidth: Some(RateSpec::of_text("64K")),
        rng_iops: None,
        balloon: Some(BalloonSpec {
            size: Some(SizeSpec::Text("64M".into())),
            reporting: true,
            ..BalloonSpec::default()
        }),
        console_ports: vec![ConsolePortSpec {
            name: "a".into(),
            backend: PortBackend::Pty,
            console: true,
        }],
        watchdog: Some(WatchdogAction::Report),
        panic: PanicAction::Report,
        vsock: Some(VsockSpec {
            cid: 9,
            path: "/v".into(),
        }),
        transport: Transport::Pci,
        platform: PlatformTables::Mptable,
        stop_timeout_ms: 1500,
    };
    assert_eq!(spec(&words).unwrap(), expected);
}

#[test]
fn paths_need_not_be_text() {
    let odd = |before: &[u8]| OsString::from_vec([before, b"/\xff"].concat());
    let words = [
        OsString::from("coracle"),
        "boot".into(),
        "--console".into(),
        odd(b"file:"),
        "--console-port".into(),
        odd(b"name=a,file="),
        "--disk".into(),
        odd(b""),
    ];
    let Ok(Command::Boot(flags)) = parse(words.into_iter()) else {
        panic!("the flags are good")
    };
    let spec = flags.spec().unwrap();
    let path = || odd(b"").into();
    assert_eq!(spec.console.backend, ConsoleBackend::File(path()));
    assert_eq!(spec.console_ports[0].backend, PortBackend::File(path()));
    assert_eq!(spec.disks[0].path, PathBuf::from(odd(b"")));
}

#[test]
fn arguments_that_make_no_sense() {
    for (words, message, hint) in [
        ("", "no command given", "try `coracle boot`"),
        (
            "boost",
            "unrecognized subcommand 'boost'",
            "did you mean boot?",
        ),
        ("frob", "unrecognized subcommand 'frob'", "`coracle --help`"),
        (
            "--frob",
            "unexpected argument '--frob' found",
            "`coracle --help`",
        ),
        (
            "boot --memry 1G",
            "unexpected argument '--memry' found",
            "did you mean --memory?",
        ),
        (
            "boot extra",
            "unexpected argument 'extra' found",
            "`coracle --help`",
        ),
        (
            "boot --hugepages=yes",
            "unexpected value 'yes' for '--hugepages' found; no more were expected",
            "`coracle",
        ),
        (
            "boot --memory",
            "a value is required for '--memory <SIZE>' but none was supplied",
            "`coracle --help`",
        ),
        (
            "boot --kernel-format elf",
            "the following required arguments were not provided: --kernel <FILE>",
            "`coracle --help`",
        ),
        (
            "doctor --jsn",
            "unexpected argument '--jsn' found",
            "did you mean --json?",
        ),
    ] {
        let words: Vec<&str> = words.split_whitespace().collect();
        let failure = command(&words).unwrap_err();
        assert_eq!(failure.message, message, "{words:?}");
        assert!(
            failure.hint.starts_with(hint),
            "{words:?}: {}",
            failure.hint
        );
        assert_eq!(failure.exit, Exit::BadInput);
    }
}

#[test]
fn values_that_make_no_sense() {
    for (words, message, hint) in [
        (
            "--cpus two",
            "cpus \"two\" is not a whole number",
            "1 to 64",
        ),
        ("--cpus -1", "cpus \"-1\" is not a whole number", "1 to 64"),
        ("--cpus=", "cpus \"\" is not a whole number", "1 to 64"),
        ("--cpus +1", "cpus \"+1\" is not a whole number", "1 to 64"),
        (
            "--cpus 1.5",
            "cpus \"1.5\" is not a whole number",
            "1 to 64",
        ),
        (
            "--cpus 99999999999999999999",
            "cpus \"99999999999999999999\" is not",
            "1 to 64",
        ),
        (
            "--console tty",
            "console \"tty\" is not one of stdio, pty, file:PATH, none",
            "stdio",
        ),
        (
            "--console file:",
            "console \"file:\" is not one of",
            "stdio",
        ),
        (
            "--console-device vga",
            "console device \"vga\" is not one of auto, serial",
            "auto",
        ),
        (
            "--transport ccw",
            "transport \"ccw\" is not one of mmio, pci",
            "mmio",
        ),
        (
            "--platform pc",
            "platform \"pc\" is not one of auto, acpi, mptable, both",
            "auto",
        ),
        (
            "--kernel /k --kernel-format pe",
            "kernel format \"pe\" is not one of auto, elf",
            "auto",
        ),
        (
            "--kernel /k --kernel-protocol x",
            "kernel protocol \"x\" is not one of auto",
            "auto",
        ),
        (
            "--disk /d,rw",
            "disk /d,rw: has the unknown option \"rw\"",
            "ro, id=NAME, format=raw|qcow2|cow",
        ),
        (
            "--watchdog bite",
            "watchdog \"bite\" is not one of reset, poweroff, report",
            "reset",
        ),
        (
            "--panic ignore",
            "panic \"ignore\" is not one of end, report",
            "end",
        ),
        (
            "--balloon big",
            "balloon big: has the unknown option \"big\"",
            "size=SIZE",
        ),
        (
            "--stop-timeout soon",
            "stop timeout \"soon\" is not a number of seconds",
            "10 or 0.5",
        ),
        (
            "--stop-timeout -1",
            "stop timeout \"-1\" is not a number of seconds",
            "10 or 0.5",
        ),
        (
            "--stop-timeout 1.",
            "stop timeout \"1.\" is not a number of seconds",
            "10 or 0.5",
        ),
        (
            "--stop-timeout 1e3",
            "stop timeout \"1e3\" is not a number of seconds",
            "10 or 0.5",
        ),
        (
            "--stop-timeout 99999999999999999999",
            "stop timeout",
            "10 or 0.5",
        ),
        (
            "--spec /nonexistent",
            "spec /nonexistent: can't be opened: no such file",
            "check",
        ),
        (
            "--spec /",
            "spec /: is a directory, not a file",
            "path of a file",
        ),
    ] {
        let words: Vec<&str> = words.split_whitespace().collect();
        let failure = spec(&words).unwrap_err();
        assert!(
            failure.message.starts_with(message),
            "{words:?}: {}",
            failure.message
        );
        assert!(failure.hint.contains(hint), "{words:?}: {}", failure.hint);
        assert_eq!(failure.exit, Exit::BadInput);
    }
}

/// Wrappers and aliases give flags that the user's own come after.
#[test]
fn the_last_flag_wins() {
    let spec = spec(&["--cpus", "2", "--hugepages", "--cpus", "3", "--hugepages"]).unwrap();
    assert_eq!((spec.cpus, spec.hugepages), (3, true));
}

#[test]
fn stop_timeouts_in_fractions() {
    for (text, ms) in [
        ("0", 0),
        ("10", 10_000),
        ("0.5", 500),
        ("1.25", 1250),
        ("2.0009", 2000),
    ] {
        assert_eq!(
            spec(&["--stop-timeout", text]).unwrap().stop_timeout_ms,
            ms,
            "{text}"
        );
    }
}

#[test]
fn flags_change_and_add_to_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("machine.json");
    fs::write(
        &path,
        r#"{"cpus": 2, "cmdline": "a", "disks": [{"path": "/d"}]}"#,
    )
    .unwrap();
    let file = path.to_str().unwrap();
    let spec = spec(&[
        "--spec",
        file,
        "--cpus",
        "3",
        "--cmdline",
        "b",
        "--disk",
        "/e",
    ])
    .unwrap();
    assert_eq!(
        (spec.cpus, spec.cmdline.as_str(), spec.disks.len()),
        (3, "a b", 2)
    );
}

#[test]
fn files_that_are_no_specification() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("machine.json");
    for (text, part) in [
        ("{", "EOF while parsing"),
        (r#"{"cpu": 2}"#, "unknown field `cpu`"),
        ("", "is empty"),
        ("\u{1}", "expected value"),
        (&" ".repeat(2 << 20), "is longer than 1 MiB"),
    ] {
        fs::write(&path, text).unwrap();
        let failure = spec(&["--spec", path.to_str().unwrap()]).unwrap_err();
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    fs::write(&path, b"\xff\xfe").unwrap();
    assert!(spec(&["--spec", path.to_str().unwrap()]).is_err());
}

#[test]
fn help_and_version_go_to_standard_output() {
    for words in [
        &["--help"][..],
        &["-h"],
        &["boot", "--help"],
        &["--version"],
    ] {
        assert!(matches!(command(words), Ok(Command::Help(_))), "{words:?}");
    }
}

/// The help texts as users see them. `CORACLE_BLESS=1` writes them anew.
#[test]
fn help_texts_are_golden() {
    let mut top = Arguments::command();
    top.build();
    let mut texts = vec![("coracle".to_owned(), top.clone())];
    texts.extend(
        top.get_subcommands()
            .map(|sub| (sub.get_name().to_owned(), sub.clone())),
    );
    for (name, mut described) in texts {
        let text = described.render_help().to_string();
        // What is typed may take a shorter way to the same text.
        let typed = match name.as_str() {
            "coracle" => vec!["--help"],
            name => vec![name, "-h"],
        };
        let Ok(Command::Help(printed)) = command(&typed) else {
            panic!("{typed:?} gives no help");
        };
        assert_eq!(printed, text, "{typed:?}");
        let long = text.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None, "{name}");
        let golden = format!("{}/src/flags/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("CORACLE_BLESS").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(text, expected, "{golden}; CORACLE_BLESS=1 writes it anew");
    }
}
