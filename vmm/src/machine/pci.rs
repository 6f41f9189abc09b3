//! What KVM does for functions on the PCI bus: routes of their messages, and doorbells that follow
//! their windows.

use std::sync::{Arc, Mutex, PoisonError};

use arch::layout;
use devices::bus::{AddressRange, BusBuilder, Place};
use devices::line::Msi;
use devices::log::RateLimit;
use devices::pci::{ConfigPorts, Ecam, MessageRoute, PciFunction, PciRoot, root};
use devices::virtio::transport::pci::{Attachment, BellBinding, notify_address};
use devices::{Doorbell, IrqLine};

use super::MachineError;
use super::catalog::host;
use crate::blueprint::PciBlueprint;
use crate::kvm::{KvmError, Routes, Vm};
use crate::snapshot::devices::Part;

/// The routes of all GSIs, which the I/O APIC and the functions change from vCPU threads. Locked
/// last of all, for one system call.
#[derive(Clone, Debug)]
pub(super) struct SharedRoutes(Arc<Mutex<Routes>>);

impl SharedRoutes {
    pub(super) fn new(routes: Routes) -> Self {
        Self(Arc::new(Mutex::new(routes)))
    }

    /// Routes a GSI. Where the host refuses, the guest's line stays as it was, as with broken
    /// hardware; the host's log tells.
    pub(super) fn set(&self, gsi: u32, message: Option<Msi>, limit: &RateLimit) {
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(cause) = routes.set(gsi, message) {
            limit.warn(format_args!("{cause}: {}", reason(&cause)));
        }
    }
}

fn reason(cause: &KvmError) -> String {
    let reason = std::error::Error::source(cause);
    reason.map_or_else(String::new, ToString::to_string)
}

/// What a function at `at` is attached with: its lines are bound to its GSIs.
pub(super) fn attachment(
    vm: &Vm,
    routes: &SharedRoutes,
    at: PciBlueprint,
    place: Place,
) -> Result<Attachment, MachineError> {
    let line = |gsi| {
        let line = IrqLine::new().map_err(host("creating an interrupt line"))?;
        vm.bind_line(&line, gsi)?;
        Ok(line)
    };
    let gsis = at.first_gsi..at.first_gsi + u32::from(at.vectors);
    let lines = gsis.map(line).collect::<Result<_, MachineError>>()?;
    Ok(Attachment {
        window: u32::try_from(at.window).expect("invariant: windows are below 4 GiB"),
        within: AddressRange {
            start: layout::PCI_MEMORY,
            len: layout::PCI_MEMORY_SIZE,
        },
        place,
        lines,
        route: message_route(routes.clone(), at.first_gsi),
        bells: bell_binding(vm.clone()),
    })
}

fn message_route(routes: SharedRoutes, first_gsi: u32) -> MessageRoute {
    let limit = RateLimit::new();
    Box::new(move |vector, message| {
        routes.set(first_gsi + u32::from(vector), Some(message), &limit);
    })
}

/// Binds the doorbells where the window is. One that KVM refuses, because another function's is
/// there or for want of memory, costs an exit each time.
fn bell_binding(vm: Vm) -> BellBinding {
    let limit = RateLimit::new();
    let mut bound: Option<u64> = None;
    Box::new(move |bells: &[Doorbell], window| {
        let before = std::mem::replace(&mut bound, window);
        for (queue, bell) in (0..).zip(bells) {
            if let Some(window) = before {
                // It may never have been bound.
                let _ = vm.unbind_doorbell(bell, notify_address(window, queue));
            }
            if let Some(window) = window
                && let Err(cause) = vm.bind_doorbell_to_any(bell, notify_address(window, queue))
            {
                limit.warn(format_args!(
                    "{cause}: {}; this doorbell costs an exit each time",
                    reason(&cause)
                ));
            }
        }
    })
}

/// Puts a function on the bus of a blueprint, where each has a place of its own.
pub(super) fn insert(root: &mut PciRoot, device: u8, function: Arc<Mutex<dyn PciFunction>>) {
    root.insert(device, function)
        .expect("invariant: a blueprint's functions have places of their own");
}

/// Lets the guest reach the configuration spaces of a bus that is complete: what a snapshot holds
/// of that.
pub(super) fn attach_spaces(root: PciRoot, ports: &mut BusBuilder, mmio: &mut BusBuilder) -> Part {
    const APART: &str = "invariant: a blueprint's windows don't overlap";
    let root = Arc::new(root);
    let at = AddressRange {
        start: layout::PCI_CONFIG.into(),
        len: root::CONFIG_PORTS.into(),
    };
    let mechanism = Arc::new(Mutex::new(ConfigPorts::new(Arc::clone(&root))));
    let part = Arc::clone(&mechanism) as _;
    ports.attach("pci", at, mechanism).expect(APART);
    let at = AddressRange {
        start: layout::PCI_ECAM,
        len: root::ECAM_BYTES,
    };
    mmio.attach("pci", at, Arc::new(Mutex::new(Ecam::new(root))))
        .expect(APART);
    part
}
