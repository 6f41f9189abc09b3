//! From a blueprint to a running machine: KVM's objects, memory, devices, vCPUs, threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use api::machine::MachineState;
use arch::cpuid::{CpuidPolicy, guest_leaves};
use arch::layout;
use devices::event::{Loop, LoopError, Remote};
use devices::line::{PowerEvents, Reports, power_line, report_line};
use devices::tty::{Terminal, UserRequest};
use devices::virtio::interrupt::Fault;
use devices::virtio::{DeviceCommand, SlotHandle};
use devices::{Doorbell, GuestRam};

use super::catalog::{BellAt, Catalog, Parts, host};
use super::{Ended, HostConsole, MachineError, Origin, Setup};
use crate::blueprint::Blueprint;
use crate::control::{Api, Control, ControlError, Front, OnResize, Pause, PowerButton};
use crate::kvm::assist::Needs;
use crate::kvm::{Kvm, Vcpu, Vm};
use crate::memory;
use crate::snapshot::devices::{DeviceNotRestored, Devices};
use crate::snapshot::{Snapshot, Subject};
use crate::sys::{Signals, wait_readable};
use crate::vcpu::{Buses, VcpuThreads};

/// How long the console's reader may take for what is left when a machine ends.
const OUTPUT_GRACE: Duration = Duration::from_secs(1);

/// How long threads may take to end: far beyond what they need, unless the host hangs.
const TEARDOWN: Duration = Duration::from_secs(10);

/// How often a thread that is to end is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A machine whose vCPUs run.
///
/// The order of the fields is the order of their end: no vCPU outlives a device's thread.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) ram: GuestRam,
    vcpus: VcpuThreads,
    io: IoThread,
    control: Control,
    terminal: Arc<Mutex<Terminal>>,
}

impl Running {
    /// Waits for the machine's end and takes it apart.
    pub(super) fn run(mut self) -> Result<Ended, MachineError> {
        let ended = self.control.run(&self.vcpus);
        let ended = ended.map(|ended| super::judged(ended, &self.ram));
        self.control.end(&ended);
        // A reader that stopped (a paused pager, a stuck terminal) must not hold up a thread that
        // prints.
        lock(&self.terminal).output().finish_within(OUTPUT_GRACE);
        // vCPUs first: they may wait for the I/O thread, which waits for nobody.
        if !self.vcpus.stop_within(TEARDOWN) || !self.io.stop_within(TEARDOWN) {
            // The host does not answer a read or write of a disk. The end of the process waits for
            // what cannot be given up; this thread does not.
            log::error!("a device's request to the host does not return: its threads are left");
            std::mem::forget((self.vcpus, self.io));
            return Ok(ended?);
        }
        match (ended, self.io.join()) {
            (Err(ControlError::IoThread) | Ok(_), Err(cause)) => Err(cause),
            (ended, _) => Ok(ended?),
        }
    }
}

/// The I/O thread, and what rings when it ends.
#[derive(Debug)]
struct IoThread {
    remote: Remote,
    thread: JoinHandle<Result<(), LoopError>>,
    ended: Doorbell,
}

impl IoThread {
    fn start(mut io: Loop) -> Result<Self, MachineError> {
        let ended = Doorbell::new().map_err(host("creating the I/O thread's bell"))?;
        let bell = ended
            .try_clone()
            .map_err(host("creating the I/O thread's bell"))?;
        let remote = io.remote();
        let run = move || {
            let result = io.run();
            // The devices go first, with what they still have to write.
            drop(io);
            bell.ring();
            result
        };
        let thread = Builder::new()
            .name("io-0".into())
            .spawn(run)
            .map_err(host("starting the I/O thread"))?;
        Ok(Self {
            remote,
            thread,
            ended,
        })
    }

    /// Tells the thread to end: whether it did so in time.
    fn stop_within(&self, patience: Duration) -> bool {
        self.remote.stop();
        let deadline = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < deadline {
            // Its bell rings just before it is finished, so the last look may come too early.
            wait_readable(&self.ended, LOOK_AGAIN);
        }
        self.thread.is_finished()
    }

