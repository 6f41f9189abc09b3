use super::*;
use std::time::Duration;

fn rules(policy: Policy) -> Rules {
    Rules::new(&Config {
        policy,
        ..Config::default()
    })
}

fn policy(default: Action, lines: &[(Action, &str)]) -> Policy {
    let parse = |(action, text): &(Action, &str)| Rule::parse(*action, text).unwrap();
    Policy {
        rules: lines.iter().map(parse).collect(),
        default,
        host: false,
    }
}

/// Whether TCP to an address is let through.
fn allows(rules: &Rules, to: &str) -> bool {
    let to = to.parse().unwrap();
    rules.way(Some(Protocol::Tcp), to, Instant::now()).is_some()
}

#[test]
fn some_addresses_are_closed_by_themselves() {
    let open = rules(Policy::default());
    for (to, allowed) in [
        ("93.184.216.34:80", true),
        ("10.9.0.1:80", true),
        ("192.168.77.1:80", true),
        ("[2606:4700::1111]:443", true),
        ("169.254.169.254:80", false),
        ("169.254.1.1:80", false),
        ("100.100.100.200:80", false),
        ("168.63.129.16:80", false),
        ("[fd00:ec2::254]:80", false),
        ("127.0.0.1:80", false),
        ("127.8.8.8:80", false),
        ("0.0.0.0:80", false),
        ("224.0.0.251:5353", false),
        ("255.255.255.255:67", false),
        ("[::1]:80", false),
        ("[::]:80", false),
        ("[fe80::1]:80", false),
        ("[ff02::fb]:5353", false),
        ("[::ffff:127.0.0.1]:80", false),
        ("[::7f00:1]:80", false),
        ("[64:ff9b::7f00:1]:80", false),
        ("[64:ff9b::a9fe:a9fe]:80", false),
        ("[64:ff9b::101:101]:80", true),
        ("[2002:7f00:1::1]:80", false),
        // The gateway is the host's loopback; others of the network do not exist.
        ("10.0.2.2:80", false),
        ("[fd00::2]:80", false),
        ("10.0.2.77:80", false),
        ("10.0.2.15:80", false),
    ] {
        assert_eq!(allows(&open, to), allowed, "{to}");
    }
}

#[test]
fn a_rule_that_lies_around_a_closed_address_does_not_open_it() {
    use Action::{Allow, Deny};
    let around = rules(policy(Allow, &[(Allow, "0.0.0.0/0"), (Allow, "any")]));
    assert!(!allows(&around, "169.254.169.254:80"));
    assert!(!allows(&around, "10.0.2.2:80"));
    assert!(!allows(&around, "127.0.0.1:80"));
    let named = rules(policy(
        Deny,
        &[(Allow, "169.254.169.254:80"), (Allow, "10.0.2.2:5432")],
    ));
    assert!(allows(&named, "169.254.169.254:80"));
    assert!(!allows(&named, "169.254.169.254:81"));
    assert!(!allows(&named, "169.254.169.253:80"));
    assert!(!allows(&named, "10.0.2.2:80"));
    let to = "10.0.2.2:5432".parse().unwrap();
    let way = named.way(Some(Protocol::Tcp), to, Instant::now());
    assert_eq!(way, Some("127.0.0.1:5432".parse().unwrap()));
}

#[test]
fn the_hosts_own_addresses_are_closed_unless_said() {
    let Some(own) = source_for("198.51.100.1".parse().unwrap()) else {
        println!("SKIPPED: this host has no way to other hosts, and so no address of its own");
        return;
    };
    let to = SocketAddr::new(own, 22);
    let now = Instant::now();
    assert_eq!(
        rules(Policy::default()).way(Some(Protocol::Tcp), to, now),
        None
    );
    let open = rules(Policy {
        host: true,
        ..Policy::default()
    });
    assert_eq!(open.way(Some(Protocol::Tcp), to, now), Some(to));
    let gateway = "[fd00::2]:22".parse().unwrap();
    let way = open.way(Some(Protocol::Udp), gateway, now);
    assert_eq!(way, Some("[::1]:22".parse().unwrap()));
}

