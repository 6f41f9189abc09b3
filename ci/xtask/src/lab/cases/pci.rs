//! Distributions' kernels over virtio-pci: their own drivers, the console and the disk on the bus.

use super::boot::linux;
use super::{POWERED_OFF, REBOOTED, words};
use lab::script::Case;

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
    // Without ACPI the kernel finds the bus by its ports.
    let mut plain = case("cloud", "ports", 2, "reboot", "", REBOOTED);
    plain.arguments.extend(words(&["--platform", "mptable"]));
    cases.push(plain);
    // Every window is moved by the kernel.
    let moved = "pci=realloc=on,assign-busses";
    cases.push(case("cloud", "realloc", 1, "reboot", moved, REBOOTED));
    cases
}

fn over_pci(mut case: Case) -> Case {
    case.arguments.extend(words(&["--transport", "pci"]));
    case
}
