//! Changes of a running machine through its API, as real drivers see them.

use super::{LIMIT_SECONDS, POWERED_OFF, REBOOTED, words};
use lab::script::{Case, Request, SOCKET, Step};

/// The disk that these cases change; 1 MiB at first.
const HOT: &str = "/disks/hot";
const HOT_DRIVE: &str = "/coracle/v1/drives/hot";
/// A limit of 640 KiB a second.
const LIMIT: &str = r#"{"limits": {"bandwidth": {"size": "64K", "refill_ms": 100}}}"#;
const NO_LIMIT: &str = r#"{"limits": {"bandwidth": null}}"#;

/// The cases of this area.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![button(), metadata()];
    for kernel in ["lean", "cloud"] {
        cases.push(limits(kernel));
        cases.push(sizes(kernel));
    }
    cases
}

/// Limits come and go while the guest reads.
fn limits(kernel: &str) -> Case {
    let steps = vec![
        expect("lab-guest: free "),
        ask(204, "PATCH", HOT_DRIVE, LIMIT),
        go(),
        expect("lab-guest: limited "),
        ask(204, "PATCH", HOT_DRIVE, NO_LIMIT),
        go(),
        expect("lab-guest: free again "),
    ];
    hot(kernel, "limits", steps)
}

/// The disk grows through the API, then by the host, and becomes another one.
fn sizes(kernel: &str) -> Case {
    let theirs = r#"{"drive_id": "hot", "path_on_host": "/disks/disk"}"#;
    let steps = vec![
        expect("lab-guest: size 2048"),
        ask(422, "PATCH", HOT_DRIVE, r#"{"size": "512K"}"#),
        ask(204, "PATCH", HOT_DRIVE, r#"{"size": "2M"}"#),
        go(),
        expect("lab-guest: grown 4096"),
        Step::Resize(HOT.to_owned(), 3 << 20),
        ask(204, "PATCH", HOT_DRIVE, r#"{"rescan": true}"#),
        go(),
        expect("lab-guest: grown 6144"),
        ask(
            400,
            "PATCH",
            "/drives/hot",
            r#"{"drive_id": "hot", "path_on_host": "/no"}"#,
        ),
        ask(204, "PATCH", "/drives/hot", theirs),
        go(),
        expect("lab-guest: another image"),
        // The next case finds the image as it was.
        Step::Resize(HOT.to_owned(), 1 << 20),
    ];
    hot(kernel, "sizes", steps)
}

/// A guest that is described and started through the API, and reads its metadata.
fn metadata() -> Case {
    let machine = r#"{"kernel": {"path": "/kernels/lean"}, "initrd": "/initrds/net",
        "memory": "256M", "nets": [{"kind": "user"}],
        "cmdline": "addresses=10.0.2.15/24 gateway=10.0.2.2 metadata=read"}"#;
    let config = r#"{"network_interfaces": ["net0"], "version": "V2"}"#;
    let long = "x".repeat(20_000);
    let first = format!(r#"{{"latest": {{"name": "first", "list": [1, 2], "long": "{long}"}}}}"#);
    let change = r#"{"latest": {"name": "second"}}"#;
    let too_large = format!(r#"{{"more": "{long}{long}"}}"#);
    let nowhere = r#"{"network_interfaces": ["net1"]}"#;
    let steps = vec![
        ask(
            204,
            "PUT",
            "/coracle/v1/machine",
            &machine.replace('\n', " "),
        ),
        ask(400, "PUT", "/mmds/config", nowhere),
        ask(204, "PUT", "/mmds/config", config),
        ask(400, "PATCH", "/mmds", change),
        ask(204, "PUT", "/mmds", &first),
        ask(204, "PUT", "/coracle/v1/actions", r#"{"action": "start"}"#),
        expect("lab-net: metadata first"),
        expect("lab-net: waiting"),
        ask(400, "PUT", "/mmds/config", config),
        ask(413, "PATCH", "/mmds", &too_large),
        ask(204, "PATCH", "/mmds", change),
        go(),
        expect("lab-net: changed second"),
    ];
    Case {
        name: "lean-api-metadata".to_owned(),
        arguments: words(&["vmm", "--api-sock", SOCKET]),
        steps,
        exit: REBOOTED,
        seconds: LIMIT_SECONDS,
    }
}

/// The power button, pressed by a client.
fn button() -> Case {
    let action = r#"{"action_type": "SendCtrlAltDel"}"#;
    let steps = vec![
        expect("waiting for the button"),
        ask(204, "PUT", "/actions", action),
        expect("the button was pressed"),
    ];
    case(
        "cloud-api-button",
        "cloud",
        "lab.end=button",
        steps,
        POWERED_OFF,
    )
}

fn hot(kernel: &str, task: &str, steps: Vec<Step>) -> Case {
    let name = format!("{kernel}-api-{task}");
    let text = format!("lab.hot={task} lab.end=reboot");
    case(&name, kernel, &text, steps, REBOOTED)
}

fn case(name: &str, kernel: &str, cmdline: &str, steps: Vec<Step>, exit: i32) -> Case {
    let arguments = [
        "boot",
        "--kernel",
        &format!("/kernels/{kernel}"),
        "--initrd",
        &format!("/initrds/{kernel}"),
        "--disk",
        &format!("{HOT},id=hot"),
        "--memory",
        "256M",
        "--api-sock",
        SOCKET,
        "--cmdline",
        cmdline,
    ];
    let mut all = vec![expect("lab-guest: ready ")];
    all.extend(steps);
    Case {
        name: name.to_owned(),
        arguments: words(&arguments),
        steps: all,
        exit,
        seconds: LIMIT_SECONDS,
    }
}

fn expect(text: &str) -> Step {
    Step::Expect(text.to_owned())
}

fn go() -> Step {
    Step::Send("go".to_owned())
}

fn ask(status: u16, method: &str, path: &str, body: &str) -> Step {
    Step::Ask(Request {
        status,
        method: method.to_owned(),
        path: path.to_owned(),
        body: body.to_owned(),
    })
}
