//! The API's operations as a table, and how a request finds its row.

use crate::error::{ApiError, Code, Dialect};
use crate::http::Method;
use crate::machine::MachineState;

/// What our own paths begin with.
pub const OURS: &str = "/coracle/v1/";

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who answers here.
    DescribeInstance,
    /// Which release of Firecracker's API is spoken.
    GetVersion,
    /// The size of the machine.
    GetMachineConfig,
    /// All that the machine was made of.
    GetVmConfig,
    /// Do one of a few things to the machine.
    Act,
    /// Change a drive, in Firecracker's words.
    PatchDrive,
    /// The balloon's set-up.
    GetBalloon,
    /// Change the balloon's size, in Firecracker's words.
    PatchBalloon,
    /// The guest's account of its memory.
    GetBalloonStatistics,
    /// Change how often the guest gives it.
    PatchBalloonStatistics,
    /// The machine and its state.
    DescribeMachine,
    /// What every device is and did.
    DescribeDevices,
    /// Change a drive.
    ChangeDrive,
    /// Change the balloon.
    ChangeBalloon,
    /// Change the source of random numbers.
    ChangeEntropy,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path; `{id}` stands for one name.
    pub path: &'static str,
    /// What it asks for.
    pub operation: Operation,
    /// The states of the machine in which it is carried out.
    pub states: &'static [MachineState],
    /// What it does, in a few words.
    pub doc: &'static str,
}

const ALWAYS: &[MachineState] = &[
    MachineState::NotStarted,
    MachineState::Running,
    MachineState::Paused,
];
const STARTED: &[MachineState] = &[MachineState::Running, MachineState::Paused];

const fn route(
    method: Method,
    path: &'static str,
    operation: Operation,
    states: &'static [MachineState],
    doc: &'static str,
) -> Route {
    Route {
        method,
        path,
        operation,
        states,
        doc,
    }
}

/// Every operation.
pub const ROUTES: &[Route] = &[
    route(
        Method::Get,
        "/",
        Operation::DescribeInstance,
        ALWAYS,
        "the instance and its state",
    ),
    route(
        Method::Get,
        "/version",
        Operation::GetVersion,
        ALWAYS,
        "the release of Firecracker whose API is spoken",
    ),
    route(
        Method::Get,
        "/machine-config",
        Operation::GetMachineConfig,
        ALWAYS,
        "vCPUs and memory",
    ),
    route(
        Method::Get,
        "/vm/config",
        Operation::GetVmConfig,
        ALWAYS,
        "all that the machine was made of",
    ),
    route(
        Method::Put,
        "/actions",
        Operation::Act,
        STARTED,
        "press the power button",
    ),
    route(
        Method::Patch,
        "/drives/{id}",
        Operation::PatchDrive,
        STARTED,
        "another image or other limits for a drive",
    ),
    route(
        Method::Get,
        "/balloon",
        Operation::GetBalloon,
        ALWAYS,
        "the balloon's set-up",
    ),
    route(
        Method::Patch,
        "/balloon",
        Operation::PatchBalloon,
        STARTED,
        "another size for the balloon",
    ),
    route(
        Method::Get,
        "/balloon/statistics",
        Operation::GetBalloonStatistics,
        STARTED,
        "the guest's account of its memory",
    ),
    route(
        Method::Patch,
        "/balloon/statistics",
        Operation::PatchBalloonStatistics,
        STARTED,
        "how often the guest gives it",
    ),
    route(
        Method::Get,
        "/coracle/v1/machine",
        Operation::DescribeMachine,
        ALWAYS,
        "the machine and its state",
    ),
    route(
        Method::Get,
        "/coracle/v1/devices",
        Operation::DescribeDevices,
        STARTED,
        "what every device is and did",
    ),
    route(
        Method::Patch,
        "/coracle/v1/drives/{id}",
        Operation::ChangeDrive,
        STARTED,
        "image, size and limits of a drive",
    ),
    route(
        Method::Patch,
        "/coracle/v1/balloon",
        Operation::ChangeBalloon,
        STARTED,
        "size, statistics and hinting of the balloon",
    ),
    route(
        Method::Patch,
        "/coracle/v1/entropy",
        Operation::ChangeEntropy,
        STARTED,
        "limits of the source of random numbers",
    ),
];

/// The language of a path.
#[must_use]
pub fn dialect(path: &str) -> Dialect {
    if path.starts_with(OURS) {
        Dialect::Coracle
    } else {
        Dialect::Firecracker
    }
}

