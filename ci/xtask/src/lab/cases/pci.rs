//! Distributions' kernels over virtio-pci: their own drivers, the console and the disk on the bus.

use super::boot::linux;
use super::{POWERED_OFF, REBOOTED, over_pci, words};
use lab::script::{Case, Step};

/// The cases of this area.
pub(super) fn cases() -> Vec<Case> {
    let case = |kernel: &str, name: &str, cpus, end, arguments, exit| {
        let name = format!("{kernel}-pci-{name}");
        over_pci(linux(&name, kernel, cpus, 256, end, arguments, exit))
    };
    let mut cases = Vec::new();
    for kernel in ["cloud", "generic"] {
        cases.push(case(kernel, "1", 1, "reboot", "", REBOOTED));
        cases.push(case(kernel, "4", 4, "poweroff", "", POWERED_OFF));
    }
    // Every window is moved by the kernel.
    let moved = "pci=realloc=on,assign-busses";
    cases.push(case("cloud", "realloc", 1, "reboot", moved, REBOOTED));
    cases.push(debian());
    cases
}

/// Longer than the others, so that it runs only when it is asked for: it unpacks 36 MB with gzip
/// under an emulator of an emulator.
const DEBIAN_SECONDS: u64 = 600;

/// Debian's generic kernel with the initramfs of Debian's own tools: it finds the drivers for the
/// disk by itself, mounts the root on it and hands over.
fn debian() -> Case {
    let arguments = [
        "boot",
        "--transport",
        "pci",
        "--kernel",
        "/kernels/debian",
        "--initrd",
        "/initrds/debian",
        "--disk",
        "/disks/debian",
        "--memory",
        "512M",
        "--cpus",
        "2",
        "--cmdline",
        "root=/dev/vda rw init=/hello.sh",
    ];
    Case {
        name: "debian-pci-initramfs".to_owned(),
        arguments: words(&arguments),
        steps: vec![
            Step::Expect(" / ext4 rw".to_owned()),
            Step::Expect("/block/vda".to_owned()),
            Step::Expect("2 CPUs, written".to_owned()),
        ],
        exit: POWERED_OFF,
        seconds: DEBIAN_SECONDS,
    }
}
