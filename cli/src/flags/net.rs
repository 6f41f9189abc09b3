//! The values of `--net` and `--publish`: `tap[:NAME]`, `user` or `passt:SOCKET`, and options after
//! commas.

use api::spec::{EgressSpec, NetKind, NetSpec, RateSpec, UserNetSpec};

use super::boot::word;
use super::number;
use crate::failure::Failure;

/// The options of an interface, for messages.
const OPTIONS: &str = "the options are mac=, source=, mtu=, rx=, tx=, rx-packets= and \
                       tx-packets=; for a tap fd= and queues=; for user publish=, allow=, \
                       deny=, host=on, ipv6=off, subnet= and dns=";

/// Reads one `--net`.
///
/// # Errors
/// When the kind or an option is unknown, given twice or without its value.
pub(crate) fn parse(value: &str) -> Result<NetSpec, Failure> {
    let mut parts = value.split(',');
    let kind = parts.next().unwrap_or_default();
    let mut net = match kind.split_once(':') {
        Some(("tap", name)) => NetSpec {
            name: Some(name.to_owned()),
            ..NetSpec::default()
        },
        Some(("passt", path)) => NetSpec {
            path: Some(path.into()),
            ..NetSpec::default()
        },
        _ => NetSpec::default(),
    };
    net.kind = match kind {
        "user" => NetKind::User,
        _ if net.path.is_some() => NetKind::Passt,
        _ if kind == "tap" || net.name.is_some() => NetKind::Tap,
        _ => {
            let hint = "write --net user, --net tap, --net tap:NAME or --net passt:SOCKET";
            return Err(refuse(value, "is of no known kind", hint));
        }
    };
    let mut seen: Vec<&str> = Vec::new();
    for part in parts {
        let unknown = || refuse(value, &format!("has the unknown option {part:?}"), OPTIONS);
        let (name, text) = part.split_once('=').ok_or_else(unknown)?;
        if seen.contains(&name) {
            let reason = format!("has {name}= twice");
            return Err(refuse(value, &reason, "give each option once"));
        }
        if !set(&mut net, value, name, text)? && !repeatable(&mut net, name, text)? {
            return Err(unknown());
        }
        if !REPEATABLE.contains(&name) {
            seen.push(name);
        }
    }
    Ok(net)
}

/// Sets what is given once; false when the option is none of those.
fn set(net: &mut NetSpec, value: &str, name: &str, text: &str) -> Result<bool, Failure> {
    let rate = || Some(RateSpec::of_text(text));
    match name {
        "mac" => net.mac = Some(text.to_owned()),
        "source" => net.source = text.parse().map_err(word)?,
        "mtu" => net.mtu = Some(number("net mtu", text, "give an mtu such as mtu=1500")?),
        "queues" => {
            let hint = "give queues a number, such as queues=2";
            net.queues = Some(number("net queues", text, hint)?);
        }
        "rx" => net.rx.bandwidth = rate(),
        "tx" => net.tx.bandwidth = rate(),
        "rx-packets" => net.rx.packets = rate(),
        "tx-packets" => net.tx.packets = rate(),
        "host" => net.user.host = switch(value, name, text)?,
        "ipv6" => net.user.ipv6 = switch(value, name, text)?,
        "subnet" => net.user.subnet = Some(text.to_owned()),
        _ => return Ok(false),
    }
    Ok(true)
}

const REPEATABLE: [&str; 5] = ["fd", "publish", "allow", "deny", "dns"];

/// Adds what may be given several times; false when the option is none of those.
fn repeatable(net: &mut NetSpec, name: &str, text: &str) -> Result<bool, Failure> {
    let owned = text.to_owned();
    match name {
        "fd" => {
            let hint = "give the number of an open descriptor, such as fd=3";
            net.fds.push(number("tap fd", text, hint)?);
        }
        "publish" => net.user.publish.push(owned),
        "allow" => net.user.egress.push(EgressSpec::Allow(owned)),
        "deny" => net.user.egress.push(EgressSpec::Deny(owned)),
        "dns" => net.user.dns.push(owned),
        _ => return Ok(false),
    }
    Ok(true)
}

fn switch(value: &str, name: &str, text: &str) -> Result<bool, Failure> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => {
            let hint = format!("write {name}=on or {name}=off");
            Err(refuse(value, &format!("has {name}={text}"), &hint))
        }
    }
}

/// Adds published ports to the machine's first user-mode network, which is made if there is none.
pub(super) fn publish(nets: &mut Vec<NetSpec>, ports: &[String]) {
    if ports.is_empty() {
        return;
    }
    let is_user = |net: &&mut NetSpec| net.kind == NetKind::User;
    match nets.iter_mut().find(is_user) {
        Some(net) => net.user.publish.extend_from_slice(ports),
        None => nets.push(NetSpec {
            user: UserNetSpec {
                publish: ports.to_vec(),
                ..UserNetSpec::default()
            },
            ..NetSpec::default()
        }),
    }
}

