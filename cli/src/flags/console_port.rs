//! The value of `--console-port`: `name=NAME,socket=PATH|file=PATH|pty[,console]`.

use std::ffi::OsStr;

use api::spec::{ConsolePortSpec, PortBackend};

use crate::failure::Failure;

/// Reads one `--console-port`.
///
/// # Errors
/// When an option is unknown, or the name or the other end is missing or given twice.
pub(crate) fn parse(value: &OsStr) -> Result<ConsolePortSpec, Failure> {
    let text = value.to_string_lossy();
    let (mut name, mut backend, mut console) = (None, Vec::new(), false);
    for option in text.split(',') {
        match option.split_once('=') {
            Some(("name", text)) => name = Some(text.to_owned()),
            Some(("socket", path)) => backend.push(PortBackend::Socket(path.into())),
            Some(("file", path)) => backend.push(PortBackend::File(path.into())),
            None if option == "pty" => backend.push(PortBackend::Pty),
            None if option == "console" => console = true,
            _ => return Err(refuse(&text, &format!("has the unknown option {option:?}"))),
        }
    }
    let Some(name) = name else {
        return Err(refuse(&text, "has no name"));
    };
    match (backend.pop(), backend.is_empty()) {
        (Some(backend), true) => Ok(ConsolePortSpec {
            name,
            backend,
            console,
        }),
        (None, _) => Err(refuse(&text, "has no other end")),
        (Some(_), false) => Err(refuse(&text, "has several other ends")),
    }
}

fn refuse(value: &str, reason: &str) -> Failure {
    Failure::input(
        format!("console port {value}: {reason}"),
        "write name=NAME and one of socket=PATH, file=PATH and pty; ,console makes it a console",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted() {
        for (text, backend, console) in [
            ("name=a,socket=/s", PortBackend::Socket("/s".into()), false),
            ("file=f=g,name=a", PortBackend::File("f=g".into()), false),
            ("name=a,pty,console", PortBackend::Pty, true),
        ] {
            let name = "a".to_owned();
            let expected = ConsolePortSpec {
                name,
                backend,
                console,
            };
            assert_eq!(parse(OsStr::new(text)).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refused() {
        for (text, reason) in [
            ("", "has the unknown option \"\""),
            ("name=a", "has no other end"),
            ("pty", "has no name"),
            ("name=a,pty,socket=s", "has several other ends"),
            ("name=a,tty", "has the unknown option \"tty\""),
        ] {
            let failure = parse(OsStr::new(text)).unwrap_err();
            assert_eq!(failure.message, format!("console port {text}: {reason}"));
        }
    }
}
