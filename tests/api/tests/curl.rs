//! curl as a client, in the ways that people use it.

use anyhow::{Context, Result, ensure};
use api_tests::served::Served;
use harness::{guests, skip};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

/// Runs curl with these arguments, `path` last: what it prints, the status and, if it is used more
/// than once, how many connections it made.
fn curl(served: &Served, arguments: &[&str], paths: &[&str], input: &str) -> Result<(String, u16)> {
    let mut command = Command::new("curl");
    command
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--unix-socket",
        ])
        .arg(&served.socket)
        .args(["--write-out", "\n%{http_code} %{num_connects}\n"])
        .args(arguments)
        .args(paths.iter().map(|path| format!("http://localhost{path}")));
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting curl")?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "curl: {errors}");
    let text = String::from_utf8(output.stdout).context("no text")?;
    let lines: Vec<_> = text.lines().collect();
    let last = lines.last().context("nothing is printed")?;
    let (status, connections) = last.split_once(' ').context("no status")?;
    if paths.len() > 1 {
        ensure!(
            connections == "0",
            "the last request made a connection: {text}"
        );
    }
    let body = lines[..lines.len() - 1].join("\n");
    Ok((body, status.parse().context("a status")?))
}

fn served() -> Result<Served> {
    Served::boot(&guests::halt(), |vm| {
        let disk = vm.file("data.img", &[0; 1 << 16])?;
        Ok(vm.arg("--disk").arg(format!("{},id=data", disk.display())))
    })
}

#[test]
fn curl_reads_and_changes() {
    if skip::without_kvm() || skip::without_program("curl") {
        return;
    }
    let served = served().unwrap();
    let ask = |arguments: &[&str], path: &str| curl(&served, arguments, &[path], "").unwrap();
    let (text, status) = ask(&[], "/coracle/v1/machine");
    let machine: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &machine["state"]), (200, &Value::from("running")));
    let body = r#"{"size": "128K"}"#;
    let drive = "/coracle/v1/drives/data";
    let (text, status) = ask(&["-X", "PATCH", "-d", body], drive);
    assert_eq!((text.as_str(), status), ("", 204));
    let (text, status) = ask(
        &["-X", "PATCH", "-d", body, "-H", "Expect: 100-continue"],
        drive,
    );
    assert_eq!((text.as_str(), status), ("", 204));
    let (text, status) = ask(&["--http1.0"], "/version");
    assert!(
        status == 200 && text.contains("firecracker_version"),
        "{text}"
    );
    let (text, status) = ask(&["-X", "PATCH", "-d", r#"{"size": 1}"#], drive);
    let error: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &error["field"]), (422, &Value::from("size")));
    let (text, status) = ask(&["--head"], "/version");
    assert!(status == 400 && !text.contains("fault_message"), "{text}");
}

#[test]
fn curl_keeps_its_connection() {
    if skip::without_kvm() || skip::without_program("curl") {
        return;
    }
    let served = served().unwrap();
    let paths = ["/version", "/nope", "/", "/machine-config"];
    let (text, status) = curl(&served, &[], &paths, "").unwrap();
    assert!(status == 200 && text.contains("vcpu_count"), "{text}");
}

#[test]
fn bodies_that_curl_sends_in_other_ways() {
    if skip::without_kvm() || skip::without_program("curl") {
        return;
    }
    let served = served().unwrap();
    let actions = &["/actions"];
    // From a pipe: in chunks.
    let (text, status) = curl(&served, &["--upload-file", "-"], actions, "{}").unwrap();
    assert!(status == 411 && text.contains("Content-Length"), "{text}");
    let large = format!("{{\"action_type\": \"{}\"}}", "a".repeat(60_000));
    let put = ["-X", "PUT", "--data-binary", "@-"];
    let (text, status) = curl(&served, &put, actions, &large).unwrap();
    assert!(status == 413 && text.contains("shorter body"), "{text}");
    let (text, status) = curl(&served, &put, actions, "{\"action_type\": \"Nope\"}").unwrap();
    assert!(status == 400 && text.contains("Nope"), "{text}");
    let form = ["-X", "PUT", "--form", "action_type=SendCtrlAltDel"];
    let (text, status) = curl(&served, &form, actions, "").unwrap();
    assert!(status == 400 && text.contains("fault_message"), "{text}");
}

const README: &str = include_str!("../../../README.md");

/// The commands of the README's session, each with what it prints.
fn session() -> Vec<(&'static str, Vec<&'static str>)> {
    let section = README.split("## Through an API").nth(1).unwrap();
    let block = section.split("```console\n").nth(1).unwrap();
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in block.split("```").next().unwrap().lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, Vec::new())),
            (None, Some((_, printed))) => printed.push(line),
            (None, None) => panic!("the session begins with {line:?}"),
        }
    }
    commands
}

/// What each command prints, in a shell that has `coracle`, in a folder of its own.
fn typed(commands: &[&str]) -> Result<Vec<String>> {
    const END: &str = "-- end of the command --";
    let folder = tempfile::tempdir()?;
    let program = harness::coracle()?;
    let programs = program.parent().context("a folder")?;
    let mut path = std::ffi::OsString::from(programs);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut script = String::new();
    for command in commands {
        script.push_str(command);
        // What a person's hands take longer for.
        if command.ends_with('&') {
            script.push_str("\nuntil [ -S vm.sock ]; do kill -0 $! || exit 1; done");
        }
        script.push_str(&format!("\necho; echo '{END}'\n"));
    }
    let output = Command::new("timeout")
        .args(["60", "bash", "-c", &script])
        .env("PATH", path)
        .current_dir(folder.path())
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && errors.is_empty(), "{errors}");
    let text = String::from_utf8(output.stdout).context("no text")?;
    let mut parts: Vec<_> = text.split(END).map(|part| part.trim().to_owned()).collect();
    parts.pop();
    Ok(parts)
}

#[test]
fn the_readmes_session_is_as_it_says() {
    if skip::without_kvm() || skip::without_program("curl") {
        return;
    }
    let session = session();
    let commands: Vec<_> = session.iter().map(|(command, _)| *command).collect();
    let printed = typed(&commands).unwrap();
    assert!(
        session.len() > 10 && printed.len() == session.len(),
        "{printed:?}"
    );
    for ((command, expected), printed) in session.iter().zip(printed) {
        match expected.as_slice() {
            [] => assert_eq!(printed, "", "{command}"),
            // A line that is told by its beginning.
            [line] if line.ends_with(" …") => {
                let begins = printed.starts_with(line.trim_end_matches(" …"));
                assert!(begins, "{command}: {printed}");
            }
            lines => assert_eq!(printed, lines.join("\n"), "{command}"),
        }
    }
}
