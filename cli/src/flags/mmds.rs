//! The value of `--mmds`: a file of metadata that the guest can read, and how it does.

use std::path::{Path, PathBuf};

use api::spec::{MmdsSpec, MmdsVersion};
use vmm::machine::Metadata;

use super::boot::{read_json, word};
use crate::failure::Failure;

/// Metadata, and its service; the networks that it is on are not said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mmds {
    pub(crate) path: PathBuf,
    pub(crate) spec: MmdsSpec,
}

/// Reads one `--mmds`.
///
/// # Errors
/// When an option is unknown, or its value is none that it can have.
pub(crate) fn parse(value: &str) -> Result<Mmds, Failure> {
    let mut parts = value.split(',');
    let mut mmds = Mmds {
        path: parts.next().unwrap_or_default().into(),
        spec: MmdsSpec {
            version: MmdsVersion::V2,
            network_interfaces: Vec::new(),
            ipv4_address: None,
            imds_compat: false,
        },
    };
    for option in parts {
        match option.split_once('=') {
            Some(("version", version)) => mmds.spec.version = version.parse().map_err(word)?,
            Some(("address", address)) => {
                let address = address.parse().map_err(|_| {
                    Failure::input(
                        format!("mmds address {address:?} is not an IPv4 address"),
                        "give one such as 169.254.169.254, or leave it out",
                    )
                })?;
                mmds.spec.ipv4_address = Some(address);
            }
            None if option == "compat" => mmds.spec.imds_compat = true,
            _ => {
                return Err(Failure::input(
                    format!("mmds {value}: has the unknown option {option:?}"),
                    "the options are version=v1, version=v2, address=ADDRESS, compat",
                ));
            }
        }
    }
    Ok(mmds)
}

/// The metadata in a file.
///
/// # Errors
/// When it can't be read, is no JSON, or is too large.
pub(crate) fn read(path: &Path) -> Result<Metadata, Failure> {
    let metadata = Metadata::default();
    fill(&metadata, path)?;
    Ok(metadata)
}

/// Puts the metadata in a file there.
///
/// # Errors
/// When it can't be read, is no JSON, or is too large.
pub(crate) fn fill(metadata: &Metadata, path: &Path) -> Result<(), Failure> {
    let document = read_json("mmds", path, "write it as JSON, such as {\"latest\": {}}")?;
    metadata.put(document).map_err(|error| {
        Failure::input(
            format!("mmds {}: {error}", path.display()),
            "keep less in it",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted() {
        let plain = parse("meta.json").unwrap();
        assert_eq!(plain.path, Path::new("meta.json"));
        assert_eq!(plain.spec.version, MmdsVersion::V2, "the safe one");
        assert_eq!(
            (plain.spec.ipv4_address, plain.spec.imds_compat),
            (None, false)
        );
        let all = parse("m,version=v1,address=169.254.1.1,compat").unwrap();
        assert_eq!(all.spec.version, MmdsVersion::V1);
        assert_eq!(all.spec.ipv4_address, Some([169, 254, 1, 1].into()));
        assert!(all.spec.imds_compat);
    }

    #[test]
    fn refused() {
        for value in [
            "m,version=3",
            "m,version=V1",
            "m,address=1.2.3",
            "m,x",
            "m,",
            "m,compat=on",
        ] {
            let failure = parse(value).unwrap_err();
            assert!(!failure.hint.is_empty(), "{value}");
        }
    }

    #[test]
    fn files_are_read_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        std::fs::write(&path, "{\n  \"a\": 1\n}\n").unwrap();
        assert_eq!(read(&path).unwrap().get().unwrap()["a"], 1);
        let long = format!("[\"{}\"]", "a".repeat(51_200));
        for (text, word) in [("{", "EOF"), ("", "empty"), (&long, "51200")] {
            std::fs::write(&path, text).unwrap();
            let failure = read(&path).unwrap_err();
            assert!(failure.message.contains(word), "{}", failure.message);
        }
        assert!(read(Path::new("/none")).is_err());
    }
}
