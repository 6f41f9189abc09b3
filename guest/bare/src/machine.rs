//! The machine under the program: memory, ports, the clock, the serial port. All `asm!` of it.

use crate::wire;
use core::arch::asm;

const SERIAL: u64 = 0x3f8;
const SLEEP_CONTROL: u64 = 0x600;

/// Ticks of the TSC.
pub fn rdtsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter.
    unsafe { asm!("rdtsc", out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Orders a store before a later load.
pub fn fence() {
    // SAFETY: changes nothing.
    unsafe { asm!("mfence", options(nostack)) };
}

/// Halts for ever: at CPL 3 it is a fault, whose handler does it at CPL 0.
pub fn halt() {
    // SAFETY: does not return.
    unsafe { asm!("hlt") };
}

/// Reads 1, 2, 4 or 8 bytes with one access.
pub fn read(space: u8, width: u8, at: u64) -> u64 {
    let mut value = 0u64;
    // SAFETY: the program is trusted to read what it names; it owns the machine.
    unsafe {
        match (space, width) {
            (wire::MEMORY, 1) => asm!("mov al, [{}]", in(reg) at, inout("rax") value),
            (wire::MEMORY, 2) => asm!("mov ax, [{}]", in(reg) at, inout("rax") value),
            (wire::MEMORY, 4) => asm!("mov eax, [{}]", in(reg) at, inout("rax") value),
            (wire::MEMORY, _) => asm!("mov rax, [{}]", in(reg) at, inout("rax") value),
            (_, 1) => asm!("in al, dx", in("dx") at as u16, inout("rax") value),
            (_, 2) => asm!("in ax, dx", in("dx") at as u16, inout("rax") value),
            _ => asm!("in eax, dx", in("dx") at as u16, inout("rax") value),
        }
    }
    value
}

/// Writes 1, 2, 4 or 8 bytes with one access.
pub fn write(space: u8, width: u8, at: u64, value: u64) {
    // SAFETY: the program is trusted to write what it names; it owns the machine.
    unsafe {
        match (space, width) {
            (wire::MEMORY, 1) => asm!("mov [{}], al", in(reg) at, in("rax") value),
            (wire::MEMORY, 2) => asm!("mov [{}], ax", in(reg) at, in("rax") value),
            (wire::MEMORY, 4) => asm!("mov [{}], eax", in(reg) at, in("rax") value),
            (wire::MEMORY, _) => asm!("mov [{}], rax", in(reg) at, in("rax") value),
            (_, 1) => asm!("out dx, al", in("dx") at as u16, in("rax") value),
            (_, 2) => asm!("out dx, ax", in("dx") at as u16, in("rax") value),
            _ => asm!("out dx, eax", in("dx") at as u16, in("rax") value),
        }
    }
}

/// A load of two bytes, as rings have them.
pub fn read16(at: u64) -> u16 {
    read(wire::MEMORY, 2, at) as u16
}

/// A store of two bytes.
pub fn write16(at: u64, value: u16) {
    write(wire::MEMORY, 2, at, value.into());
}

/// A load of four bytes.
pub fn read32(at: u64) -> u32 {
    read(wire::MEMORY, 4, at) as u32
}

/// A store of four bytes.
pub fn write32(at: u64, value: u32) {
    write(wire::MEMORY, 4, at, value.into());
}

/// Copies memory.
pub fn copy(to: u64, from: u64, len: u64) {
    // SAFETY: the program is trusted to name memory.
    unsafe {
        asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") len => _)
    };
}

/// Sets memory.
pub fn fill(at: u64, byte: u8, len: u64) {
    // SAFETY: the program is trusted to name memory.
    unsafe { asm!("rep stosb", inout("rdi") at => _, in("al") byte, inout("rcx") len => _) };
}

fn say(byte: u8) {
    write(wire::PORT, 1, SERIAL, byte.into());
}

/// Prints a word and numbers.
pub fn line(word: &str, numbers: &[u64]) {
    word.bytes().for_each(say);
    for number in numbers {
        say(b' ');
        let digits = (64 - (number | 1).leading_zeros()).div_ceil(4);
        for digit in (0..digits).rev() {
            say(b"0123456789abcdef"[(number >> (4 * digit)) as usize & 15]);
        }
    }
    say(b'\n');
}

/// Powers off.
pub fn finish() -> ! {
    write(wire::PORT, 1, SLEEP_CONTROL, 5 << 2 | 0x20);
    loop {
        halt();
    }
}

/// What the compiler calls where it sees a loop that copies.
#[unsafe(no_mangle)]
extern "C" fn memcpy(to: u64, from: u64, len: u64) -> u64 {
    copy(to, from, len);
    to
}

/// See [`memcpy`].
#[unsafe(no_mangle)]
extern "C" fn memset(at: u64, byte: i32, len: u64) -> u64 {
    fill(at, byte as u8, len);
    at
}
