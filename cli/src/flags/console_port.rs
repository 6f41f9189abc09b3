//! The value of `--console-port`: `name=NAME,socket=PATH|file=PATH|pty[,console]`, in any order,
//! with `,,` for a comma in the path.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use api::spec::{ConsolePortSpec, PortBackend};

use super::disk::split;
use crate::failure::Failure;

const HINT: &str = "write name=NAME and one of socket=PATH, file=PATH and pty, with ,, for a comma \
                    in the path; ,console makes it a console";

/// Reads one `--console-port`.
///
/// # Errors
/// When an option is unknown, or the name or the other end is missing or given twice.
pub(crate) fn parse(value: &OsStr) -> Result<ConsolePortSpec, Failure> {
    let (mut name, mut backend, mut console) = (None, None, false);
    for part in split(value.as_bytes()) {
        let end = if let Some(text) = part.strip_prefix(b"name=") {
            let text = String::from_utf8_lossy(text).into_owned();
            if name.replace(text).is_some() {
                return Err(refuse(value, "has several names"));
            }
            continue;
        } else if let Some(text) = part.strip_prefix(b"socket=") {
            PortBackend::Socket(path(text))
        } else if let Some(text) = part.strip_prefix(b"file=") {
            PortBackend::File(path(text))
        } else if part == b"pty" {
            PortBackend::Pty
        } else if part == b"console" {
            console = true;
            continue;
        } else {
            let part = String::from_utf8_lossy(&part).into_owned();
            return Err(refuse(value, &format!("has the unknown option {part:?}")));
        };
        if backend.replace(end).is_some() {
            return Err(refuse(value, "has several other ends"));
        }
    }
    match (name, backend) {
        (Some(name), Some(backend)) => Ok(ConsolePortSpec {
            name,
            backend,
            console,
        }),
        (None, _) => Err(refuse(value, "has no name")),
        (_, None) => Err(refuse(value, "has no other end")),
    }
}

fn path(text: &[u8]) -> PathBuf {
    OsString::from_vec(text.to_vec()).into()
}

fn refuse(value: &OsStr, reason: &str) -> Failure {
    Failure::input(format!("console port {}: {reason}", value.display()), HINT)
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
            ("name=a,file=/a,,b", PortBackend::File("/a,b".into()), false),
            (
                "name=a,socket=,,,console",
                PortBackend::Socket(",".into()),
                true,
            ),
        ] {
            let name = "a".to_owned();
            let expected = ConsolePortSpec {
                name,
                backend,
                console,
            };
            assert_eq!(parse(OsStr::new(text)).unwrap(), expected, "{text}");
        }
        for option in ["socket", "file"] {
            let mut text = OsString::from(format!("{option}=/"));
            text.push(OsStr::from_bytes(b"\xff,name=a"));
            let (PortBackend::Socket(path) | PortBackend::File(path)) =
                parse(&text).unwrap().backend
            else {
                panic!("{option} has a path")
            };
            assert_eq!(path.as_os_str().as_bytes(), b"/\xff");
        }
    }

    #[test]
    fn refused() {
        for (text, reason) in [
            ("", "has the unknown option \"\""),
            ("name=a", "has no other end"),
            ("pty", "has no name"),
            ("name=a,pty,socket=s", "has several other ends"),
            ("name=a,pty,pty", "has several other ends"),
            ("name=a,name=b,pty", "has several names"),
            ("name=a,file=f,g", "has the unknown option \"g\""),
            ("name=a,tty", "has the unknown option \"tty\""),
        ] {
            let failure = parse(OsStr::new(text)).unwrap_err();
            assert_eq!(failure.message, format!("console port {text}: {reason}"));
        }
    }
}