fn refuse(value: &str, reason: &str, hint: &str) -> Failure {
    Failure::input(format!("net {value}: {reason}"), hint)
}

#[cfg(test)]
mod tests {
    use api::spec::{FlowSpec, SizeSpec, SourceMac};

    use super::*;

    fn tap(name: Option<&str>) -> NetSpec {
        NetSpec {
            kind: NetKind::Tap,
            name: name.map(Into::into),
            ..NetSpec::default()
        }
    }

    #[test]
    fn accepted() {
        for (text, expected) in [
            ("user", NetSpec::default()),
            ("tap", tap(None)),
            ("tap:vm0", tap(Some("vm0"))),
            ("tap:", tap(Some(""))),
            (
                "tap:vm0,mac=02:00:00:00:00:01,source=any,mtu=9000,queues=4",
                NetSpec {
                    source: SourceMac::Any,
                    mac: Some("02:00:00:00:00:01".into()),
                    mtu: Some(9000),
                    queues: Some(4),
                    ..tap(Some("vm0"))
                },
            ),
            (
                "passt:/run/passt.sock,mtu=9000",
                NetSpec {
                    kind: NetKind::Passt,
                    path: Some("/run/passt.sock".into()),
                    mtu: Some(9000),
                    ..NetSpec::default()
                },
            ),
            (
                "tap,fd=3,fd=4",
                NetSpec {
                    fds: vec![3, 4],
                    ..tap(None)
                },
            ),
            (
                "tap,rx=10M+1G,tx-packets=1000",
                NetSpec {
                    rx: FlowSpec {
                        bandwidth: Some(RateSpec {
                            burst: Some(SizeSpec::Text("1G".into())),
                            ..RateSpec::per_second(SizeSpec::Text("10M".into()))
                        }),
                        packets: None,
                    },
                    tx: FlowSpec {
                        bandwidth: None,
                        packets: Some(RateSpec::of_text("1000")),
                    },
                    ..tap(None)
                },
            ),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        let text = "user,publish=8080:80,publish=[::1]:53:53/udp,allow=10.0.0.1:443,\
                    deny=10.0.0.0/8,host=on,ipv6=off,subnet=10.9.0.0/24,dns=9.9.9.9";
        let expected = UserNetSpec {
            publish: vec!["8080:80".into(), "[::1]:53:53/udp".into()],
            egress: vec![
                EgressSpec::Allow("10.0.0.1:443".into()),
                EgressSpec::Deny("10.0.0.0/8".into()),
            ],
            host: true,
            ipv6: false,
            subnet: Some("10.9.0.0/24".into()),
            dns: vec!["9.9.9.9".into()],
        };
        assert_eq!(parse(text).unwrap().user, expected);
    }

    #[test]
    fn refused() {
        for (text, message) in [
            ("", "net : is of no known kind"),
            ("tun", "net tun: is of no known kind"),
            ("user:x", "net user:x: is of no known kind"),
            ("bridge:br0", "net bridge:br0: is of no known kind"),
            ("tap,", "net tap,: has the unknown option \"\""),
            (
                "tap,vhost=on",
                "net tap,vhost=on: has the unknown option \"vhost=on\"",
            ),
            ("tap,mtu", "net tap,mtu: has the unknown option \"mtu\""),
            ("tap,mtu=big", "net mtu \"big\" is not a whole number"),
            ("tap,queues=-1", "net queues \"-1\" is not a whole number"),
            ("tap,fd=x", "tap fd \"x\" is not a whole number"),
            ("tap,mtu=1,mtu=1", "net tap,mtu=1,mtu=1: has mtu= twice"),
            (
                "user,source=all",
                "net source \"all\" is not one of own, any",
            ),
            ("user,host=yes", "net user,host=yes: has host=yes"),
        ] {
            assert_eq!(parse(text).unwrap_err().message, message);
        }
    }

    #[test]
    fn published_ports_go_to_the_first_user_network() {
        let ports = ["8080:80".to_owned()];
        let mut nets = Vec::new();
        publish(&mut nets, &[]);
        assert!(nets.is_empty());
        publish(&mut nets, &ports);
        assert_eq!(nets, [parse("user,publish=8080:80").unwrap()]);
        let mut nets = vec![tap(None), parse("user,publish=1:1").unwrap()];
        publish(&mut nets, &ports);
        let user = parse("user,publish=1:1,publish=8080:80").unwrap();
        assert_eq!(nets, [tap(None), user]);
    }
}
