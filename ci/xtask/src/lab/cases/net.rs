//! Networks: Linux's own driver on both of our back ends, streams checked byte for byte.

use super::{LIMIT_SECONDS, REBOOTED, on_cloud_over_pci, words};
use lab::script::{Case, Step};

/// Bytes each way.
const BYTES: u64 = 16 << 20;
/// The tap of a case; cases run one after another.
const TAP: &str = "vm0";

/// The cases of this area.
pub(super) fn cases() -> Vec<Case> {
    let streams = format!("down={BYTES} up={BYTES} halves=100000 guest=100000 nobody=1");
    vec![
        tap("net-tap", "", "", &streams),
        tap("net-tap-downloads", "", "", "downloads=1000"),
        tap("net-tap-jumbo", ",mtu=9000", "", &streams),
        tap(
            "net-tap-no-offloads",
            "",
            "virtio_net.csum=0 virtio_net.gso=0",
            &streams,
        ),
        on_cloud_over_pci(tap("cloud-pci-net", ",queues=2", "", &streams)),
        ipv6(),
        user("net-user", &streams),
        user("net-user-downloads", "downloads=1000"),
        // What is closed by itself, and a name that closes wherever it moves.
        egress(
            "net-user-egress",
            "deny=moving.lab.test:7000,allow=192.0.2.1,allow=192.0.2.2",
            "closed=10.0.2.2 closed=169.254.169.254 closed=10.77.0.1 closed=192.0.2.3 \
             open=192.0.2.1 name=192.0.2.1 closed=192.0.2.1 open=192.0.2.2 \
             name=192.0.2.2 closed=192.0.2.2 closed=192.0.2.1",
        ),
        // With the host open, only what rules close, and where clouds keep their secrets.
        egress(
            "net-user-egress-host",
            "host=on,deny=10.0.0.0/8,deny=192.0.2.2:7000/tcp",
            "closed=10.0.2.2 closed=10.77.0.1 closed=169.254.169.254 \
             closed=192.0.2.2 open=192.0.2.1 open=192.0.2.3",
        ),
    ]
}

/// A guest on a tap that the monitor makes.
fn tap(name: &str, options: &str, parameters: &str, tests: &str) -> Case {
    let net = format!("tap:{TAP}{options}");
    let line = format!("addresses=10.9.0.2/24 host=10.9.0.1 {parameters}");
    let steps = vec![
        beside(&format!("up {TAP} 10.9.0.1/24")),
        beside(&format!("10.9.0.2:1000 {tests} quit=1")),
    ];
    case(name, &net, &line, steps)
}

/// The same by IPv6, which Debian's kernel has.
fn ipv6() -> Case {
    let tests = format!("down={BYTES} up={BYTES} nobody=1 quit=1");
    let steps = vec![
        beside(&format!("up {TAP} fd09::1/64")),
        beside(&format!("[fd09::2]:1000 {tests}")),
    ];
    let line = "addresses=fd09::2/64 host=fd09::1";
    let net = format!("tap:{TAP}");
    on_cloud_over_pci(case("cloud-pci-net-ipv6", &net, line, steps))
}

/// A guest on our own network, which the host reaches by a published port.
fn user(name: &str, tests: &str) -> Case {
    let line = "addresses=10.0.2.15/24 gateway=10.0.2.2 host=10.0.2.2";
    let steps = vec![beside(&format!("127.0.0.1:8080 {tests} quit=1"))];
    case(name, "user,host=on,publish=8080:1000", line, steps)
}

/// What a guest may reach under rules, tried from inside.
fn egress(name: &str, rules: &str, steps: &str) -> Case {
    let line = "addresses=10.0.2.15/24 gateway=10.0.2.2 host=10.0.2.2";
    let net = format!("user,publish=8080:1000,dns=127.0.0.1:5300,{rules}");
    let steps = vec![
        beside(&format!("egress 127.0.0.1:8080 {steps}")),
        beside("127.0.0.1:8080 quit=1"),
    ];
    case(name, &net, line, steps)
}

fn beside(arguments: &str) -> Step {
    Step::Beside(format!("lab-net {arguments}"))
}

fn case(name: &str, net: &str, line: &str, tests: Vec<Step>) -> Case {
    let arguments = [
        "boot",
        "--kernel",
        "/kernels/lean",
        "--initrd",
        "/initrds/net",
        "--memory",
        "256M",
        "--net",
        net,
        "--cmdline",
        line,
    ];
    let mut steps = vec![Step::Expect("lab-net: listening".to_owned())];
    steps.extend(tests);
    Case {
        name: name.to_owned(),
        arguments: words(&arguments),
        steps,
        exit: REBOOTED,
        seconds: LIMIT_SECONDS,
    }
}