/// A request's row and the name that stands in its path, where one does.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The row.
    pub route: &'static Route,
    /// The name.
    pub id: Option<&'a str>,
}

/// Why no row is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// What to answer.
    pub error: ApiError,
    /// The methods that the path has.
    pub methods: Vec<Method>,
}

/// Finds the row of a request.
///
/// # Errors
/// When there is none.
pub fn find(method: Method, path: &str) -> Result<Found<'_>, NotFound> {
    let rows = ROUTES.iter();
    let here: Vec<_> = rows
        .filter_map(|route| Some((route, matched(route.path, path)?)))
        .collect();
    let row = here.iter().find(|(route, _)| route.method == method);
    if let Some((route, id)) = row {
        return Ok(Found { route, id: *id });
    }
    let methods: Vec<_> = here.iter().map(|(route, _)| route.method).collect();
    let error = match dialect(path) {
        Dialect::Firecracker => {
            let message = format!("Invalid request method and/or path: {method} {path}.");
            let code = code_of(&methods);
            ApiError::new(code, message, "see docs/api.md for what is there")
        }
        Dialect::Coracle if methods.is_empty() => ApiError::new(
            Code::UnknownPath,
            format!("there is nothing at {path}"),
            "see docs/api.md for what is there",
        ),
        Dialect::Coracle => {
            let names: Vec<_> = methods.iter().map(|one| one.as_str()).collect();
            let message = format!("{path} has no method {method}");
            let hint = format!("use {}", names.join(" or "));
            ApiError::new(Code::MethodNotAllowed, message, hint)
        }
    };
    Err(NotFound { error, methods })
}

fn code_of(methods: &[Method]) -> Code {
    if methods.is_empty() {
        Code::UnknownPath
    } else {
        Code::MethodNotAllowed
    }
}

/// Whether `path` has the shape of `pattern`, and the name in it.
#[expect(
    clippy::option_option,
    reason = "no match, or a match with or without a name"
)]
fn matched<'a>(pattern: &str, path: &'a str) -> Option<Option<&'a str>> {
    let Some(front) = pattern.strip_suffix("{id}") else {
        return (pattern == path).then_some(None);
    };
    let id = path.strip_prefix(front)?;
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (!id.is_empty() && id.bytes().all(good)).then_some(Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_found_and_is_there_once() {
        for route in ROUTES {
            let path = route.path.replace("{id}", "disk0");
            let found = find(route.method, &path).unwrap();
            assert_eq!(found.route.operation, route.operation, "{path}");
            assert_eq!(found.id.is_some(), route.path.contains('{'));
            assert!(!route.doc.is_empty() && !route.states.is_empty());
            let same = |other: &&Route| (other.method, other.path) == (route.method, route.path);
            assert_eq!(ROUTES.iter().filter(same).count(), 1);
        }
    }

    #[test]
    fn what_is_not_there_is_told_in_the_language_of_the_path() {
        let cases = [
            (Method::Get, "/nope", Code::UnknownPath, 0),
            (Method::Delete, "/", Code::MethodNotAllowed, 1),
            (Method::Get, "/drives", Code::UnknownPath, 0),
            (Method::Patch, "/drives/", Code::UnknownPath, 0),
            (Method::Patch, "/drives/a/b", Code::UnknownPath, 0),
            (Method::Patch, "/drives/%61", Code::UnknownPath, 0),
            (Method::Get, "/?a=b", Code::UnknownPath, 0),
            (Method::Get, "//", Code::UnknownPath, 0),
            (Method::Put, "/balloon", Code::MethodNotAllowed, 2),
            (Method::Get, "/coracle/v1/", Code::UnknownPath, 0),
            (Method::Get, "/coracle/v1/machine/", Code::UnknownPath, 0),
            (
                Method::Head,
                "/coracle/v1/machine",
                Code::MethodNotAllowed,
                1,
            ),
            (
                Method::Other,
                "/coracle/v1/drives/a",
                Code::MethodNotAllowed,
                1,
            ),
        ];
        for (method, path, code, methods) in cases {
            let missing = find(method, path).unwrap_err();
            let theirs = missing
                .error
                .message
                .starts_with("Invalid request method and/or path");
            assert_eq!(theirs, dialect(path) == Dialect::Firecracker, "{path}");
            assert_eq!(
                (missing.error.code, missing.methods.len()),
                (code, methods),
                "{path}"
            );
        }
    }
}
