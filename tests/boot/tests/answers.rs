//! The answers of Firecracker, recorded and played against a machine of ours: status by status, and
//! the keys of what is told.

use anyhow::{Context, Result, ensure};
use api::client::Client;
use api::http::Method;
use boot_tests::client;
use harness::{TestVm, guests, skip};

const TABLE: &str = include_str!("answers/table.txt");

/// The guest's images have so many bytes.
const IMAGE_BYTES: usize = 1 << 20;

/// A request and what is answered.
#[derive(Debug)]
struct Row<'a> {
    method: Method,
    path: &'a str,
    body: &'a str,
    status: u16,
    keys: Vec<&'a str>,
}

impl<'a> Row<'a> {
    /// Reads a line of the table.
    fn read(line: &'a str) -> Option<Row<'a>> {
        let (request, answer) = line.rsplit_once(" => ")?;
        let (method, rest) = request.split_once(' ')?;
        let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
        // Behind a bar stands what is answered here, and why.
        let (theirs, ours) = match answer.split_once(" | ") {
            Some((theirs, ours)) => (theirs, ours.split_once(' ').map(|(ours, _)| ours)),
            None => (answer, None),
        };
        let mut words = theirs.split(' ');
        let status = words.next()?;
        Some(Row {
            method: Method::named(method),
            path,
            body,
            status: ours.unwrap_or(status).parse().ok()?,
            keys: words.collect(),
        })
    }

    fn play(&self, client: &mut Client, folder: &str, long: &str) -> Result<()> {
        let body = self
            .body
            .replace("W/", folder)
            .replace("\"W\"", &format!("{folder:?}"));
        let body = body.replace("{LONG}", long);
        let bytes = (!body.is_empty()).then_some(body.as_bytes());
        let answer = client.request(self.method, self.path, bytes)?;
        ensure!(
            answer.status == self.status,
            "{}: {:?}",
            answer.status,
            answer.json()
        );
        let json = answer.json();
        if self.status == 400 {
            ensure!(
                json["fault_message"].is_string(),
                "no fault_message: {json}"
            );
        }
        for key in &self.keys {
            ensure!(json.get(key).is_some(), "no {key} in {json}");
        }
        Ok(())
    }
}

#[test]
fn recorded_answers_are_the_same_here() {
    if skip::without_kvm() {
        return;
    }
    let vm = TestVm::served().unwrap();
    for name in ["a.img", "b.img", "c.img"] {
        vm.file(name, &vec![0; IMAGE_BYTES]).unwrap();
    }
    vm.file("empty", b"").unwrap();
    vm.file("idle.elf", &guests::halt()).unwrap();
    let (socket, folder) = (vm.socket(), format!("{}/", vm.folder().display()));
    let machine = vm.boot().unwrap();
    let long = "a".repeat(4_000);
    let lines = TABLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut wrong = Vec::new();
    let mut played = 0;
    for line in lines {
        let row = Row::read(line).with_context(|| line.to_owned()).unwrap();
        // Each on a connection of its own, as curl would.
        let mut client = client(&socket).unwrap();
        if let Err(error) = row.play(&mut client, &folder, &long) {
            wrong.push(format!("{line}\n    {error:#}"));
        }
        played += 1;
    }
    assert!(
        wrong.is_empty(),
        "{} of {played}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(played > 120, "{played} rows");
    drop(machine);
}
