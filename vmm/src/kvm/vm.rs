//! One virtual machine: its memory slots, interrupt lines, doorbells and vCPUs.
#![expect(
    unsafe_code,
    reason = "KVM maps host memory into the guest by raw address"
)]

use std::sync::Arc;

use arch::layout;
use devices::{Doorbell, GuestRam, IrqLine};
use kvm_bindings::{KVM_CAP_SPLIT_IRQCHIP, kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vm_memory::{Address as _, GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::assist::{self, Assist, Needs};
use super::{Attempt, KvmError, Vcpu};

/// One virtual machine. Clones name the same machine.
#[derive(Debug, Clone)]
pub struct Vm {
    fd: Arc<VmFd>,
    /// Guest memory, once mapped: it must outlive the machine's vCPUs.
    ram: Option<GuestRam>,
}

impl Vm {
    pub(super) fn new(fd: VmFd) -> Self {
        Self {
            fd: Arc::new(fd),
            ram: None,
        }
    }

    /// Gives the machine local APICs in the kernel and an IOAPIC of `pins` pins here.
    ///
    /// Must come before the first vCPU.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn enable_split_irqchip(&self, pins: u32) -> Result<(), KvmError> {
        let mut cap = kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            ..Default::default()
        };
        cap.args[0] = u64::from(pins);
        self.fd
            .enable_cap(&cap)
            .attempt(|| format!("splitting the irqchip at {pins} pins"))
    }

    /// Reserves the pages that KVM on Intel needs inside the hole of the guest's memory.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn reserve_kvm_pages(&self) -> Result<(), KvmError> {
        self.fd
            .set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .attempt(|| "placing the identity map".into())?;
        let tss = usize::try_from(layout::KVM_TSS).expect("invariant: the TSS is below 4 GiB");
        self.fd
            .set_tss_address(tss)
            .attempt(|| "placing the TSS".into())
    }

    /// Maps all of `ram` into the machine, one slot a region, and keeps it alive.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn map_ram(&mut self, ram: &GuestRam) -> Result<(), KvmError> {
        for (slot, region) in ram.memory().iter().enumerate() {
            let start = region.start_addr().raw_value();
            let slot = u32::try_from(slot).expect("invariant: RAM has at most two regions");
            let area = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: start,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the region is a live mapping of exactly this length; `self.ram` keeps it
            // mapped for as long as this machine or a clone of it exists, and regions of one
            // GuestMemory don't overlap.
            let mapped = unsafe { self.fd.set_user_memory_region(area) };
            mapped.attempt(|| format!("mapping {} bytes of RAM at {start:#x}", region.len()))?;
        }
        self.ram = Some(ram.clone());
        Ok(())
    }

    /// Prepares the machine for the assists that `needs` asks for.
    ///
    /// # Errors
    /// [`assist::AssistError`] says which ioctl failed.
    pub fn prepare_assists(&self, needs: &Needs) -> Result<(), assist::AssistError> {
        assist::prepare_vm(&self.fd, needs)
    }

    /// Makes each pulse of `line` an edge on `gsi`.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn bind_line(&self, line: &IrqLine, gsi: u32) -> Result<(), KvmError> {
        self.fd
            .register_irqfd(line.event_fd(), gsi)
            .attempt(|| format!("binding line {gsi}"))
    }

    /// Makes a 32-bit write of `value` at guest-physical `address` ring `doorbell` without an exit
    /// to user space.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn bind_doorbell(
        &self,
        doorbell: &Doorbell,
        address: u64,
        value: u32,
    ) -> Result<(), KvmError> {
        self.fd
            .register_ioevent(doorbell.event_fd(), &IoEventAddress::Mmio(address), value)
            .attempt(|| format!("binding the doorbell at {address:#x}"))
    }

    /// Makes a write of any value and width at guest-physical `address` ring `doorbell` without an
    /// exit to user space.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn bind_doorbell_to_any(&self, doorbell: &Doorbell, address: u64) -> Result<(), KvmError> {
        let at = IoEventAddress::Mmio(address);
        self.fd
            .register_ioevent(doorbell.event_fd(), &at, NoDatamatch)
            .attempt(|| format!("binding the doorbell at {address:#x}"))
    }

    /// Undoes [`Self::bind_doorbell_to_any`].
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason, such as that it was not bound.
    pub fn unbind_doorbell(&self, doorbell: &Doorbell, address: u64) -> Result<(), KvmError> {
        let at = IoEventAddress::Mmio(address);
        self.fd
            .unregister_ioevent(doorbell.event_fd(), &at, NoDatamatch)
            .attempt(|| format!("unbinding the doorbell at {address:#x}"))
    }

    /// Creates vCPU number `id`; the completions of [`assist`] come with it where needed.
    ///
    /// # Errors
    /// [`KvmError`] with the host's reason.
    pub fn create_vcpu(&self, id: u8, needs: &Needs) -> Result<Vcpu, KvmError> {
        let fd = self
            .fd
            .create_vcpu(u64::from(id))
            .attempt(|| format!("creating vCPU {id}"))?;
        let assist = self.ram.clone().and_then(|ram| Assist::new(needs, ram));
        Ok(Vcpu::new(id, fd, assist, self.clone()))
    }

    pub(super) fn fd(&self) -> &VmFd {
        &self.fd
    }
}