#[test]
fn the_first_rule_that_fits_decides() {
    use Action::{Allow, Deny};
    let rules = rules(policy(
        Allow,
        &[
            (Allow, "10.1.2.3:443/tcp"),
            (Deny, "10.0.0.0/8"),
            (Deny, "any:25"),
            (Deny, "[2001:4860::/32]:53-60/udp"),
        ],
    ));
    let way = |protocol, to: &str| rules.way(protocol, to.parse().unwrap(), Instant::now());
    let (tcp, udp) = (Some(Protocol::Tcp), Some(Protocol::Udp));
    for (protocol, to, allowed) in [
        (tcp, "10.1.2.3:443", true),
        (udp, "10.1.2.3:443", false),
        (tcp, "10.1.2.3:444", false),
        (None, "10.1.2.3:0", false),
        (tcp, "11.0.0.1:25", false),
        (tcp, "11.0.0.1:26", true),
        // Ping has no port: a rule for ports is not about it.
        (None, "11.0.0.1:25", true),
        (udp, "[2001:4860::8888]:53", false),
        (tcp, "[2001:4860::8888]:53", true),
        (udp, "[2001:4860::8888]:61", true),
    ] {
        assert_eq!(way(protocol, to).is_some(), allowed, "{protocol:?} {to}");
    }
}

#[test]
fn names_lead_to_addresses_for_a_while() {
    use Action::{Allow, Deny};
    let mut rules = rules(policy(
        Deny,
        &[(Deny, "bad.example.com"), (Allow, "*.example.com:443")],
    ));
    let now = Instant::now();
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let to = |text: &str| text.parse::<SocketAddr>().unwrap();
    let tcp = Some(Protocol::Tcp);
    assert_eq!(rules.way(tcp, to("1.1.1.1:443"), now), None);
    rules
        .names
        .learn("www.example.com", &[], &[(ip("1.1.1.1"), 300)], now);
    assert!(rules.way(tcp, to("1.1.1.1:443"), now).is_some());
    assert_eq!(rules.way(tcp, to("1.1.1.1:80"), now), None);
    // The name moves: the new address is open at once, the old one until its time is over.
    let later = now + Duration::from_secs(200);
    rules
        .names
        .learn("www.example.com", &[], &[(ip("2.2.2.2"), 5)], later);
    assert!(rules.way(tcp, to("2.2.2.2:443"), later).is_some());
    assert!(rules.way(tcp, to("1.1.1.1:443"), later).is_some());
    let end = now + Duration::from_secs(301);
    assert_eq!(rules.way(tcp, to("1.1.1.1:443"), end), None);
    assert_eq!(rules.way(tcp, to("2.2.2.2:443"), end), None);
    // An alias closes and never opens; a name never leads to what is closed by itself.
    let alias = ["www.example.com".to_owned(), "bad.example.com".to_owned()];
    rules
        .names
        .learn("x.org", &alias, &[(ip("3.3.3.3"), 300)], now);
    assert_eq!(rules.way(tcp, to("3.3.3.3:443"), now), None);
    let inside = [(ip("127.0.0.1"), 300), (ip("169.254.169.254"), 300)];
    rules.names.learn("rebind.example.com", &[], &inside, now);
    assert_eq!(rules.way(tcp, to("127.0.0.1:443"), now), None);
    assert_eq!(rules.way(tcp, to("169.254.169.254:443"), now), None);
}

#[test]
fn names_that_no_rule_allows_are_not_asked_for() {
    use Action::{Allow, Deny};
    let strict = rules(policy(
        Deny,
        &[(Deny, "bad.example.com"), (Allow, "*.example.com:443")],
    ));
    for (name, asked) in [
        ("www.example.com", true),
        ("bad.example.com", false),
        ("example.com", false),
        ("notexample.com", false),
        ("secret.evil.org", false),
    ] {
        assert_eq!(strict.resolves(name), asked, "{name}");
    }
    let open = rules(policy(
        Allow,
        &[(Deny, "bad.example.com:25"), (Deny, "x.org")],
    ));
    assert!(open.resolves("bad.example.com"));
    assert!(!open.resolves("x.org"));
    assert!(open.resolves("y.org"));
}

#[test]
fn remembered_addresses_are_bounded() {
    let mut rules = rules(policy(Action::Allow, &[(Action::Deny, "*.example.com")]));
    let now = Instant::now();
    for block in 0..40_u32 {
        let of = |host: u32| {
            (
                IpAddr::V4(Ipv4Addr::from_bits(block << 16 | host)),
                block * 100,
            )
        };
        let addresses: Vec<_> = (0..200).map(of).collect();
        rules.names.learn("a.example.com", &[], &addresses, now);
    }
    assert!(
        rules
            .names
            .has(0, Ipv4Addr::from_bits(39 << 16).into(), now)
    );
    assert!(!rules.names.has(0, Ipv4Addr::from_bits(0).into(), now));
}
