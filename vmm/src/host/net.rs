//! Judges a host's networks: whether a tap can be had, which is found out by opening it, and what
//! is around it. [`NetFacts`] are read first, [`judge_net`] is pure.

use std::fs;
use std::path::Path;

use api::doctor::{Check, Need, NetReport, State};
use devices::net::tap::{Tap, TapRequest};

use super::doctor::{check, found, mended};

/// What is known about a host's networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetFacts {
    /// The tap's name that was asked about.
    pub name: Option<String>,
    /// What became of opening it: its name, or what is wrong and what mends it.
    pub tap: Result<String, (String, String)>,
    /// Whether the host sends packets through it, where that is known: by a route or a bridge.
    pub leads_somewhere: Option<bool>,
    /// Whether the host passes packets on.
    pub forwards: bool,
    /// Whether the host knows a way out.
    pub default_route: bool,
    /// The same for IPv6.
    pub default_route6: bool,
    /// Whether `/etc/resolv.conf` names a server.
    pub name_server: bool,
    /// The least port that a user without rights may listen on.
    pub first_port: u16,
    /// Programs that `coracle net setup` uses and that are not there.
    pub missing_programs: Vec<&'static str>,
}

/// The programs of `coracle net setup` and the packages that have them.
const PROGRAMS: [&str; 2] = ["ip", "nft"];

impl NetFacts {
    /// Reads the facts from the file system below `root` (`/` on a real host), and opens the tap,
    /// which is made and removed again where there is none.
    #[must_use]
    pub fn gather(root: &Path, request: &TapRequest) -> Self {
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
        let name = request.name.clone();
        let leads = name.as_deref().filter(|name| {
            let folder = root.join("sys/class/net").join(name);
            folder.exists()
        });
        let leads = leads.map(|name| {
            let bridged = root
                .join("sys/class/net")
                .join(name)
                .join("master")
                .exists();
            bridged || routes(&read("proc/net/route")).any(|(device, _)| device == name)
        });
        let route6 = read("proc/net/ipv6_route");
        Self {
            tap: Tap::open(request)
                .map(|tap| tap.name().to_owned())
                .map_err(|error| (error.problem.to_string(), error.remedy())),
            leads_somewhere: leads,
            name,
            forwards: read("proc/sys/net/ipv4/ip_forward").trim() == "1",
            default_route: routes(&read("proc/net/route")).any(|(_, to)| to == "00000000"),
            default_route6: route6.lines().any(is_default6),
            name_server: read("etc/resolv.conf")
                .lines()
                .any(|line| line.trim_start().starts_with("nameserver")),
            first_port: read("proc/sys/net/ipv4/ip_unprivileged_port_start")
                .trim()
                .parse()
                .unwrap_or(1024),
            missing_programs: PROGRAMS
                .into_iter()
                .filter(|name| !is_installed(root, name))
                .collect(),
        }
    }
}

/// The devices and destinations of `/proc/net/route`.
fn routes(table: &str) -> impl Iterator<Item = (&str, &str)> {
    table.lines().skip(1).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?, words.next()?))
    })
}

/// A line of `/proc/net/ipv6_route` that leads everywhere, and not through the loopback device,
/// where the kernel keeps what is unreachable.
fn is_default6(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let everywhere = words.next() == Some("00000000000000000000000000000000");
    everywhere && words.next() == Some("00") && words.last() != Some("lo")
}

fn is_installed(root: &Path, name: &str) -> bool {
    let folders = ["usr/sbin", "sbin", "usr/bin", "bin", "usr/local/sbin"];
    let mut folders = folders.iter();
    folders.any(|folder| root.join(folder).join(name).exists())
}

/// Judges a host's networks.
#[must_use]
pub fn judge_net(facts: &NetFacts) -> NetReport {
    let mut checks = vec![
        user_check(facts),
        ports_check(facts),
        ipv6_check(facts),
        tap_check(facts),
    ];
    checks.extend(leads_check(facts));
    checks.extend([route_check(facts), forward_check(facts)]);
    checks.extend(PROGRAMS.map(|name| program_check(facts, name)));
    let ready = match facts.name {
        Some(_) => facts.tap.is_ok(),
        None => true,
    };
    NetReport { ready, checks }
}

fn user_check(facts: &NetFacts) -> Check {
    let name = "--net user";
    match facts.name_server {
        true => check(name, Need::Optional, State::Found, "works for every user"),
        false => mended(
            check(
                name,
                Need::Optional,
                State::Found,
                "works, but /etc/resolv.conf names no server",
            ),
            "coracle boot --net user,dns=ADDRESS",
        ),
    }
}

fn ports_check(facts: &NetFacts) -> Check {
    let detail = format!("ports from {} on can be published", facts.first_port);
    let judged = check("published ports", Need::Optional, State::Found, detail);
    match facts.first_port {
        0..=80 => judged,
        _ => mended(
            judged,
            "for lower ones: sudo sysctl net.ipv4.ip_unprivileged_port_start=80",
        ),
    }
}

fn ipv6_check(facts: &NetFacts) -> Check {
    let detail = match facts.default_route6 {
        true => "the host has a way out",
        false => "the host has no way out: guests reach each other and the host only",
    };
    check("IPv6", Need::Optional, found(facts.default_route6), detail)
}

