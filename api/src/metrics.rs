//! A machine's counters as text that Prometheus reads (its exposition format 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::machine::{DeviceView, MachineState, MachineView, ReportValue};

/// What a metric's name begins with.
const DEVICE: &str = "coracle_device";

/// Samples of one name: their labels and values.
type Samples = Vec<(String, u64)>;

/// The metrics of `machine`, called `name`, and of its devices.
#[must_use]
pub fn text(name: &str, machine: &MachineView, devices: &[DeviceView]) -> String {
    let mut out = String::new();
    let gauge = |out: &mut String, metric: &str, help: &str, labels: &str, value: u64| {
        // Text never refuses to be written to.
        let _ = writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} gauge");
        let _ = writeln!(out, "{metric}{labels} {value}");
    };
    let info = labels(&[
        ("name", name),
        ("version", machine.version),
        ("kernel", &machine.kernel),
    ]);
    gauge(&mut out, "coracle_machine_info", "The machine.", &info, 1);
    let paused = u64::from(machine.state == MachineState::Paused);
    let help = "Whether the guest stands still.";
    gauge(&mut out, "coracle_machine_paused", help, "", paused);
    let help = "Virtual CPUs.";
    gauge(
        &mut out,
        "coracle_machine_vcpus",
        help,
        "",
        machine.vcpus.into(),
    );
    let help = "The guest's memory.";
    let bytes = machine.memory_bytes;
    gauge(&mut out, "coracle_machine_memory_bytes", help, "", bytes);
    let mut families = BTreeMap::<String, Samples>::new();
    for device in devices {
        let labels = labels(&[("device", &device.name), ("model", &device.model)]);
        collect(DEVICE, &device.report, &labels, &mut families);
    }
    for (metric, samples) in families {
        // A report does not say which of its numbers only grow.
        let _ = writeln!(out, "# TYPE {metric} untyped");
        for (labels, value) in samples {
            let _ = writeln!(out, "{metric}{labels} {value}");
        }
    }
    out
}

/// Takes the numbers of a report, and of its parts.
fn collect(
    name: &str,
    value: &ReportValue,
    labels: &str,
    families: &mut BTreeMap<String, Samples>,
) {
    let number = match value {
        ReportValue::Text(_) => return,
        ReportValue::Number(number) => *number,
        ReportValue::Flag(flag) => u64::from(*flag),
        ReportValue::Part(entries) => {
            for (part, value) in entries {
                collect(&format!("{name}_{}", word(part)), value, labels, families);
            }
            return;
        }
    };
    let samples = families.entry(name.to_owned()).or_default();
    samples.push((labels.to_owned(), number));
}

/// A report's name as a part of a metric's.
fn word(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        }
    };
    name.chars().map(plain).collect()
}

fn labels(pairs: &[(&str, &str)]) -> String {
    let mut text = String::from("{");
    for (place, (name, value)) in pairs.iter().enumerate() {
        let comma = if place > 0 { "," } else { "" };
        let _ = write!(text, "{comma}{name}=\"");
        for c in value.chars() {
            match c {
                '\\' | '"' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                _ => text.push(c),
            }
        }
        text.push('"');
    }
    text.push('}');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, reads: u64) -> DeviceView {
        let queue = ReportValue::Part(vec![("in-flight".into(), ReportValue::Number(1))]);
        DeviceView {
            name: name.into(),
            model: "virtio-blk".into(),
            report: ReportValue::Part(vec![
                ("kind".into(), ReportValue::Text("block".into())),
                ("reads".into(), ReportValue::Number(reads)),
                ("started".into(), ReportValue::Flag(true)),
                ("queue".into(), queue),
            ]),
        }
    }

    #[test]
    fn every_number_is_a_sample_and_every_name_is_there_once() {
        let machine = MachineView {
            state: MachineState::Paused,
            pid: 1,
            version: "1.0",
            kernel: "/a\"b\\c\nd".into(),
            cmdline: String::new(),
            cpu_quota: None,
            vcpus: 2,
            memory_bytes: 1 << 20,
            devices: Vec::new(),
        };
        let text = text(
            "vm",
            &machine,
            &[device("disk0", 5), device("disk1", u64::MAX)],
        );
        let info = r#"coracle_machine_info{name="vm",version="1.0",kernel="/a\"b\\c\nd"} 1"#;
        for line in [
            info,
            "coracle_machine_paused 1",
            "coracle_machine_vcpus 2",
            "coracle_machine_memory_bytes 1048576",
            r#"coracle_device_reads{device="disk0",model="virtio-blk"} 5"#,
            r#"coracle_device_reads{device="disk1",model="virtio-blk"} 18446744073709551615"#,
            r#"coracle_device_started{device="disk0",model="virtio-blk"} 1"#,
            r#"coracle_device_queue_in_flight{device="disk0",model="virtio-blk"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("kind"), "{text}");
        let types: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .collect();
        let mut once = types.clone();
        once.dedup();
        assert_eq!((types.len(), once), (7, types));
    }
}
