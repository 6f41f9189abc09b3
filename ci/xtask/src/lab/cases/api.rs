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
    let mut cases = vec![button()];
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
