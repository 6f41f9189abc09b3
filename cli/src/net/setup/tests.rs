use super::*;

fn wanted() -> Wanted {
    Wanted {
        tap: "vm0".into(),
        nat: None,
        bridge: None,
        there: Bridge::Missing,
        user: "me".into(),
        queues: 1,
        mtu: None,
    }
}

fn commands(wanted: &Wanted) -> Vec<String> {
    let text = script(&steps(wanted).unwrap());
    let lines = text.lines().filter_map(|line| line.strip_prefix("sudo "));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_network_of_its_own() {
    let all = [
        "ip tuntap add dev vm0 mode tap user me",
        "ip address replace 172.31.0.1/24 dev vm0",
        "sysctl -q -w net.ipv4.ip_forward=1",
        "nft add table inet coracle_vm0",
        "nft add chain inet coracle_vm0 out '{ type nat hook postrouting priority 100; }'",
        "nft add rule inet coracle_vm0 out ip saddr 172.31.0.0/24 ip daddr '!=' 172.31.0.0/24 \
         masquerade",
        "nft add chain inet coracle_vm0 forward '{ type filter hook forward priority 0; }'",
        "nft add rule inet coracle_vm0 forward oifname vm0 ct state established,related accept",
        "nft add rule inet coracle_vm0 forward oifname vm0 iifname '!=' vm0 drop",
        "ip link set dev vm0 up",
    ];
    assert_eq!(commands(&wanted()), all);
    let steps = steps(&wanted()).unwrap();
    assert_eq!(
        undo_script(&steps),
        "sudo nft delete table inet coracle_vm0\nsudo ip tuntap del dev vm0 mode tap\n"
    );
    assert!(script(&steps).ends_with(
        "# coracle boot --net tap:vm0 --cmdline \
         ip=172.31.0.2::172.31.0.1:255.255.255.0:::off:9.9.9.9\n"
    ));
}

#[test]
fn a_port_of_a_bridge() {
    let bridge = Wanted {
        bridge: Some("br0".into()),
        queues: 4,
        mtu: Some(9000),
        ..wanted()
    };
    let all = [
        "ip tuntap add dev vm0 mode tap user me multi_queue",
        "ip link set dev vm0 mtu 9000",
        "ip link add name br0 type bridge",
        "ip link set dev br0 up",
        "ip link set dev vm0 master br0",
        "ip link set dev vm0 up",
    ];
    assert_eq!(commands(&bridge), all);
    // Somebody else's bridge is neither made nor removed.
    let joined = Wanted {
        there: Bridge::Others,
        ..bridge.clone()
    };
    assert!(
        !commands(&joined)
            .iter()
            .any(|line| line.contains("type bridge"))
    );
    let undo = undo_script(&steps(&joined).unwrap());
    assert_eq!(undo, "sudo ip tuntap del dev vm0 mode tap multi_queue\n");
    let both = Wanted {
        nat: Some("10.1.0.1/16".into()),
        ..bridge
    };
    let all = commands(&both);
    assert!(
        all.contains(&"ip address replace 10.1.0.1/16 dev br0".into()),
        "{all:?}"
    );
    let undo = undo_script(&steps(&both).unwrap());
    assert!(
        undo.contains("ip link delete dev br0 type bridge"),
        "{undo}"
    );
    assert!(undo.contains("nft delete table inet coracle_br0"), "{undo}");
    // A second tap finds what the first one made, and the last one takes it away.
    for shared in [true, false] {
        let again = Wanted {
            there: Bridge::Ours { shared },
            ..both.clone()
        };
        let all = commands(&again);
        assert!(
            !all.iter().any(|line| line.contains("type bridge")),
            "{all:?}"
        );
        assert!(!all.iter().any(|line| line.contains("nft")), "{all:?}");
        let undo = undo_script(&steps(&again).unwrap());
        assert_eq!(undo.contains("delete"), !shared, "{undo}");
    }
}

#[test]
fn whose_a_bridge_is() {
    let classes = tempfile::tempdir().unwrap();
    let find = || Bridge::find(classes.path(), "br0", "vm0");
    assert_eq!(find(), Bridge::Missing);
    let folder = classes.path().join("br0");
    fs::create_dir_all(folder.join("bridge")).unwrap();
    fs::create_dir_all(folder.join("brif/vm0")).unwrap();
    assert_eq!(find(), Bridge::Others);
    fs::write(folder.join("ifalias"), "coracle\n").unwrap();
    assert_eq!(find(), Bridge::Ours { shared: false });
    fs::create_dir_all(folder.join("brif/vm1")).unwrap();
    assert_eq!(find(), Bridge::Ours { shared: true });
}

#[test]
fn what_makes_no_sense() {
    let refused = |change: fn(&mut Wanted)| {
        let mut wanted = wanted();
        change(&mut wanted);
        steps(&wanted).unwrap_err().message
    };
    for change in [
        (|wanted| wanted.tap = String::new()) as fn(&mut Wanted),
        |wanted| wanted.tap = "a b".into(),
        |wanted| wanted.tap = "-a".into(),
        |wanted| wanted.tap = "0123456789012345".into(),
        |wanted| wanted.bridge = Some("a/b".into()),
    ] {
        assert!(refused(change).contains("not a name"));
    }
    for nat in [
        "",
        "10.0.0.1",
        "10.0.0.0/24",
        "10.0.0.255/24",
        "10.0.0.1/31",
        "::1/64",
        "a/8",
    ] {
        let failure = Network::read(nat).unwrap_err();
        assert!(
            failure.message.contains("not an address of a host"),
            "{failure}"
        );
    }
    let last = Network::read("10.0.0.254/24").unwrap();
    assert_eq!(last.guest().to_string(), "10.0.0.253");
}

#[test]
fn words_for_a_shell() {
    for (word, shown) in [
        ("a-b_c.d/e:f=1,2", "a-b_c.d/e:f=1,2"),
        ("a b", "'a b'"),
        ("!=", "'!='"),
        ("it's", "'it'\\''s'"),
    ] {
        assert_eq!(quoted(word), shown);
    }
}
