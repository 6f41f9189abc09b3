//! The test guests: a dozen instructions each, one for every way that a guest can end or misbehave.

use crate::asm::Asm;
use crate::elf::Elf;

/// Where virtio-mmio windows begin and how far apart they are.
pub const VIRTIO_BASE: u32 = 0xd000_0000;
/// Bytes from one window to the next.
pub const VIRTIO_STRIDE: u32 = 0x1000;
/// The word `virt` that every window begins with.
pub const VIRTIO_MAGIC: u32 = 0x7472_6976;

/// The first byte that a guest writes, for those that say only that they run.
pub const HELLO: &str = "H";

/// Where [`nowhere`] jumps to: between memory and 4 GiB, beside all devices.
pub const NOWHERE: u32 = 0xb800_0000;
/// The instruction of [`kernel_sse`].
pub const KERNEL_SSE: [u8; 3] = [0x0f, 0x58, 0xc0];

const SLEEP_CONTROL: u16 = 0x600;
const RESET: u16 = 0x602;
const KEYBOARD: u16 = 0x64;
const SERIAL_DATA: u16 = 0x3f8;
const SERIAL_STATUS: u16 = 0x3fd;

fn image(code: Asm) -> Vec<u8> {
    Elf::of(code.finish()).image()
}

fn reset(code: Asm) -> Asm {
    let code = code.out_to(KEYBOARD, 0xfe);
    stay(code)
}

/// Halts with interrupts off, for ever.
fn stay(code: Asm) -> Asm {
    let here = code.here();
    code.cli().hlt().jump(here)
}

/// Writes one byte to the serial port and resets through the keyboard controller.
#[must_use]
pub fn hello_reset() -> Vec<u8> {
    image(reset(Asm::new().say(HELLO)))
}

/// Powers off through the sleep control register: S5, enabled.
#[must_use]
pub fn acpi_poweroff() -> Vec<u8> {
    image(stay(
        Asm::new().say(HELLO).out_to(SLEEP_CONTROL, (5 << 2) | 0x20),
    ))
}

/// Resets through the ACPI reset register.
#[must_use]
pub fn acpi_reset() -> Vec<u8> {
    image(stay(Asm::new().say(HELLO).out_to(RESET, 1)))
}

/// Loads an empty interrupt table and executes an undefined instruction: a triple fault.
#[must_use]
pub fn triple_fault() -> Vec<u8> {
    // `lidt [eax]` reads ten zero bytes at 4 MiB; `ud2` then has no handler, nor has its fault.
    image(
        Asm::new()
            .say(HELLO)
            .eax(0x40_0000)
            .raw(&[0x0f, 0x01, 0x18, 0x0f, 0x0b]),
    )
}

/// Jumps to where no memory is: there is no instruction that any KVM could emulate.
#[must_use]
pub fn nowhere() -> Vec<u8> {
    // `jmp eax` (FF E0)
    image(Asm::new().say(HELLO).eax(NOWHERE).raw(&[0xff, 0xe0]))
}

/// `addps xmm0, xmm0` in kernel mode, before anybody allowed it: a processor raises #UD, for which
/// there is no handler.
#[must_use]
pub fn kernel_sse() -> Vec<u8> {
    image(reset(Asm::new().say(HELLO).raw(&KERNEL_SSE)))
}

/// Says hello and halts for ever with interrupts off.
#[must_use]
pub fn halt() -> Vec<u8> {
    image(stay(Asm::new().say(HELLO)))
}

/// Says hello and spins for ever.
#[must_use]
pub fn spin() -> Vec<u8> {
    let code = Asm::new().say(HELLO);
    let here = code.here();
    image(code.jump(here))
}

/// Writes to the serial port for ever.
#[must_use]
pub fn chatty() -> Vec<u8> {
    let code = Asm::new().dx(SERIAL_DATA).al(b'x');
    let here = code.here();
    image(code.out().jump(here))
}

/// Sends back every byte that it receives; resets after a `q`.
#[must_use]
pub fn echo() -> Vec<u8> {
    let code = Asm::new().say(HELLO);
    let again = code.here();
    let code = code.dx(SERIAL_STATUS).input().until_bit(1, again);
    image(reset(
        code.dx(SERIAL_DATA).input().out().unless_al(b'q', again),
    ))
}

/// Reads a byte and a dword from every I/O port, writes both to every port outside the platform's
/// own, says hello and resets.
#[must_use]
pub fn port_sweep() -> Vec<u8> {
    let code = Asm::new().dx(0).ecx(0x1_0000);
    let again = code.here();
    let code = code.input().next_port().repeat(again);
    let code = code.dx(0).ecx(0xffff);
    let again = code.here();
    let code = code.input_dword().next_port().repeat(again);
    // 0x1000.. holds nothing of ours; below it a write could reset or power off.
    let code = code.dx(0x1000).ecx(0xe000).eax(0x5a5a_5a5a);
    let again = code.here();
    let code = code.out().out_dword().next_port().repeat(again);
    image(reset(code.say(HELLO)))
}

/// Reads and writes a dword in every 64 KiB of the hole between memory and 4 GiB, says hello and
/// resets.
#[must_use]
pub fn memory_sweep() -> Vec<u8> {
    let code = Asm::new().edi(0xc000_0000).ecx(0x3e00);
    let again = code.here();
    let code = code.load().store().add_edi(0x1_0000).repeat(again);
    image(reset(code.say(HELLO)))
}

/// For each of the 16 virtio windows writes the magic word and the device id, four bytes each,
/// lowest first, and resets.
#[must_use]
pub fn virtio_probe() -> Vec<u8> {
    let code = Asm::new().edi(VIRTIO_BASE).ecx(16);
    let again = code.here();
    let code = code.load().say_eax().add_edi(8).load().say_eax();
    image(reset(code.add_edi(VIRTIO_STRIDE - 8).repeat(again)))
}

/// Makes a guest's image.
pub type MakeImage = fn() -> Vec<u8>;

/// Every test guest by name, for people who want to try one by hand.
pub const ALL: &[(&str, MakeImage)] = &[
    ("hello-reset", hello_reset),
    ("acpi-poweroff", acpi_poweroff),
    ("acpi-reset", acpi_reset),
    ("triple-fault", triple_fault),
    ("nowhere", nowhere),
    ("kernel-sse", kernel_sse),
    ("halt", halt),
    ("spin", spin),
    ("chatty", chatty),
    ("echo", echo),
    ("port-sweep", port_sweep),
    ("memory-sweep", memory_sweep),
    ("virtio-probe", virtio_probe),
];
