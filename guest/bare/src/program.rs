//! The interpreter: runs the operations in the initrd and answers on the serial port.
//!
//! Answers are lines: `ok ROW`, `bad ROW STEP FOUND`, `mark TSC`, `load …`, `fault …`, and at
//! the end `end ROWS BAD`, before it powers off. Numbers are hexadecimal.

use crate::machine::{self, finish, line, rdtsc, read, write};
use crate::{device, load, wire};
use core::panic::PanicInfo;

core::arch::global_asm!(include_str!("start.s"));

/// One record of the program.
pub struct Record {
    opcode: u8,
    width: u8,
    space: u8,
    count: u64,
    at: u64,
    value: u64,
    mask: u64,
}

/// A program in memory.
struct Program {
    base: u64,
    records: u64,
    ticks: u64,
}

impl Program {
    fn word(&self, offset: u64) -> u64 {
        read(wire::MEMORY, 8, self.base + offset)
    }

    fn record(&self, index: u64) -> Record {
        let at = wire::HEADER as u64 + index * wire::RECORD as u64;
        let head = self.word(at);
        Record {
            opcode: head as u8,
            width: (head >> 8) as u8,
            space: (head >> 16) as u8,
            count: head >> 32,
            at: self.word(at + 8),
            value: self.word(at + 16),
            mask: self.word(at + 24),
        }
    }

    /// Runs one step; what was found where a check fails.
    fn step(&self, op: &Record) -> Result<(), u64> {
        let found = || read(op.space, op.width, op.at);
        let holds = |value: u64| value & op.mask == op.value;
        let deadline = rdtsc() + op.count * self.ticks;
        let parameters = |index| self.word(op.value + 8 * index);
        match op.opcode {
            wire::WRITE => write(op.space, op.width, op.at, op.value),
            wire::EXPECT | wire::UNTIL | wire::WHILE => loop {
                let value = found();
                if holds(value) != (op.opcode == wire::WHILE) {
                    break;
                }
                if rdtsc() >= deadline {
                    return Err(value);
                }
            },
            wire::COPY => machine::copy(op.at, self.base + op.value, op.mask),
            wire::FILL => machine::fill(op.at, op.value as u8, op.mask),
            wire::COMPARE => {
                let byte = |at| read(wire::MEMORY, 1, at);
                let differs = |i: &u64| byte(op.at + i) != byte(self.base + op.value + i);
                if let Some(index) = (0..op.mask).find(differs) {
                    return Err(index << 8 | byte(op.at + index));
                }
            }
            wire::PAUSE => while rdtsc() < deadline {},
            wire::MARK => line("mark", &[rdtsc()]),
            wire::START => device::start_idle(op.at, op.mask),
            wire::IDLE => machine::halt(),
            other if load(other, op.at, parameters) => {}
            other => return Err(u64::from(other)),
        }
        Ok(())
    }

    fn run(&self) {
        let (mut row, mut rows, mut bad) = (None, 0, 0);
        let mut step = 0;
        let mut failed = false;
        for index in 0..self.records {
            let op = self.record(index);
            if op.opcode == wire::ROW {
                if let Some(row) = row.filter(|_| !failed) {
                    line("ok", &[row]);
                }
                (row, step, failed) = (Some(op.value), 0, false);
                rows += 1;
                continue;
            }
            if !failed && let Err(found) = self.step(&op) {
                line("bad", &[row.unwrap_or(0), step, found]);
                failed = true;
                bad += 1;
            }
            step += 1;
        }
        if let Some(row) = row.filter(|_| !failed) {
            line("ok", &[row]);
        }
        line("end", &[rows, bad]);
    }
}

/// Entered from start.s at CPL 3.
#[unsafe(no_mangle)]
extern "C" fn bare_main(zero_page: u64) -> ! {
    // ramdisk_image of Linux's zero page; the program says itself how long it is.
    let base = read(wire::MEMORY, 4, zero_page + 0x218);
    let mut program = Program { base, records: 0, ticks: 0 };
    if base == 0 || program.word(0) != wire::MAGIC {
        line("no program", &[base]);
    } else {
        (program.records, program.ticks) = (program.word(8), program.word(16));
        program.run();
    }
    finish()
}

/// Entered from start.s after an exception: vector, what the stack held, CR2.
#[unsafe(no_mangle)]
extern "C" fn bare_fault(vector: u64, first: u64, second: u64, _stack: u64, address: u64) -> ! {
    line("fault", &[vector, first, second, address]);
    finish()
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    line("panic", &[info.location().map_or(0, |at| u64::from(at.line()))]);
    finish()
}
