//! A whole machine in one file, in Firecracker's words: what `GET /vm/config` tells. Each part of
//! it is read as the request would be that describes it.

use serde_json::{Map, Value};

use super::{Call, call};
use crate::error::{ApiError, Code};
use crate::http::{Method, Request};
use crate::machine::MachineState;
use crate::routes;

/// The parts, in the order in which they are described.
const PARTS: &[&str] = &[
    "logger",
    "metrics",
    "machine-config",
    "cpu-config",
    "boot-source",
    "balloon",
    "entropy",
    "vsock",
    "serial",
];

/// The parts of which there may be several, with the fields that name them.
const LISTS: &[(&str, &str)] = &[
    ("drives", "drive_id"),
    ("pmem", "id"),
    ("network-interfaces", "iface_id"),
];

/// The parts that only make sense once the others are there.
const LAST: &[&str] = &["mmds-config", "memory-hotplug"];

/// Where the parts are described whose paths are not their names.
const PATHS: &[(&str, &str)] = &[
    ("mmds-config", "mmds/config"),
    ("memory-hotplug", "hotplug/memory"),
];

/// The calls that describe the machine of a configuration file.
///
/// # Errors
/// What is wrong with the first part that cannot be taken, which the message names.
pub fn read_config(text: &[u8]) -> Result<Vec<Call>, ApiError> {
    let refuse = |message| ApiError::new(Code::BadBody, message, "correct the file");
    let parsed = serde_json::from_slice::<Map<String, Value>>(text);
    let mut config =
        parsed.map_err(|error| refuse(format!("the file cannot be taken: {error}")))?;
    // What is null is not there.
    config.retain(|_, part| !part.is_null());
    let mut calls = Vec::new();
    for name in PARTS {
        calls.extend(
            config
                .remove(*name)
                .map(|part| described(name, None, &part)),
        );
    }
    for (name, id) in LISTS {
        let Some(part) = config.remove(*name) else {
            continue;
        };
        let Value::Array(items) = part else {
            return Err(refuse(format!("{name} is not a list")).of_field(*name));
        };
        let named = |item: &Value| {
            let id = item.get(id).and_then(Value::as_str);
            described(name, Some(id.unwrap_or_default()), item)
        };
        calls.extend(items.iter().map(named));
    }
    for name in LAST {
        calls.extend(
            config
                .remove(*name)
                .map(|part| described(name, None, &part)),
        );
    }
    match config.keys().next() {
        Some(unknown) => Err(refuse(format!("unknown field `{unknown}`")).of_field(unknown)),
        None => calls.into_iter().collect(),
    }
}

/// The call that describes one part.
fn described(name: &str, id: Option<&str>, part: &Value) -> Result<Call, ApiError> {
    let path = PATHS.iter().find(|(part, _)| *part == name);
    let mut path = format!("/{}", path.map_or(name, |(_, path)| path));
    if let Some(id) = id {
        path = format!("{path}/{id}");
    }
    let request = Request {
        method: Method::Put,
        path,
        body: part.to_string().into_bytes(),
        keep_alive: false,
    };
    let found = routes::find(request.method, &request.path).map_err(|missing| missing.error);
    let call = found.and_then(|found| call(&request, &found, MachineState::NotStarted));
    call.map_err(|error| ApiError {
        message: format!("{name}: {}", error.message),
        ..error
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Part;

    #[test]
    fn a_file_is_as_many_requests() {
        let text = r#"{
            "network-interfaces": [{"iface_id": "n1", "host_dev_name": "tap0"}],
            "drives": [
                {"drive_id": "a", "path_on_host": "/a", "is_root_device": true},
                {"drive_id": "b", "path_on_host": "/b", "is_root_device": false}
            ],
            "boot-source": {"kernel_image_path": "/k", "boot_args": "x"},
            "machine-config": {"vcpu_count": 2, "mem_size_mib": 64},
            "balloon": null
        }"#;
        let calls = read_config(text.as_bytes()).unwrap();
        let kinds = calls.iter().map(|call| match call {
            Call::Describe(Part::Size(_)) => "size",
            Call::Describe(Part::BootSource(_)) => "boot",
            Call::Describe(Part::Disk(..)) => "disk",
            Call::Describe(Part::Net(_)) => "net",
            other => panic!("{other:?}"),
        });
        let kinds: Vec<_> = kinds.collect();
        assert_eq!(kinds, ["size", "boot", "disk", "disk", "net"]);
    }

    #[test]
    fn files_that_are_refused() {
        for (text, words) in [
            ("", "the file cannot be taken"),
            ("[]", "the file cannot be taken"),
            (r#"{"drive": []}"#, "unknown field `drive`"),
            (r#"{"drives": {}}"#, "drives is not a list"),
            (r#"{"drives": [{"path_on_host": "/a"}]}"#, "drives: "),
            (r#"{"boot-source": {"kernel": "/k"}}"#, "boot-source: "),
        ] {
            let error = read_config(text.as_bytes()).unwrap_err();
            assert!(
                error.message.starts_with(words),
                "{text}: {}",
                error.message
            );
        }
    }
}
