//! The routing of interrupt lines: each pin of the IOAPIC, and each message of a PCI function, is
//! a GSI whose message KVM holds.

use devices::line::Msi;
use kvm_bindings::{KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_irq_routing_entry};

use super::{Attempt, KvmError, Vm};

/// The messages behind the GSIs; one without a message is masked.
///
/// Each change costs KVM a grace period of its readers, so only real changes are passed on.
#[derive(Debug)]
pub struct Routes {
    vm: Vm,
    gsis: Vec<Option<Msi>>,
}

impl Routes {
    /// All of `gsis` GSIs masked, as KVM has it after the split of the irqchip.
    #[must_use]
    pub fn new(vm: Vm, gsis: usize) -> Self {
        Self {
            vm,
            gsis: vec![None; gsis],
        }
    }

    /// Routes a GSI to `message`, or masks it.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason; the old routing stays in force.
    pub fn set(&mut self, gsi: u32, message: Option<Msi>) -> Result<(), KvmError> {
        let index = usize::try_from(gsi).unwrap_or(usize::MAX);
        let Some(slot) = self.gsis.get_mut(index) else {
            return Ok(());
        };
        if *slot == message {
            return Ok(());
        }
        let before = std::mem::replace(slot, message);
        let result = self.apply(gsi);
        if result.is_err()
            && let Some(slot) = self.gsis.get_mut(index)
        {
            *slot = before;
        }
        result
    }

    fn apply(&self, gsi: u32) -> Result<(), KvmError> {
        let entries: Vec<_> = (0..)
            .zip(&self.gsis)
            .filter_map(|(gsi, msi)| Some(entry(gsi, (*msi)?)))
            .collect();
        let table = KvmIrqRouting::from_entries(&entries)
            .expect("invariant: a machine has fewer GSIs than a routing table has entries");
        self.vm
            .fd()
            .set_gsi_routing(&table)
            .attempt(|| format!("routing interrupt {gsi}"))
    }
}

fn entry(gsi: u32, msi: Msi) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        ..Default::default()
    };
    let [low, high] = [msi.address & 0xffff_ffff, msi.address >> 32];
    entry.u.msi.address_lo = u32::try_from(low).expect("invariant: 32 bits");
    entry.u.msi.address_hi = u32::try_from(high).expect("invariant: 32 bits");
    entry.u.msi.data = msi.data;
    entry
}
