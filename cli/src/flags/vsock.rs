//! The value of `--vsock`: `cid=N,path=PATH`, in any order, with `,,` for a comma in the path.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use api::spec::VsockSpec;

use super::disk::split;
use crate::failure::Failure;

const HINT: &str = "give --vsock cid=3,path=PATH; write ,, for a comma in the path";

/// Reads one `--vsock`.
///
/// # Errors
/// When a part is missing, unknown or given twice, or the context ID is no number.
pub(crate) fn parse(value: &OsStr) -> Result<VsockSpec, Failure> {
    let mut cid = None;
    let mut path = None;
    for part in split(value.as_bytes()) {
        let twice = if let Some(text) = part.strip_prefix(b"cid=") {
            cid.replace(number(value, text)?).is_some()
        } else if let Some(text) = part.strip_prefix(b"path=") {
            let text = OsString::from_vec(text.to_vec());
            path.replace(PathBuf::from(text)).is_some()
        } else {
            let part = String::from_utf8_lossy(&part).into_owned();
            return Err(refuse(value, &format!("has the unknown part {part:?}")));
        };
        if twice {
            return Err(refuse(value, "says the same thing twice"));
        }
    }
    match (cid, path) {
        (Some(cid), Some(path)) => Ok(VsockSpec { cid, path }),
        (None, _) => Err(refuse(value, "has no cid=")),
        (_, None) => Err(refuse(value, "has no path=")),
    }
}

fn number(value: &OsStr, text: &[u8]) -> Result<u64, Failure> {
    let text = String::from_utf8_lossy(text);
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => Err(refuse(
            value,
            &format!("has the cid {text:?}, which is no number"),
        )),
    }
}

fn refuse(value: &OsStr, reason: &str) -> Failure {
    Failure::input(format!("vsock {}: {reason}", value.display()), HINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted() {
        for (text, cid, path) in [
            ("cid=3,path=/run/v", 3, "/run/v"),
            ("path=v,cid=0", 0, "v"),
            ("cid=4294967296,path=a,,b", 1 << 32, "a,b"),
            ("cid=7,path=", 7, ""),
        ] {
            let path = path.into();
            let expected = VsockSpec { cid, path };
            assert_eq!(parse(OsStr::new(text)).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refused() {
        for (text, message) in [
            ("", "vsock : has the unknown part \"\""),
            ("3", "vsock 3: has the unknown part \"3\""),
            ("cid=3", "vsock cid=3: has no path="),
            ("path=v", "vsock path=v: has no cid="),
            (
                "cid=x,path=v",
                "vsock cid=x,path=v: has the cid \"x\", which is no number",
            ),
            (
                "cid=-3,path=v",
                "vsock cid=-3,path=v: has the cid \"-3\", which is no number",
            ),
            (
                "cid=3,cid=3,path=v",
                "vsock cid=3,cid=3,path=v: says the same thing twice",
            ),
            (
                "cid=3,path=v,ro",
                "vsock cid=3,path=v,ro: has the unknown part \"ro\"",
            ),
        ] {
            assert_eq!(parse(OsStr::new(text)).unwrap_err().message, message);
        }
    }
}
