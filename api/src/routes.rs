//! The API's operations as one table: which request is read by which function, in which states
//! of the machine; and how a request finds its row.

use crate::error::{ApiError, Code, Dialect};
use crate::http::Method;
use crate::machine::MachineState;
use crate::request::{
    Reader, actions, balloon, boot_source, cpu, device, drive, entropy, machine, mmds, net,
    snapshot, tell,
};

/// What our own paths begin with.
pub const OURS: &str = "/coracle/v1/";

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path; `{id}` stands for one name.
    pub path: &'static str,
    /// The states of the machine in which it is carried out.
    pub states: &'static [MachineState],
    /// Makes a call of it.
    pub(crate) reader: Reader,
    /// What it does, in a few words.
    pub doc: &'static str,
}

/// Whatever the machine's state.
pub(crate) const ALWAYS: &[MachineState] = &[
    MachineState::NotStarted,
    MachineState::Running,
    MachineState::Paused,
];

/// Before the machine is started.
pub(crate) const FRESH: &[MachineState] = &[MachineState::NotStarted];

/// From then on.
pub(crate) const STARTED: &[MachineState] = &[MachineState::Running, MachineState::Paused];

/// While it stands still.
pub(crate) const PAUSED: &[MachineState] = &[MachineState::Paused];

/// Makes the rows of one method.
macro_rules! rows_of {
    ($($name:ident => $method:ident),+) => {$(
        const fn $name(
            path: &'static str,
            states: &'static [MachineState],
            reader: Reader,
            doc: &'static str,
        ) -> Route {
            let method = Method::$method;
            Route { method, path, states, reader, doc }
        }
    )+};
}

rows_of!(get => Get, put => Put, patch => Patch, delete => Delete);

/// Every operation.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    get("/", ALWAYS, tell::instance, "the instance and its state"),
    get("/version", ALWAYS, tell::version, "the release of Firecracker whose API is spoken"),
    get("/machine-config", ALWAYS, tell::machine_config, "vCPUs and memory"),
    put("/machine-config", FRESH, machine::put_config, "vCPUs and memory"),
    patch("/machine-config", FRESH, machine::patch_config, "some of that"),
    put("/boot-source", FRESH, boot_source::put, "kernel, initial RAM disk and command line"),
    put("/drives/{id}", FRESH, drive::put, "a drive, new or instead of the one of that name"),
    patch("/drives/{id}", STARTED, drive::patch_theirs, "another image or other limits"),
    delete("/drives/{id}", FRESH, drive::delete, "takes it away"),
    put("/network-interfaces/{id}", FRESH, net::put, "a network interface on a tap"),
    delete("/network-interfaces/{id}", FRESH, net::delete, "takes it away"),
    put("/vsock", FRESH, device::put_vsock, "the socket device"),
    put("/entropy", FRESH, entropy::put, "the source of random numbers"),
    put("/serial", FRESH, device::put_serial, "the file that the console is written to"),
    put("/cpu-config", FRESH, device::put_cpu_config, "what the guest sees of the CPU: no changes"),
    patch("/network-interfaces/{id}", STARTED, net::patch_theirs, "other limits"),
    get("/balloon", ALWAYS, tell::balloon, "the balloon's set-up"),
    put("/balloon", FRESH, balloon::put, "the balloon"),
    patch("/balloon", STARTED, balloon::patch_theirs, "another size for the balloon"),
    get("/balloon/statistics", STARTED, tell::balloon_statistics, "the guest's memory"),
    patch("/balloon/statistics", STARTED, balloon::patch_statistics, "how often it is told"),
    patch("/balloon/hinting/start", STARTED, balloon::start_hinting, "tell of free memory"),
    get("/balloon/hinting/status", STARTED, tell::hinting_status, "how far that is"),
    patch("/balloon/hinting/stop", STARTED, balloon::stop_hinting, "use the free memory again"),
    put("/pmem/{id}", ALWAYS, device::missing, "persistent memory: there is none"),
    patch("/pmem/{id}", ALWAYS, device::missing, "persistent memory: there is none"),
    delete("/pmem/{id}", ALWAYS, device::missing, "persistent memory: there is none"),
    get("/hotplug/memory", ALWAYS, device::missing, "memory that comes later: there is none"),
    put("/hotplug/memory", ALWAYS, device::missing, "memory that comes later: there is none"),
    patch("/hotplug/memory", ALWAYS, device::missing, "memory that comes later: there is none"),
    put("/logger", FRESH, device::put_logger, "where the monitor writes its log"),
    put("/metrics", FRESH, device::put_metrics, "the file that counters are written to"),
    put("/actions", ALWAYS, actions::theirs, "start, or press the power button"),
    get("/mmds", ALWAYS, mmds::get, "the metadata"),
    put("/mmds", ALWAYS, mmds::put, "other metadata"),
    patch("/mmds", ALWAYS, mmds::patch, "some other metadata"),
    put("/mmds/config", FRESH, mmds::put_config, "how the guest reads it"),
    patch("/vm", STARTED, actions::patch_vm, "let the guest stand still, or go on"),
    put("/snapshot/create", PAUSED, snapshot::create, "save the machine in two files"),
    put("/snapshot/load", FRESH, snapshot::load, "make a machine of what was saved"),
    get("/vm/config", ALWAYS, tell::vm_config, "all that the machine was made of"),

    get("/coracle/v1/machine", ALWAYS, tell::machine, "the machine and its state"),
    put("/coracle/v1/machine", FRESH, machine::put, "the whole machine"),
    put("/coracle/v1/snapshot", PAUSED, snapshot::create, "save the machine in two files"),
    put("/coracle/v1/restore", FRESH, snapshot::load, "make a machine of what was saved"),
    put("/coracle/v1/actions", ALWAYS, actions::ours, "start, pause, resume, stop and the like"),
    get("/coracle/v1/events", ALWAYS, tell::events, "what happens, as it does: a stream"),
    get("/coracle/v1/metrics", STARTED, tell::metrics, "all counters, as Prometheus reads them"),
    get("/coracle/v1/devices", STARTED, tell::devices, "what every device is and did"),
    patch("/coracle/v1/drives/{id}", STARTED, drive::patch_ours, "image, size and limits"),
    patch("/coracle/v1/network-interfaces/{id}", STARTED, net::patch_ours, "limits"),
    patch("/coracle/v1/balloon", STARTED, balloon::patch_ours, "size, statistics and hinting"),
    get("/coracle/v1/metadata", ALWAYS, mmds::get, "what the guest can read"),
    put("/coracle/v1/metadata", ALWAYS, mmds::put, "other metadata"),
    patch("/coracle/v1/metadata", ALWAYS, mmds::patch, "some other metadata"),
    patch("/coracle/v1/cpu", STARTED, cpu::patch_ours, "how much of the host's CPUs it may use"),
    patch("/coracle/v1/entropy", STARTED, entropy::patch_ours, "limits of random numbers"),
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
            let which = |route: &Route| (route.method, route.path, route.doc);
            assert_eq!(which(found.route), which(route));
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
            (Method::Post, "/balloon", Code::MethodNotAllowed, 3),
            (Method::Get, "/coracle/v1/", Code::UnknownPath, 0),
            (Method::Get, "/coracle/v1/machine/", Code::UnknownPath, 0),
            (
                Method::Head,
                "/coracle/v1/machine",
                Code::MethodNotAllowed,
                2,
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
