//! vCPU threads on the host's own KVM: whatever a guest does, its threads stop when they are told.

use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arch::boot::CpuStart;
use arch::layout;
use arch::regs::{Regs, Segment, StartSregs};
use devices::legacy::IoApic;
use devices::{BusBuilder, GuestRam};

use super::{Buses, VcpuEnd, VcpuThreads};
use crate::kvm::assist::Needs;
use crate::kvm::{Exit, Kicker, Kvm, Vcpu, Vm};
use crate::memory;

/// Far beyond what a stop takes, so that a loaded host fails no test.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the guest's code is.
pub(crate) const CODE: u64 = 0x1000;

/// 32-bit protected mode without paging, flat segments, at `rip`.
pub(crate) fn flat_start(rip: u64) -> CpuStart {
    let code = Segment {
        limit: 0xffff_ffff,
        selector: 0x10,
        kind: 11,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Segment::default()
    };
    let data = Segment {
        selector: 0x18,
        kind: 3,
        ..code
    };
    let tr = Segment {
        limit: 0x67,
        selector: 0x20,
        kind: 11,
        present: 1,
        ..Segment::default()
    };
    let sregs = StartSregs {
        cs: code,
        data,
        tr,
        cr0: 0x11,
        ..StartSregs::default()
    };
    let regs = Regs {
        rip,
        rflags: 2,
        ..Regs::default()
    };
    CpuStart { regs, sregs }
}

fn buses() -> Arc<Buses> {
    Arc::new(Buses {
        ports: BusBuilder::new("port").freeze(),
        mmio: BusBuilder::new("mmio").freeze(),
        ioapic: Arc::new(Mutex::new(IoApic::new(
            layout::IOAPIC_PINS,
            Box::new(|_, _| ()),
        ))),
    })
}

/// Two vCPUs: the first runs `code`, the second waits for a start-up message that never comes.
fn vcpus(code: &[u8]) -> Vec<Vcpu> {
    machine(code).0
}

/// The same with their memory.
fn machine(code: &[u8]) -> (Vec<Vcpu>, GuestRam) {
    let kvm = Kvm::open(Path::new("/dev/kvm")).unwrap();
    let needs = Needs::detect(kvm.raw());
    let (vm, ram) = vm_with(&kvm, &needs, code);
    let vcpus: Vec<_> = (0..2)
        .map(|id| vm.create_vcpu(id, &needs).unwrap())
        .collect();
    vcpus[0].set_start(&flat_start(CODE)).unwrap();
    (vcpus, ram)
}

/// A machine without vCPUs that has `code` at [`CODE`], and its memory.
pub(crate) fn vm_with(kvm: &Kvm, needs: &Needs, code: &[u8]) -> (Vm, GuestRam) {
    let mut vm = kvm.create_vm().unwrap();
    vm.reserve_kvm_pages().unwrap();
    vm.enable_split_irqchip(layout::IOAPIC_PINS.into()).unwrap();
    vm.prepare_assists(needs).unwrap();
    let ram: GuestRam = memory::map(&[(0, 1 << 20)], false).unwrap();
    ram.write_bytes(CODE, code).unwrap();
    vm.map_ram(&ram).unwrap();
    (vm, ram)
}

/// Runs `work` on a thread of its own and fails when it hangs.
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let worker = std::thread::spawn(move || {
        work();
        done.send(()).unwrap();
    });
    ended.recv_timeout(PATIENCE).expect("it hangs or failed");
    worker.join().unwrap();
}

#[test]
fn threads_stop_whatever_the_guest_does() {
    if harness::skip::without_kvm() {
        return;
    }
    let spin: &[u8] = &[0xeb, 0xfe];
    let halt: &[u8] = &[0xf4, 0xeb, 0xfd];
    let read_nowhere: &[u8] = &[0xe4, 0x99, 0xeb, 0xfc];
    for code in [spin, halt, read_nowhere] {
        // Many times, with a stop at once: a kick that lands before KVM_RUN must not be lost.
        for _ in 0..20 {
            in_time(move || drop(VcpuThreads::start(vcpus(code), &buses(), false).unwrap()));
        }
    }
}

