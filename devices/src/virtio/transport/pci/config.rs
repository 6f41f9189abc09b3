//! The configuration space of a virtio function: who it is, its window and its capabilities
//! (virtio 1.2, 4.1.2 and 4.1.4).

use super::{
    COMMON, COMMON_BYTES, CONFIG, ISR, MSIX_PENDING, MSIX_TABLE, NOTIFY, NOTIFY_STEP, WINDOW_BYTES,
};
use crate::bus::{AddressRange, Width};
use crate::pci::header::{field, touches};
use crate::pci::{Bar, FunctionId, Header, msix};
use crate::state;
use crate::state::BadState;

const VENDOR: u16 = 0x1af4;
/// A device that never had a legacy interface has this number and its virtio ID.
const FIRST_DEVICE: u16 = 0x1040;
const REVISION: u8 = 1;
/// The board: QEMU's number, which drivers print.
const BOARD: u16 = 0x1100;

/// The capability's identity: of the vendor.
const VENDOR_SPECIFIC: u8 = 9;
// Kinds of structures.
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;
const PCI_CFG: u8 = 5;
/// The room that a structure without a length of its own has.
const PAGE: u64 = 0x1000;

/// Fields of the capability through which the configuration space reaches the window.
const INDIRECT_BAR: u16 = 4;
const INDIRECT_OFFSET: u16 = 8;
const INDIRECT_LENGTH: u16 = 12;
const INDIRECT_DATA: u16 = 16;

/// Classes by virtio device ID, as QEMU gives them: drivers do not look, people do.
const CLASSES: [(u32, u16); 12] = [
    (1, 0x0200),  // network: Ethernet
    (2, 0x0100),  // block: mass storage, SCSI
    (3, 0x0780),  // console: communication
    (4, 0x00ff),  // entropy
    (5, 0x00ff),  // balloon
    (8, 0x0100),  // SCSI host
    (16, 0x0380), // GPU: display
    (18, 0x0980), // input
    (19, 0x0780), // vsock
    (24, 0x00ff), // memory
    (26, 0x0180), // file system: mass storage
    (27, 0x00ff), // pmem
];
/// What is in no class.
const OTHERS: u16 = 0x00ff;

/// The space, and the window's register in it.
#[derive(Debug)]
pub(super) struct Space {
    header: Header,
    bar: Bar,
    msix: u16,
    indirect: u16,
}

state! {
    /// The configuration space.
    pub struct SpaceStateV1 {
        /// All of it.
        pub bytes: [u8; 256],
        /// Where the window was last.
        pub window: u32,
    }
}

/// Where an access through the configuration space goes: offset in the window and width.
pub(super) type Indirect = (u64, Width);

impl Space {
    pub(super) fn new(device_id: u32, window: u32, within: AddressRange, vectors: u16) -> Self {
        let number = u16::try_from(device_id).unwrap_or_default();
        let class = CLASSES.iter().find(|(id, _)| *id == device_id);
        let mut header = Header::new(&FunctionId {
            vendor: VENDOR,
            device: FIRST_DEVICE.saturating_add(number),
            revision: REVISION,
            class: class.map_or(OTHERS, |(_, class)| *class),
            subsystem: (VENDOR, BOARD),
        });
        let bar = Bar::new(window, WINDOW_BYTES, within);
        header.put(field::BAR0, &bar.register().to_le_bytes());
        header.permit(field::BAR0, &bar.writable().to_le_bytes());
        let mut add = |kind, at, len, more: &[u8], writable: &[u8]| {
            let mut body = structure(kind, at, len);
            body.extend(more);
            // The capability says its own length, with the two bytes before the body.
            let whole = u8::try_from(body.len().saturating_add(2)).unwrap_or(u8::MAX);
            if let Some(length) = body.first_mut() {
                *length = whole;
            }
            header.add_capability(VENDOR_SPECIFIC, &body, writable)
        };
        let step = u32::try_from(NOTIFY_STEP).unwrap_or_default();
        add(COMMON_CFG, COMMON, COMMON_BYTES, &[], &[]);
        add(NOTIFY_CFG, NOTIFY, PAGE, &step.to_le_bytes(), &[]);
        add(ISR_CFG, ISR, 1, &[], &[]);
        add(DEVICE_CFG, CONFIG, PAGE, &[], &[]);
        let indirect = add(PCI_CFG, 0, 0, &[0; 4], &indirect_writable());
        let mut body = vectors.wrapping_sub(1).to_le_bytes().to_vec();
        body.extend(u32::try_from(MSIX_TABLE).unwrap_or_default().to_le_bytes());
        body.extend(
            u32::try_from(MSIX_PENDING)
                .unwrap_or_default()
                .to_le_bytes(),
        );
        let writable = msix::CONTROL_WRITABLE.to_le_bytes();
        let msix = header.add_capability(msix::CAPABILITY, &body, &writable);
        Self {
            header,
            bar,
            msix,
            indirect,
        }
    }