fn tap_check(facts: &NetFacts) -> Check {
    let (label, need) = match &facts.name {
        Some(name) => (format!("tap {name}"), Need::Required),
        None => ("taps".to_owned(), Need::Optional),
    };
    match (&facts.tap, &facts.name) {
        (Ok(_), Some(_)) => check(&label, need, State::Found, "can be used"),
        (Ok(_), None) => check(&label, need, State::Found, "this user may make them"),
        (Err((problem, remedy)), _) => mended(check(&label, need, State::Missing, problem), remedy),
    }
}

fn leads_check(facts: &NetFacts) -> Option<Check> {
    let name = facts.name.as_deref()?;
    let leads = facts.leads_somewhere?;
    let label = format!("way to {name}");
    Some(match leads {
        true => check(&label, Need::Optional, State::Found, "a route or a bridge"),
        false => mended(
            check(
                &label,
                Need::Optional,
                State::Missing,
                "no route and no bridge: its guest reaches nobody",
            ),
            &format!("sudo coracle net setup --tap {name} --apply"),
        ),
    })
}

fn route_check(facts: &NetFacts) -> Check {
    let detail = match facts.default_route {
        true => "the host has one",
        false => "the host has none: guests reach the host only",
    };
    let name = "default route";
    check(name, Need::Optional, found(facts.default_route), detail)
}

fn forward_check(facts: &NetFacts) -> Check {
    let judged = |state, detail: &str| check("forwarding", Need::Optional, state, detail);
    match facts.forwards {
        true => judged(State::Found, "the host passes packets of guests on taps on"),
        false => mended(
            judged(
                State::Missing,
                "the host passes nothing on: guests on routed taps reach the host only",
            ),
            "sudo sysctl net.ipv4.ip_forward=1",
        ),
    }
}

fn program_check(facts: &NetFacts, name: &'static str) -> Check {
    let missing = facts.missing_programs.contains(&name);
    let detail = "for `coracle net setup`";
    let judged = check(name, Need::Optional, found(!missing), detail);
    let package = if name == "ip" { "iproute2" } else { "nftables" };
    match missing {
        true => mended(judged, &format!("sudo apt install {package}")),
        false => judged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> NetFacts {
        NetFacts {
            name: Some("vm0".into()),
            tap: Ok("vm0".into()),
            leads_somewhere: Some(true),
            forwards: true,
            default_route: true,
            default_route6: true,
            name_server: true,
            first_port: 0,
            missing_programs: vec![],
        }
    }

    #[test]
    fn a_good_host_has_nothing_to_mend() {
        let report = judge_net(&good());
        assert!(report.ready);
        let found = |check: &Check| check.state == State::Found && check.fix.is_none();
        assert!(report.checks.iter().all(found), "{report:?}");
    }

    #[test]
    fn what_is_missing_has_a_command_that_mends_it() {
        let bad = NetFacts {
            tap: Err(("another process uses it".into(), "end it".into())),
            leads_somewhere: Some(false),
            forwards: false,
            default_route: false,
            default_route6: false,
            name_server: false,
            first_port: 1024,
            missing_programs: vec!["ip", "nft"],
            ..good()
        };
        let report = judge_net(&bad);
        assert!(!report.ready);
        for (name, fix) in [
            ("--net user", "dns=ADDRESS"),
            ("published ports", "unprivileged_port_start=80"),
            ("tap vm0", "end it"),
            ("way to vm0", "coracle net setup --tap vm0"),
            ("forwarding", "ip_forward=1"),
            ("ip", "iproute2"),
            ("nft", "nftables"),
        ] {
            let check = report.checks.iter().find(|check| check.name == name);
            let mend = check.and_then(|check| check.fix.clone()).unwrap();
            assert!(mend.contains(fix), "{name}: {mend}");
        }
        // Without a name nothing depends on taps.
        let nobody = NetFacts { name: None, ..bad };
        assert!(judge_net(&nobody).ready);
    }

    #[test]
    fn the_kernels_tables() {
        let table = "Iface\tDestination\tGateway\neth0\t00000000\t0102000A\nvm0\t00001FAC\t0\n";
        let all: Vec<_> = routes(table).collect();
        assert_eq!(all, [("eth0", "00000000"), ("vm0", "00001FAC")]);
        let zero = "00000000000000000000000000000000";
        let line = |prefix: &str, device: &str| {
            format!("{zero} {prefix} {zero} 00 {zero} ffffffff 1 0 00200200 {device}")
        };
        assert!(is_default6(&line("00", "eth0")));
        assert!(!is_default6(&line("00", "lo")));
        assert!(!is_default6(&line("40", "eth0")));
        assert!(!is_default6(""));
    }

    #[test]
    fn facts_are_read_from_files() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/sys/net/ipv4/ip_forward", "1\n");
        write("proc/net/route", "Iface\tDestination\neth0\t00000000\n");
        write("etc/resolv.conf", "# x\nnameserver 9.9.9.9\n");
        write("usr/sbin/ip", "");
        // A name that no tap can have opens none.
        let request = TapRequest {
            name: Some("a/b".into()),
            ..TapRequest::default()
        };
        let facts = NetFacts::gather(root.path(), &request);
        assert!(facts.forwards && facts.default_route && facts.name_server);
        assert_eq!(facts.missing_programs, ["nft"]);
        assert_eq!(facts.first_port, 1024);
        assert!(facts.tap.is_err() && !facts.default_route6);
    }
}
