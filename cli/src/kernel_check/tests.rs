use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::options::{Options, Setting, embedded, gunzip};
use super::{Verdict, check, judge};

const LEAN: &str = include_str!("../../../resources/kernel/lean.config");

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn settings_are_read() {
    let text = "#\n# Linux/x86 6.1.192 Kernel Configuration\n#\nCONFIG_A=y\nCONFIG_B=m\n\
                # CONFIG_C is not set\nCONFIG_D=\"y\"\nCONFIG_E=5\nnonsense\nCONFIG_F\n";
    let options = Options::parse(text);
    assert_eq!(options.kernel.as_deref(), Some("Linux/x86 6.1.192"));
    assert_eq!(options.get("A"), Setting::BuiltIn);
    assert_eq!(options.get("B"), Setting::Module);
    for name in ["C", "D", "E", "F", "G", ""] {
        assert_eq!(options.get(name), Setting::Absent, "{name}");
    }
}

#[test]
fn the_fragment_of_the_lean_kernel_serves_what_it_is_for() {
    let report = judge("lean".into(), &Options::parse(LEAN));
    assert!(report.boots());
    let verdict = |name| {
        report
            .uses
            .iter()
            .find(|one| one.name == name)
            .unwrap()
            .verdict
    };
    for name in [
        "several CPUs",
        "clock",
        "devices",
        "disks",
        "initrd",
        "network",
        "vsock",
    ] {
        assert_eq!(verdict(name), Verdict::Ready, "{name}");
    }
    for name in ["nested containers", "VPN", "snapshots", "stop from outside"] {
        assert_eq!(verdict(name), Verdict::Lacking, "{name}");
    }
}

#[test]
fn modules_and_gaps_are_told_apart() {
    let options = Options::parse("CONFIG_TTY=y\nCONFIG_SERIAL_8250=m\nCONFIG_VSOCKETS=m\n");
    let report = judge("x".into(), &options);
    assert!(!report.boots());
    let serial = report
        .uses
        .iter()
        .find(|one| one.name == "serial console")
        .unwrap();
    assert_eq!(serial.verdict, Verdict::Lacking);
    assert_eq!(serial.missing, [["CONFIG_SERIAL_8250_CONSOLE"]]);
    assert_eq!(serial.modules, ["CONFIG_SERIAL_8250"]);
    let text = report.human();
    assert!(
        text.contains("wants CONFIG_SERIAL_8250_CONSOLE\n"),
        "{text}"
    );
    assert!(
        text.contains("to be loaded: CONFIG_SERIAL_8250\n"),
        "{text}"
    );
}

#[test]
fn the_configuration_inside_an_image_is_found_behind_false_marks() {
    let mut image = b"....IKCFG_ST not it IKCFG_ST\x1f\x8b broken".to_vec();
    assert_eq!(embedded(&image), None);
    image.extend(b"IKCFG_ST");
    image.extend(gzip("CONFIG_A=y\n"));
    image.extend(b"IKCFG_ED and more");
    assert_eq!(
        embedded(&image).as_deref(),
        Some(b"CONFIG_A=y\n".as_slice())
    );
    assert_eq!(embedded(b"IKCFG_ST"), None);
    assert_eq!(embedded(b""), None);
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let bomb = gzip(&"x".repeat(9 << 20));
    assert_eq!(gunzip(&bomb).unwrap().len(), 8 << 20);
}

#[test]
fn files_of_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    assert!(check(&put("config", LEAN.as_bytes())).unwrap().boots());
    assert!(check(&put("config.gz", &gzip(LEAN))).unwrap().boots());
    for (name, bytes) in [
        ("empty", b"".as_slice()),
        ("text", b"hello\n"),
        ("elf", b"\x7fELF and nothing"),
        ("gz", b"\x1f\x8bbroken"),
    ] {
        assert!(check(&put(name, bytes)).is_err(), "{name}");
    }
    assert!(check(dir.path()).is_err());
    assert!(check(&dir.path().join("missing")).is_err());
}

#[test]
fn the_committed_kernel_carries_its_configuration() {
    let config = embedded(crate::embedded::guest().kernel).expect("CONFIG_IKCONFIG");
    let report = judge(
        "built-in".into(),
        &Options::parse(&String::from_utf8_lossy(&config)),
    );
    assert!(report.boots());
    assert_eq!(report.kernel.as_deref(), Some("Linux/x86 6.1.192"));
}
