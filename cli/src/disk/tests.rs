use super::*;

#[test]
fn errors_have_their_remedy_as_hint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none");
    let failure = info(&path, Output::Text).unwrap_err();
    assert_eq!(failure.exit, Exit::BadInput);
    assert_eq!(
        failure.message,
        format!("disk {}: no such file", path.display())
    );
    assert_eq!(failure.hint, "check the path");
}

#[test]
fn the_whole_way_of_a_delta() {
    let dir = tempfile::tempdir().unwrap();
    let [base, delta, out] = ["base", "delta", "out"].map(|name| dir.path().join(name));
    assert_eq!(create_raw(&base, "1M").unwrap(), Exit::Done);
    let create = || create_delta(&delta, base.clone(), DiskFormat::Raw, Some("2M"), None);
    assert_eq!(create().unwrap(), Exit::Done);
    let again = create().unwrap_err();
    assert!(again.message.ends_with("exists already"), "{again}");
    assert_eq!(info(&delta, Output::Json).unwrap(), Exit::Done);
    assert_eq!(verify(&delta, Output::Json).unwrap(), Exit::Done);
    assert_eq!(commit(&delta, Some(&out)).unwrap(), Exit::Done);
    assert_eq!(out.metadata().unwrap().len(), 2 << 20);
    let moved = rebase(&delta, out, DiskFormat::Raw, false).unwrap();
    assert_eq!(moved, Exit::Done);
    assert_eq!(reset(&delta).unwrap(), Exit::Done);
    std::fs::remove_file(&base).unwrap();
    assert_eq!(verify(&delta, Output::Text).unwrap(), Exit::Done);
}

#[test]
fn a_lost_base_fails_the_verification() {
    let dir = tempfile::tempdir().unwrap();
    let [base, delta] = ["base", "delta"].map(|name| dir.path().join(name));
    create_raw(&base, "1M").unwrap();
    create_delta(&delta, base.clone(), DiskFormat::Raw, None, Some("64K")).unwrap();
    std::fs::remove_file(&base).unwrap();
    let failure = verify(&delta, Output::Text).unwrap_err();
    assert_eq!(failure.exit, Exit::BadInput);
    assert!(failure.message.contains("has lost its base"), "{failure}");
}

#[test]
fn numbers_that_make_no_sense() {
    for text in ["", "x", "3K", "2M", "-1"] {
        assert!(cluster_bytes(text).is_err(), "{text}");
    }
    assert_eq!(cluster_bytes("64k").unwrap(), 65_536);
    let dir = tempfile::tempdir().unwrap();
    for text in ["0", "100", "many"] {
        let failure = create_raw(&dir.path().join("raw"), text).unwrap_err();
        assert_eq!(failure.exit, Exit::BadInput, "{text}");
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

#[test]
fn reports_are_lines_whatever_the_path() {
    let verified = overlay::Verified {
        deltas: 1,
        checksums: 2,
        problems: vec![overlay::Problem {
            path: "a\nb".into(),
            what: "map block 0 is damaged".to_owned(),
            harmless: false,
        }],
    };
    let text = VerifyReport::new(&verified).human(Path::new("a\nb"));
    assert_eq!(
        text,
        "DAMAGE: a\\nb: map block 0 is damaged\na\\nb: not sound; 2 checksums in 1 deltas\n"
    );
}