    fn join(self) -> Result<(), MachineError> {
        match self.thread.join() {
            Ok(result) => Ok(result?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

/// A machine whose vCPUs run, and what its API is made of.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) running: Running,
    /// What the API needs of it, until it has it.
    said: Option<(Subject, Vec<(String, SlotHandle)>)>,
}

impl Started {
    /// Serves the clients of `front`.
    pub(super) fn serve(&mut self, front: Front) {
        if let Some((subject, handles)) = self.said.take() {
            self.running.control.api = Some(Api::new(front, subject, handles));
        }
    }

    /// Whether it runs or stands still.
    pub(super) fn state(&self) -> MachineState {
        self.running.control.pause.state()
    }

    /// Lets a machine that stands still go on.
    pub(super) fn resume(&mut self) {
        self.running.control.pause.resume(&self.running.vcpus);
    }
}

/// Builds everything and lets the vCPUs go.
pub(super) fn start(setup: Setup) -> Result<Started, MachineError> {
    let Setup {
        kvm,
        needs,
        blueprint,
        origin,
        disks,
        links,
        system,
        metadata,
        console,
    } = setup;
    let HostConsole {
        signals,
        mut terminal,
    } = console;
    let mut vm = create_vm(&kvm, &needs)?;
    let (ram, saved) = map_memory(&mut vm, &blueprint, origin)?;
    let (power, power_events) = power_line().map_err(host("creating the power line"))?;
    let (requester, requests) = report_line().map_err(host("creating the console's requests"))?;
    let (fault_line, faults) = report_line().map_err(host("creating the devices' line"))?;
    let mut io = Loop::new()?;
    let parts = Parts {
        disks: disks.into_iter().map(Some).collect(),
        links: links.into_iter().map(Some).collect(),
        system,
        metadata,
        requests: requester,
        power,
        faults: fault_line,
    };
    let mut catalog = Catalog::new(&vm, &ram, &mut io, &mut terminal, parts, blueprint.gsis());
    catalog.build(&blueprint)?;
    let (buses, built) = catalog.finish();
    let subject = Subject {
        kvm,
        vm,
        ram,
        blueprint,
        system,
        devices: built.devices,
    };
    let stands = saved.is_some();
    let (vcpus, io) = start_threads(&subject, &needs, &buses, io, saved)?;
    bind_doorbells(&subject.vm, &built.bells);
    let pause = Pause::new(built.handles.clone(), built.watchdog);
    let terminal = Arc::new(Mutex::new(terminal));
    let sources = Sources {
        signals,
        power_events,
        requests,
        faults,
        pause: if stands { pause.begun() } else { pause },
        button: PowerButton::new(built.pm, built.serial_button),
        io_ended: io
            .ended
            .try_clone()
            .map_err(host("creating the I/O thread's bell"))?,
    };
    let control = control(&subject.blueprint, sources, built.console, &terminal);
    let running = Running {
        ram: subject.ram.clone(),
        vcpus,
        io,
        control,
        terminal,
    };
    let said = Some((subject, built.handles));
    Ok(Started { running, said })
}

/// Starts the threads of the machine: its vCPUs run, or stand still where it was `saved`.
fn start_threads(
    machine: &Subject,
    needs: &Needs,
    buses: &Arc<Buses>,
    io: Loop,
    saved: Option<Box<Snapshot>>,
) -> Result<(VcpuThreads, IoThread), MachineError> {
    let stands = saved.is_some();
    let start =
        |vcpus| VcpuThreads::start(vcpus, buses, stands).map_err(host("starting the vCPU threads"));
    match saved {
        None => {
            // The guest starts first: what it asks of a device waits in an eventfd or a mailbox
            // until the device's thread is there, some ten microseconds later.
            let vcpus = create_vcpus(&machine.kvm, &machine.vm, &machine.blueprint, needs)?;
            let vcpus = start(vcpus)?;
            Ok((vcpus, IoThread::start(io)?))
        }
        Some(saved) => {
            let io = IoThread::start(io)?;
            let vcpus = restore(&machine.vm, needs, &machine.devices, &saved);
            match vcpus.and_then(start) {
                Ok(vcpus) => Ok((vcpus, io)),
                Err(error) => {
                    // With it go the devices, and their locks on disks.
                    if io.stop_within(TEARDOWN) {
                        let _ = io.join();
                    }
                    Err(error)
                }
            }
        }
    }
}

/// Maps guest memory into the machine, with everything in it that the plan places or the snapshot
/// has, which comes back.
fn map_memory(
    vm: &mut Vm,
    blueprint: &Blueprint,
    origin: Origin,
) -> Result<(GuestRam, Option<Box<Snapshot>>), MachineError> {
    let ranges = blueprint.memory.ranges();
    let (ram, saved) = match origin {
        Origin::Boot { mut kernel, initrd } => {
            let ram = memory::map(&ranges, blueprint.memory.hugepages)?;
            let boot = blueprint.boot.iter().flat_map(|boot| &boot.placements);
            memory::fill(&ram, boot, &mut kernel, initrd.as_ref())?;
            memory::fill(&ram, &blueprint.tables, &mut kernel, None)?;
            (ram, None)
        }
        Origin::Snapshot(saved) => (memory::map_file(&ranges, saved.memory())?, Some(saved)),
    };
    vm.map_ram(&ram)?;
    Ok((ram, saved))
}

/// Puts what was saved into the machine: its vCPUs, which have no thread yet. Devices come first,
/// as they were saved first; they rest then.
fn restore(
    vm: &Vm,
    needs: &Needs,
    devices: &Devices,
    saved: &Snapshot,
) -> Result<Vec<Vcpu>, MachineError> {
    let mut parts = saved.parts()?;
    devices.restore(&mut parts.devices)?;
    parts.devices.finish().map_err(DeviceNotRestored::from)?;
    let restored = parts.vcpus.iter().map(|state| {
        let vcpu = vm.create_vcpu(state.id, needs)?;
        vcpu.restore(state)?;
        Ok(vcpu)
    });
    let vcpus = restored.collect::<Result<_, MachineError>>()?;
    vm.restore(&parts.vm)?;
    devices.tell_again();
    Ok(vcpus)
}

fn create_vm(kvm: &Kvm, needs: &Needs) -> Result<Vm, MachineError> {
    let vm = kvm.create_vm()?;
    vm.reserve_kvm_pages()?;
    vm.enable_split_irqchip(layout::IOAPIC_PINS.into())?;
    vm.prepare_assists(needs)?;
    Ok(vm)
}

fn create_vcpus(
    kvm: &Kvm,
    vm: &Vm,
    blueprint: &Blueprint,
    needs: &Needs,
) -> Result<Vec<Vcpu>, MachineError> {
    let host = kvm.supported_cpuid()?;
    let msrs = arch::msr::boot_msrs();
    (0..blueprint.cpus)
        .map(|id| {
            let vcpu = vm.create_vcpu(id, needs)?;
            let policy = CpuidPolicy {
                vcpu: id.into(),
                cpus: blueprint.cpus.into(),
                hide: needs.hide(),
                tsc_deadline: true,
            };
            vcpu.set_cpuid(&guest_leaves(&host, &policy))?;
            vcpu.set_msrs(&msrs)?;
            // The others wait for the boot CPU's start-up message, in KVM.
            if let Some(boot) = blueprint.boot.as_ref().filter(|_| id == 0) {
                vcpu.set_start(&boot.cpu)?;
            }
            Ok(vcpu)
        })
        .collect()
}

/// Lets KVM ring the doorbells. The guest runs already: a notification that comes before is an
/// exit that the transport answers, and each binding may cost KVM a grace period.
fn bind_doorbells(vm: &Vm, bells: &[BellAt]) {
    for BellAt {
        bell,
        address,
        queue,
    } in bells
    {
        if let Err(cause) = vm.bind_doorbell(bell, *address, *queue) {
            log::warn!("{cause}: this doorbell costs an exit each time");
        }
    }
}

struct Sources {
    signals: Signals,
    power_events: PowerEvents,
    requests: Reports<UserRequest>,
    faults: Reports<Fault>,
    pause: Pause,
    button: PowerButton,
    io_ended: Doorbell,
}

fn control(
    blueprint: &Blueprint,
    sources: Sources,
    console: Option<SlotHandle>,
    terminal: &Arc<Mutex<Terminal>>,
) -> Control {
    let terminal = Arc::clone(terminal);
    let resize = move || {
        let terminal = lock(&terminal);
        if let Some((console, size)) = console.as_ref().zip(terminal.window_size()) {
            let size = DeviceCommand::Resize {
                columns: size.columns,
                rows: size.rows,
            };
            // The loop is gone only when the machine is at its end.
            let _ = console.send(size);
        }
    };
    Control {
        signals: sources.signals,
        power_events: sources.power_events,
        requests: sources.requests,
        button: sources.button,
        io_ended: sources.io_ended,
        stop_timeout: blueprint.stop_timeout,
        on_resize: OnResize(Box::new(resize)),
        pause: sources.pause,
        faults: sources.faults,
        api: None,
    }
}

fn lock(terminal: &Mutex<Terminal>) -> MutexGuard<'_, Terminal> {
    terminal.lock().unwrap_or_else(PoisonError::into_inner)
}
