use super::*;

#[test]
fn empty_json_is_the_default_machine() {
    let spec: MachineSpec = serde_json::from_str("{}").unwrap();
    assert_eq!(spec, MachineSpec::default());
    assert!(spec.rng && spec.default_cmdline && spec.cpus == 1);
}

#[test]
fn json_round_trip() {
    let spec = MachineSpec {
        kernel: Some(KernelSpec {
            path: "/k".into(),
            format: KernelFormat::BzImage,
            protocol: KernelProtocol::Pvh,
        }),
        memory: Some(SizeSpec::Text("2G".into())),
        disks: vec![DiskSpec {
            path: "/d".into(),
            format: DiskFormat::Cow,
            read_only: true,
            id: Some("x".into()),
            root: true,
            partuuid: Some("0eaa91a0-01".into()),
            engine: DiskEngine::IoUring,
            cache: DiskCache::Writethrough,
            direct: true,
            queues: Some(2),
            bandwidth: Some(RateSpec::per_second(SizeSpec::Text("10M".into()))),
            iops: Some(RateSpec {
                size: SizeSpec::Bytes(100),
                burst: Some(SizeSpec::Bytes(1000)),
                refill_ms: 50,
            }),
        }],
        nets: vec![NetSpec {
            id: Some("eth0".into()),
            kind: NetKind::Tap,
            name: Some("tap0".into()),
            path: Some("/run/passt".into()),
            fds: vec![3],
            mac: Some("02:00:00:00:00:01".into()),
            source: SourceMac::Any,
            mtu: Some(9000),
            queues: Some(2),
            rx: FlowSpec {
                bandwidth: Some(RateSpec::of_text("10M+1G")),
                packets: None,
            },
            tx: FlowSpec::default(),
            user: UserNetSpec {
                publish: vec!["8080:80".into()],
                egress: vec![
                    EgressSpec::Allow("10.0.0.1".into()),
                    EgressSpec::Deny("any".into()),
                ],
                host: true,
                ipv6: false,
                subnet: Some("10.1.0.0/16".into()),
                dns: vec!["9.9.9.9".into()],
            },
        }],
        console: ConsoleSpec {
            backend: ConsoleBackend::File("/log".into()),
            device: ConsoleDevice::Virtio,
        },
        balloon: Some(BalloonSpec {
            size: Some(SizeSpec::Text("64M".into())),
            reporting: true,
            ..BalloonSpec::default()
        }),
        console_ports: vec![ConsolePortSpec {
            name: "org.example.port".into(),
            backend: PortBackend::Socket("/s:1".into()),
            console: true,
        }],
        watchdog: Some(WatchdogAction::PowerOff),
        panic: PanicAction::Report,
        vsock: Some(VsockSpec {
            cid: 3,
            path: "/v".into(),
        }),
        platform: PlatformTables::Mptable,
        ..MachineSpec::default()
    };
    let text = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<MachineSpec>(&text).unwrap(), spec);
}

#[test]
fn firecrackers_names_of_the_socket_device() {
    let spec: MachineSpec =
        serde_json::from_str(r#"{"vsock": {"guest_cid": 3, "uds_path": "./v.sock"}}"#).unwrap();
    let path = "./v.sock".into();
    assert_eq!(spec.vsock, Some(VsockSpec { cid: 3, path }));
}

#[test]
fn json_that_is_refused() {
    for (text, part) in [
        (r#"{"cpu": 1}"#, "unknown field `cpu`"),
        (r#"{"cpus": -1}"#, "invalid value: integer `-1`"),
        (r#"{"cpus": "two"}"#, "invalid type: string"),
        (
            r#"{"kernel": {"path": "/k", "kind": 1}}"#,
            "unknown field `kind`",
        ),
        (r#"{"kernel": {}}"#, "missing field `path`"),
        (
            r#"{"disks": [{"read_only": true}]}"#,
            "missing field `path`",
        ),
        (
            r#"{"console": {"backend": "tty"}}"#,
            "console \"tty\" is not one of stdio, pty",
        ),
        (r#"{"platform": "pc"}"#, "unknown variant `pc`"),
        (
            r#"{"console_ports": [{"name": "a", "backend": "tcp:1"}]}"#,
            "console port \"tcp:1\" is not one of socket:PATH, file:PATH, pty",
        ),
        (r#"{"watchdog": "bite"}"#, "unknown variant `bite`"),
        (r#"{"balloon": {"sice": 1}}"#, "unknown field `sice`"),
        (r#"{"memory": 1.5}"#, "did not match any variant"),
    ] {
        let error = serde_json::from_str::<MachineSpec>(text)
            .unwrap_err()
            .to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("0", Ok(0)),
        ("4096", Ok(4096)),
        ("1k", Ok(1 << 10)),
        ("128M", Ok(128 << 20)),
        ("128MiB", Ok(128 << 20)),
        ("128mb", Ok(128 << 20)),
        ("2G", Ok(2 << 30)),
        ("1T", Ok(1 << 40)),
        ("16777215T", Ok(16_777_215 << 40)),
        ("16777216T", Err(SizeError::TooLarge)),
        ("99999999999999999999", Err(SizeError::TooLarge)),
        ("", Err(SizeError::Malformed)),
        ("M", Err(SizeError::Malformed)),
        ("-1", Err(SizeError::Malformed)),
        ("+1", Err(SizeError::Malformed)),
        ("1.5G", Err(SizeError::Malformed)),
        (" 1G", Err(SizeError::Malformed)),
        ("1 G", Err(SizeError::Malformed)),
        ("1GG", Err(SizeError::Malformed)),
        ("0x10", Err(SizeError::Malformed)),
        ("1GéB", Err(SizeError::Malformed)),
    ] {
        assert_eq!(SizeSpec::Text(text.into()).bytes(), bytes, "{text}");
    }
}

/// The words of the command line and of JSON are the same.
#[test]
fn words_are_serde_names() {
    fn check<T>(words: &str)
    where
        T: std::str::FromStr<Err = TextError> + ToString + serde::Serialize,
    {
        for word in words.split(", ") {
            let value: T = word.parse().unwrap();
            assert_eq!(value.to_string(), word);
            assert_eq!(
                serde_json::to_string(&value).unwrap(),
                format!("\"{word}\"")
            );
        }
        let refused = "nonsense".parse::<T>().err().unwrap();
        assert_eq!(refused.accepted, words);
    }
    check::<KernelFormat>("auto, elf, bzimage");
    check::<KernelProtocol>("auto, linux64, pvh");
    check::<ConsoleDevice>("auto, serial, virtio");
    check::<WatchdogAction>("reset, poweroff, report");
    check::<PanicAction>("end, report");
    check::<NetKind>("user, tap, passt");
    check::<SourceMac>("own, any");
    check::<DiskEngine>("auto, sync, io_uring");
    check::<DiskCache>("writeback, writethrough");
    check::<PlatformTables>("auto, acpi, mptable, both");
}

#[test]
fn console_backends() {
    for word in ["stdio", "pty", "none", "file:/tmp/x y"] {
        assert_eq!(word.parse::<ConsoleBackend>().unwrap().to_string(), word);
    }
    for word in ["", "file:", "file", "STDIO", "null"] {
        assert!(word.parse::<ConsoleBackend>().is_err(), "{word}");
    }
}
