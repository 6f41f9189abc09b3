//! The value of `--disk`: `PATH[,ro][,id=NAME][,format=FORMAT]` and more options, with `,,` for a
//! comma in the path.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use api::spec::{DiskFormat, DiskSpec, RateSpec};

use super::boot::word;
use super::number;
use crate::failure::Failure;

/// The options of a disk, for messages.
const OPTIONS: &str = "the options are ro, id=NAME, format=raw|qcow2|cow, engine=, cache=, \
                       direct=, queues=, bandwidth= and iops=; write ,, for a comma in the path";

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
    let mut seen: Vec<String> = Vec::new();
    for part in parts {
        let option = String::from_utf8_lossy(&part).into_owned();
        let (name, text) = match option.split_once('=') {
            Some((name, text)) => (name, Some(text)),
            None => (option.as_str(), None),
        };
        if text.is_some() && seen.iter().any(|before| before == name) {
            let reason = format!("has {name}= twice");
            return Err(refuse(value, &reason, "give each option once"));
        }
        set(&mut disk, value, name, text)?;
        seen.push(name.to_owned());
    }
    Ok(disk)
}

/// Sets one option.
fn set(disk: &mut DiskSpec, value: &OsStr, name: &str, text: Option<&str>) -> Result<(), Failure> {
    match (name, text) {
        ("ro", None) => disk.read_only = true,
        ("id", Some(text)) => disk.id = Some(text.to_owned()),
        ("format", Some(text)) => disk.format = read_format(value, text)?,
        ("engine", Some(text)) => disk.engine = text.parse().map_err(word)?,
        ("cache", Some(text)) => disk.cache = text.parse().map_err(word)?,
        ("direct", Some("on")) => disk.direct = true,
        ("direct", Some("off")) => disk.direct = false,
        ("direct", Some(text)) => {
            let reason = format!("has direct={text}");
            return Err(refuse(value, &reason, "write direct=on or direct=off"));
        }
        ("queues", Some(text)) => {
            let hint = "give queues a number, such as queues=2";
            disk.queues = Some(number("disk queues", text, hint)?);
        }
        ("bandwidth", Some(text)) => disk.bandwidth = Some(RateSpec::of_text(text)),
        ("iops", Some(text)) => disk.iops = Some(RateSpec::of_text(text)),
        _ => {
            let option = text.map_or_else(|| name.to_owned(), |text| format!("{name}={text}"));
            let reason = format!("has the unknown option {option:?}");
            return Err(refuse(value, &reason, OPTIONS));
        }
    }
    Ok(())
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
    use api::spec::{DiskCache, DiskEngine, SizeSpec};

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
        let all = "a,engine=io_uring,cache=writethrough,direct=on,queues=4,bandwidth=10M+1G,\
                   iops=500";
        let expected = DiskSpec {
            path: "a".into(),
            engine: DiskEngine::IoUring,
            cache: DiskCache::Writethrough,
            direct: true,
            queues: Some(4),
            bandwidth: Some(RateSpec {
                burst: Some(SizeSpec::Text("1G".into())),
                ..RateSpec::per_second(SizeSpec::Text("10M".into()))
            }),
            iops: Some(RateSpec::per_second(SizeSpec::Text("500".into()))),
            ..DiskSpec::default()
        };
        assert_eq!(parse(OsStr::new(all)).unwrap(), expected);
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
            ("a,id=x,id=y", "disk a,id=x,id=y: has id= twice"),
            ("a,ro=on", "disk a,ro=on: has the unknown option \"ro=on\""),
            (
                "a,engine",
                "disk a,engine: has the unknown option \"engine\"",
            ),
            (
                "a,engine=aio",
                "disk engine \"aio\" is not one of auto, sync, io_uring",
            ),
            (
                "a,cache=none",
                "disk cache \"none\" is not one of writeback, writethrough",
            ),
            ("a,direct=yes", "disk a,direct=yes: has direct=yes"),
            ("a,queues=two", "disk queues \"two\" is not a whole number"),
            ("a,iops=1,iops=2", "disk a,iops=1,iops=2: has iops= twice"),
            (
                "a,format=vdi",
                "disk a,format=vdi: has the unknown format \"vdi\"",
            ),
            (
                "a,format=raw,format=raw",
                "disk a,format=raw,format=raw: has format= twice",
            ),
        ] {
            assert_eq!(parse(OsStr::new(text)).unwrap_err().message, message);
        }
    }
}
