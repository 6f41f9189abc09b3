//! Balloon, ports, entropy, watchdog and panic port with the drivers of Debian's generic kernel.

use super::{LIMIT_SECONDS, PANICKED, POWERED_OFF, REBOOTED, words};
use lab::script::{Case, Step};

const BALLOON: &str = "virtio_balloon";

/// The cases of this area.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        balloon(),
        out_of_memory(),
        reporting(),
        port(),
        entropy("entropy", &[], "fast"),
        entropy("entropy-limit", &["--rng-limit", "4K"], "slowly"),
        Case {
            exit: PANICKED,
            ..case("panic-port", &[], "pvpanic_mmio", "panic", "panic=0")
        },
        Case {
            exit: REBOOTED,
            ..case(
                "watchdog",
                &["--watchdog", "reset"],
                "ib700wdt/timeout=2",
                "watchdog",
                "",
            )
        },
    ];
    cases.extend(["generic", "lean"].map(pause));
    for case in &mut cases {
        case.seconds = LIMIT_SECONDS;
    }
    cases
}

/// A guest of 512 MiB that loads modules, does its work and powers off.
fn case(name: &str, more: &[&str], modules: &str, work: &str, arguments: &str) -> Case {
    let text = format!("lab.modules={modules} lab.do={work} {arguments}");
    let machine = [
        "boot",
        "--kernel",
        "/kernels/generic",
        "--initrd",
        "/initrds/misc",
        "--memory",
        "512M",
        "--cmdline",
        text.trim_end(),
    ];
    Case {
        name: format!("generic-misc-{name}"),
        arguments: words(&[&machine[..], more].concat()),
        steps: vec![expect("lab-misc: user space")],
        exit: POWERED_OFF,
        seconds: LIMIT_SECONDS,
    }
}

fn expect(text: &str) -> Step {
    Step::Expect(text.to_owned())
}

fn beside(line: &str) -> Step {
    Step::Beside(format!("lab-misc {line}"))
}

/// Memory that was used stays with the monitor until the balloon takes it, at the host's wish; the
/// guest tells of its memory, and has it back when the balloon is let down.
fn balloon() -> Case {
    let options = ["--balloon", "stats=1", "--api-sock", "/tmp/api"];
    let work = "fill:300,wait,fill:300,poweroff";
    let mut case = case("balloon", &options, BALLOON, work, "");
    case.steps.extend([
        expect("did fill:300"),
        expect("waiting"),
        beside("above 300"),
        beside("api PATCH /balloon {\"amount_mib\":350} 204"),
        beside("below 220"),
        beside("api GET /balloon/statistics - \"actual_mib\":350"),
        beside("api GET /balloon/statistics - \"total_memory\":"),
        beside("api PATCH /balloon {\"amount_mib\":0} 204"),
        beside("api GET /balloon/statistics - \"actual_mib\":0"),
        Step::Send(String::new()),
        expect("did fill:300"),
    ]);
    case
}

/// A guest of two vCPUs stands still while its monitor answers: no vCPU runs, and for the guest
/// no time passes between two moments but on its clock. Then it goes on.
fn pause(kernel: &str) -> Case {
    let options = ["--cpus", "2", "--api-sock", "/tmp/api"];
    let mut case = case("pause", &options, "", "pause,reboot", "");
    case.name = format!("{kernel}-misc-pause");
    if kernel == "lean" {
        for argument in &mut case.arguments {
            *argument = argument
                .replace("/kernels/generic", "/kernels/lean")
                .replace("/initrds/misc", "/initrds/lean-misc");
        }
    }
    case.exit = REBOOTED;
    case.steps.extend([
        expect("lab-misc: ticking"),
        beside("api PATCH /vm {\"state\":\"Paused\"} 204"),
        beside("api GET / - \"Paused\""),
        beside("still"),
        beside("api GET /coracle/v1/devices - virtio"),
        beside("api PATCH /vm {\"state\":\"Resumed\"} 204"),
        // That it goes on, the guest tells; it reboots then, and its API is gone.
        expect("lab-misc: stood still"),
        expect("did pause"),
    ]);
    case
}

/// A guest that needs more than the balloon leaves it takes some back instead of killing.
fn out_of_memory() -> Case {
    let options = ["--balloon", "size=350M,deflate-on-oom"];
    let work = "wait,fill:250,poweroff";
    let mut case = case("balloon-oom", &options, BALLOON, work, "");
    case.steps.extend([
        expect("waiting"),
        beside("below 230"),
        Step::Send(String::new()),
        expect("did fill:250"),
    ]);
    case
}

/// Free pages go back to the host although nobody asks.
fn reporting() -> Case {
    let options = ["--balloon", "reporting"];
    let mut case = case("reporting", &options, BALLOON, "fill:300,wait,poweroff", "");
    case.steps.extend([
        expect("did fill:300"),
        expect("waiting"),
        beside("below 220"),
        Step::Send(String::new()),
    ]);
    case
}

/// Bytes both ways through a named port, and the guest hears when the program goes.
fn port() -> Case {
    let options = ["--console-port", "name=org.lab.echo,socket=/tmp/port"];
    let work = "echo:org.lab.echo,poweroff";
    let mut case = case("port", &options, "virtio_console", work, "");
    case.steps.extend([
        expect("echo on /dev/vport"),
        beside("port /tmp/port"),
        expect("did echo"),
    ]);
    case
}

/// Random bytes of the device, whose limit makes 12 KiB take two seconds.
fn entropy(name: &str, more: &[&str], pace: &str) -> Case {
    let machine = [
        "boot",
        "--kernel",
        "/kernels/lean",
        "--initrd",
        "/initrds/lean-misc",
        "--cmdline",
        "lab.do=random:12288,reboot",
    ];
    Case {
        name: format!("lean-misc-{name}"),
        arguments: words(&[&machine[..], more].concat()),
        steps: vec![
            expect("lab-misc: user space"),
            expect(&format!("random {pace}")),
        ],
        exit: REBOOTED,
        seconds: LIMIT_SECONDS,
    }
}
