//! The value of `--disk`: `PATH[,ro][,id=NAME][,format=FORMAT]`, with `,,` for a comma in the path.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use api::spec::{DiskFormat, DiskSpec};

use crate::failure::Failure;

/// Reads one `--disk`.
///
/// # Errors
/// When an option is unknown, given twice or without its value.
pub(crate) fn parse(value: &OsStr) -> Result<DiskSpec, Failure> {
    let mut parts = split(value.as_bytes()).into_iter();
    let path = parts.next().unwrap_or_default();
    let mut disk = DiskSpec {
        path: OsString::from_vec(path).into(),
        ..DiskSpec::default()
    };
    let mut format = None;
    for part in parts {
        let option = String::from_utf8_lossy(&part).into_owned();
        match option.split_once('=') {
            Some(("id", id)) if disk.id.is_none() => disk.id = Some(id.to_owned()),
            Some(("id", _)) => {
                return Err(refuse(value, "has two ids", "give one id= to each disk"));
            }
            Some(("format", word)) if format.is_none() => format = Some(read_format(value, word)?),
            Some(("format", _)) => {
                let hint = "give one format= to each disk";
                return Err(refuse(value, "has two formats", hint));
            }
            None if option == "ro" => disk.read_only = true,
            _ => {
                return Err(refuse(
                    value,
                    &format!("has the unknown option {option:?}"),
                    "the options are ro, id=NAME and format=raw|qcow2|cow; write ,, for a comma \
                     in the path",
                ));
            }
        }
    }
    disk.format = format.unwrap_or_default();
    Ok(disk)
}

fn read_format(value: &OsStr, word: &str) -> Result<DiskFormat, Failure> {
    word.parse().map_err(|_| {
        let reason = format!("has the unknown format {word:?}");
        refuse(value, &reason, "the formats are raw, qcow2 and cow")
    })
}

fn refuse(value: &OsStr, reason: &str, hint: &str) -> Failure {
    Failure::input(format!("disk {}: {reason}", value.display()), hint)
}

/// Splits at single commas; two commas are one of the text.
pub(super) fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        if byte == b',' && rest.next_if_eq(&b',').is_none() {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(byte);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(path: &str, read_only: bool, id: Option<&str>) -> DiskSpec {
        DiskSpec {
            path: path.into(),
            read_only,
            id: id.map(Into::into),
            ..DiskSpec::default()
        }
    }

    #[test]
    fn accepted() {
        for (text, expected) in [
            ("a.img", disk("a.img", false, None)),
            ("a.img,ro", disk("a.img", true, None)),
            ("a.img,ro,ro", disk("a.img", true, None)),
            ("a,id=x", disk("a", false, Some("x"))),
            ("a,id=x,ro", disk("a", true, Some("x"))),
            ("a,id=", disk("a", false, Some(""))),
            ("a,format=raw", disk("a", false, None)),
            ("a,,b,ro", disk("a,b", true, None)),
            ("a,,,ro", disk("a,", true, None)),
            ("", disk("", false, None)),
        ] {
            assert_eq!(parse(OsStr::new(text)).unwrap(), expected, "{text}");
        }
        for format in [DiskFormat::Qcow2, DiskFormat::Cow] {
            let text = format!("a,format={format}");
            assert_eq!(parse(OsStr::new(&text)).unwrap().format, format);
        }
        let odd = OsStr::from_bytes(b"/\xff,ro");
        assert_eq!(parse(odd).unwrap().path.as_os_str().as_bytes(), b"/\xff");
    }

    #[test]
    fn refused() {
        for (text, message) in [
            ("a,rw", "disk a,rw: has the unknown option \"rw\""),
            ("a,", "disk a,: has the unknown option \"\""),
            ("a,b,ro", "disk a,b,ro: has the unknown option \"b\""),
            ("a,id", "disk a,id: has the unknown option \"id\""),
            ("a,id=x,id=y", "disk a,id=x,id=y: has two ids"),
            (
                "a,format=vdi",
                "disk a,format=vdi: has the unknown format \"vdi\"",
            ),
            (
                "a,format=raw,format=raw",
                "disk a,format=raw,format=raw: has two formats",
            ),
        ] {
            assert_eq!(parse(OsStr::new(text)).unwrap_err().message, message);
        }
    }
}