    pub(super) fn save(&self) -> SpaceStateV1 {
        SpaceStateV1 {
            bytes: *self.header.bytes(),
            window: self.bar.address(),
        }
    }

    pub(super) fn restore(&mut self, state: &SpaceStateV1) -> Result<(), BadState> {
        self.header.restore(&state.bytes)?;
        let register = self.header.read(field::BAR0, Width::Dword);
        let decoding = self.header.answers_memory();
        let good = self.bar.restore(state.window, register, decoding);
        BadState::unless(good, "the address of a window", state.window)
    }

    pub(super) fn read(&self, offset: u16, width: Width) -> u32 {
        self.header.read(offset, width)
    }

    /// Writes, and lets the window follow: whether it can be where it is to be.
    pub(super) fn write(&mut self, offset: u16, width: Width, value: u32) -> bool {
        self.header.write(offset, width, value);
        let mut good = self.bar.decode(self.header.answers_memory());
        if touches(offset, width, field::BAR0, 4) {
            good &= self.bar.write(self.header.read(field::BAR0, Width::Dword));
        }
        let register = self.bar.register();
        self.header.put(field::BAR0, &register.to_le_bytes());
        good
    }

    /// Where the window is, while the function answers.
    pub(super) fn window(&self) -> Option<u64> {
        self.bar.place()
    }

    /// Whether an access touches the control word of MSI-X.
    pub(super) fn is_control(&self, offset: u16, width: Width) -> bool {
        touches(offset, width, self.msix.saturating_add(2), 2)
    }

    pub(super) fn control(&self) -> u16 {
        let control = self.header.read(self.msix.saturating_add(2), Width::Word);
        u16::try_from(control).unwrap_or_default()
    }

    pub(super) fn set_control(&mut self, control: u16) {
        let at = self.msix.saturating_add(2);
        self.header.put(at, &control.to_le_bytes());
    }

    /// What an access means for the window, if it touches the data field: the place, or none
    /// when the driver has set no possible one (4.1.4.9.1).
    pub(super) fn indirect(&self, offset: u16, width: Width) -> Option<Option<Indirect>> {
        let data = self.indirect.saturating_add(INDIRECT_DATA);
        touches(offset, width, data, 4).then(|| self.indirect_place())
    }

    fn indirect_place(&self) -> Option<Indirect> {
        let read = |field, width| self.header.read(self.indirect.saturating_add(field), width);
        let at = u64::from(read(INDIRECT_OFFSET, Width::Dword));
        let width = match read(INDIRECT_LENGTH, Width::Dword) {
            1 => Width::Byte,
            2 => Width::Word,
            4 => Width::Dword,
            _ => return None,
        };
        let end = at.checked_add(width.bytes())?;
        let inside = end <= u64::from(WINDOW_BYTES) && at.is_multiple_of(width.bytes());
        (inside && read(INDIRECT_BAR, Width::Byte) == 0).then_some((at, width))
    }

    /// The first bytes of the data field.
    pub(super) fn indirect_data(&self, width: Width) -> u64 {
        let data = self.indirect.saturating_add(INDIRECT_DATA);
        self.header.read(data, width).into()
    }

    pub(super) fn set_indirect_data(&mut self, value: u64) {
        let data = self.indirect.saturating_add(INDIRECT_DATA);
        let bytes = value.to_le_bytes();
        self.header.put(data, bytes.get(..4).unwrap_or_default());
    }
}

/// The body of a capability that says where a structure is (4.1.4), its own length not set.
fn structure(kind: u8, at: u64, len: u64) -> Vec<u8> {
    // Length, kind, the window's number, no identity, padding.
    let mut body = vec![0, kind, 0, 0, 0, 0];
    body.extend(u32::try_from(at).unwrap_or_default().to_le_bytes());
    body.extend(u32::try_from(len).unwrap_or_default().to_le_bytes());
    body
}

/// What a driver writes of the capability that reaches the window: from behind the two bytes
/// that all capabilities begin with.
fn indirect_writable() -> [u8; 18] {
    let mut mask = [0; 18];
    let fields = [(INDIRECT_BAR, 1), (INDIRECT_OFFSET, 12)];
    for (field, len) in fields {
        let first = usize::from(field).saturating_sub(2);
        mask.iter_mut()
            .skip(first)
            .take(len)
            .for_each(|byte| *byte = 0xff);
    }
    mask
}
