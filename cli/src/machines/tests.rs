//! The registry on a folder of its own.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::process::Process;
use super::registry::Registry;
use crate::exit::Exit;

fn registry(folder: &Path) -> Registry {
    Registry::at(&folder.join("run"))
}

#[test]
fn a_machine_is_found_while_its_claim_lives() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(folder.path());
    assert!(registry.all().unwrap().is_empty(), "there is no folder yet");
    let claim = registry.claim(Some("web")).unwrap();
    let machine = folder.path().join("run/machines/web");
    assert_eq!(claim.socket(), machine.join("api.sock"));
    let mode = std::fs::metadata(&machine).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(registry.all().unwrap().is_empty(), "it starts");
    claim.publish(&claim.socket()).unwrap();
    let record = registry.find("web").unwrap();
    assert_eq!(
        (record.pid, record.name.as_str()),
        (std::process::id(), "web")
    );
    assert!(Process::of(&record).is_some());
    let other = registry.claim(None).unwrap();
    other.publish(Path::new("elsewhere.sock")).unwrap();
    let names: Vec<_> = registry
        .all()
        .unwrap()
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(
        names,
        [format!("vm-{}", std::process::id()), "web".to_owned()]
    );
    assert!(registry.find(other.name()).unwrap().socket.is_absolute());
    drop((claim, other));
    assert!(!machine.exists());
    assert_eq!(registry.find("web").unwrap_err().exit, Exit::BadInput);
}

#[test]
fn a_name_is_one_machines() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(folder.path());
    let first = registry.claim(Some("web")).unwrap();
    let failure = registry.claim(Some("web")).unwrap_err();
    assert!(failure.message.contains("runs already"), "{failure}");
    drop(first);
    let _second = registry.claim(Some("web")).unwrap();
    let unnamed = [registry.claim(None).unwrap(), registry.claim(None).unwrap()];
    assert_ne!(unnamed[0].name(), unnamed[1].name());
    for name in ["", ".", "..", "a/b", "-a", "a b", "\u{e4}", &"a".repeat(65)] {
        let failure = registry.claim(Some(name)).unwrap_err();
        assert_eq!(failure.exit, Exit::BadInput, "{name:?}");
        assert!(registry.find(name).is_err(), "{name:?}");
    }
}

#[test]
fn what_a_killed_machine_left_is_swept_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(folder.path());
    let left = |name: &str| {
        let claim = registry.claim(Some(name)).unwrap();
        claim.publish(&claim.socket()).unwrap();
        std::fs::write(claim.socket(), "").unwrap();
        let machine = claim.socket().parent().unwrap().to_owned();
        // A process that is killed lets go of its lock and removes nothing.
        let aside = folder.path().join("aside");
        std::fs::rename(&machine, &aside).unwrap();
        drop(claim);
        std::fs::rename(&aside, &machine).unwrap();
        machine
    };
    let (a, b) = (left("a"), left("b"));
    std::fs::write(b.join("mine"), "").unwrap();
    assert!(registry.all().unwrap().is_empty());
    assert!(!a.exists());
    let files: Vec<_> = std::fs::read_dir(&b).unwrap().flatten().collect();
    assert_eq!(files.len(), 1, "{files:?}");
    // Its name can be used again, whatever is in its folder.
    let c = left("c");
    let claim = registry.claim(Some("c")).unwrap();
    assert!(!c.join("record.json").exists());
    assert!(registry.find("c").is_err());
    claim.publish(&claim.socket()).unwrap();
    assert!(registry.find("c").is_ok());
    // A stranger's file and a link are no machines, and stay.
    let machines = folder.path().join("run/machines");
    std::fs::write(machines.join("file"), "").unwrap();
    std::os::unix::fs::symlink(&c, machines.join("link")).unwrap();
    assert_eq!(registry.all().unwrap().len(), 1);
    assert!(machines.join("file").exists() && machines.join("link").exists());
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("run");
    std::fs::create_dir(&base).unwrap();
    std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o777)).unwrap();
    let failure = registry(folder.path()).claim(Some("web")).unwrap_err();
    assert!(
        failure.message.contains("only you may write to"),
        "{failure}"
    );
}

#[test]
fn a_process_is_known_by_its_start() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(folder.path());
    let claim = registry.claim(Some("web")).unwrap();
    claim.publish(&claim.socket()).unwrap();
    let mut record = registry.find("web").unwrap();
    record.start_time += 1;
    assert!(Process::of(&record).is_none(), "another one of that number");
    let mut child = std::process::Command::new("true").spawn().unwrap();
    record.pid = child.id();
    child.wait().unwrap();
    assert!(Process::of(&record).is_none());
}