#[test]
fn threads_stop_even_if_the_parent_blocked_the_signal() {
    if harness::skip::without_kvm() {
        return;
    }
    in_time(|| {
        vmm_sys_util::signal::block_signal(Kicker::signal()).unwrap();
        let spin = vcpus(&[0xeb, 0xfe]);
        drop(VcpuThreads::start(spin, &buses(), false).unwrap());
    });
}

#[test]
fn a_triple_fault_is_reported_once() {
    if harness::skip::without_kvm() {
        return;
    }
    in_time(|| {
        // An undefined instruction without an interrupt table.
        let threads = VcpuThreads::start(vcpus(&[0x0f, 0x0b]), &buses(), false).unwrap();
        let end = loop {
            if let Some(end) = threads.next_end() {
                break end;
            }
            std::thread::yield_now();
        };
        assert!(matches!(end, VcpuEnd::TripleFault), "{end:?}");
        assert!(threads.next_end().is_none());
    });
}

/// Waits until `done`, which a vCPU's thread brings about.
fn wait_for(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::yield_now();
    }
}

/// A guest that counts, at an address of its own, as fast as it can.
const COUNT: [u8; 8] = [0xff, 0x05, 0x00, 0x20, 0x00, 0x00, 0xeb, 0xf8];
const COUNTER: u64 = 0x2000;

#[test]
fn a_paused_guest_stands_still_and_goes_on_where_it_was() {
    if harness::skip::without_kvm() {
        return;
    }
    in_time(|| {
        let (vcpus, ram) = machine(&COUNT);
        let threads = VcpuThreads::start(vcpus, &buses(), false).unwrap();
        let count = || ram.read::<u32>(COUNTER).unwrap();
        for _ in 0..100 {
            let before = count();
            wait_for(|| count() != before);
            wait_for(|| threads.pause());
            let standing = count();
            assert!(threads.pause(), "once more is nothing new");
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            assert_eq!(count(), standing, "it runs though it is paused");
            threads.resume();
        }
        let before = count();
        // A pause that is given up at once leaves nobody behind.
        threads.pause();
        threads.resume();
        wait_for(|| count() != before);
    });
}

#[test]
fn threads_that_stand_still_can_be_stopped() {
    if harness::skip::without_kvm() {
        return;
    }
    in_time(|| {
        for paused in [true, false] {
            let threads = VcpuThreads::start(vcpus(&COUNT), &buses(), false).unwrap();
            let stands = threads.pause();
            if paused && !stands {
                wait_for(|| threads.pause());
            }
            drop(threads);
        }
    });
}

/// What an exit left open is done before a vCPU stands still: the instruction is behind it, and
/// an access that KVM splits is asked for whole.
#[test]
fn an_exit_is_completed_without_running_the_guest() {
    if harness::skip::without_kvm() {
        return;
    }
    // in al, 0x99; mov eax, [0xd0001ffe], which lies over two pages; then for ever.
    let code = [0xe4, 0x99, 0xa1, 0xfe, 0x1f, 0x00, 0xd0, 0xeb, 0xfe];
    let (mut vcpus, _ram) = machine(&code);
    let vcpu = &mut vcpus[0];
    let exits = [(CODE + 2, 1), (CODE + 7, 2)];
    for (next, most) in exits {
        let answer = |exit: Exit<'_>| match exit {
            Exit::PortRead { data, .. } | Exit::MmioRead { data, .. } => {
                data.fill(0x5a);
                1
            }
            Exit::Interrupted | Exit::Kicked => 0,
            other => panic!("{other:?}"),
        };
        let mut accesses = 0;
        while accesses == 0 {
            accesses += answer(vcpu.run().unwrap());
        }
        while let Some(exit) = vcpu.finish().unwrap() {
            accesses += answer(exit);
        }
        assert!(accesses <= most, "{accesses} accesses");
        assert_eq!(vcpu.instruction_pointer(), next);
        assert!(vcpu.finish().unwrap().is_none(), "nothing is left");
    }
}
