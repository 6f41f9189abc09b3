//! From a specification to a machine that ran: the one place where the parts of the monitor
//! meet the command line.

use std::path::Path;

use api::doctor::DoctorReport;
use api::server::{Limits, Server};
use api::socket::Listener;
use api::spec::MachineSpec;
use arch::boot::{Kernel, Payload};
use devices::net::Link;
use vmm::blueprint::Blueprint;
use vmm::config::Config;
use vmm::files::{self, Files, Image};
use vmm::host::doctor::{Facts, KvmFacts, judge};
use vmm::host::{self, HostCaps, KvmCaps};
use vmm::kvm::Kvm;
use vmm::kvm::assist::Needs;
use vmm::machine::{
    self, Description, Ended, Front, HostConsole, KernelBytes, Machine, Metadata, Origin,
    ResetCause, Setup,
};
use vmm::plan::{Inputs, depends_on_acpi, plan, plan_restored};
use vmm::snapshot::{Snapshot, Target};

use crate::exit::Exit;
use crate::failure::{self, Failure};
use crate::machines::registry::{Claim, Registry};
use crate::net::{self, Helpers, Links};
use crate::{embedded, logger, print};

const KVM: &str = "/dev/kvm";

/// Runs the machine that `spec` describes, called `name`, whose guest can read `metadata`, with its
/// API on a socket at `api`.
pub(crate) fn machine(
    spec: &MachineSpec,
    metadata: Metadata,
    name: Option<&str>,
    api: Option<&Path>,
) -> Result<Exit, Failure> {
    let opening = Opening::begin(spec, metadata.clone())?;
    // What is asked for is had before the guest, or there is none.
    let asked = name.is_some() || api.is_some();
    let place = asked.then(|| Place::find(name, api)).transpose()?;
    let (setup, _helpers) = opening.finish()?;
    let mut machine = machine::start(setup)?;
    // The guest runs meanwhile.
    let place = place.map_or_else(|| Place::find(None, None), Ok)?;
    let description = |id| Description::new(id, spec.clone()).with_metadata(metadata);
    let _claim = place.serve(&mut machine, description);
    Ok(exit_of(machine.run()?))
}

/// Where a machine is reached while it runs.
struct Place {
    claim: Option<Claim>,
    listener: Option<Listener>,
}

impl Place {
    /// That of a machine of this name, whose API is at `api` if that is said.
    ///
    /// # Errors
    /// When what was asked for cannot be had. What was not asked for is done without.
    fn find(name: Option<&str>, api: Option<&Path>) -> Result<Self, Failure> {
        let claim = match Registry::of_user().claim(name) {
            Err(failure) if name.is_some() => return Err(failure),
            Err(failure) => {
                log::info!(
                    "`coracle machine` does not know this machine: {}",
                    failure.message
                );
                None
            }
            Ok(claim) => Some(claim),
        };
        let path = api.map(Path::to_owned);
        let path = path.or_else(|| claim.as_ref().map(Claim::socket));
        match path.as_deref().map(Listener::bind).transpose() {
            Err(error) if name.is_some() || api.is_some() => Err(error.into()),
            Err(error) => {
                log::info!("this machine has no API: {error}");
                let (claim, listener) = (None, None);
                Ok(Self { claim, listener })
            }
            Ok(listener) => Ok(Self { claim, listener }),
        }
    }

    /// Lets others find the machine, whose `description` has its name, and have a say in it. What
    /// comes back is to live as long as it does.
    fn serve(
        self,
        machine: &mut Machine,
        description: impl FnOnce(Option<String>) -> Description,
    ) -> Option<Claim> {
        let Self { claim, listener } = self;
        let socket = listener.as_ref().map(|one| one.path().to_owned());
        if let Some(listener) = listener {
            let id = claim.as_ref().map(|claim| claim.name().to_owned());
            let server = Server::new(Some(listener), Limits::default());
            machine.serve(Front::new(server, description(id), logger::set_up));
        }
        if let Some((claim, socket)) = claim.as_ref().zip(socket)
            && let Err(error) = claim.publish(&socket)
        {
            log::warn!("`coracle machine` does not find this machine: {error}");
        }
        claim
    }
}

/// Makes a machine of what was saved, with what has to live as long as it does. It stands still.
/// `change` says how it is to differ: it gets the description that was saved.
pub(crate) fn restore(
    from: &Target,
    metadata: Metadata,
    change: impl FnOnce(&mut MachineSpec) -> Result<(), Failure>,
) -> Result<(Machine, MachineSpec, Helpers), Failure> {
    let snapshot = Snapshot::open(from)?;
    let mut spec = snapshot.spec().clone();
    change(&mut spec)?;
    let config = Config::try_from(&spec)?;
    net::check(&config)?;
    let disks = files::open_disks(&config)?;
    let links = Links::start(&config)?;
    let kvm = Kvm::open(Path::new(KVM))?;
    let needs = host::needs(&kvm);
    let host = HostCaps::gather(kvm.capabilities(), &needs, config.hugepages);
    let blueprint = plan_restored(&config, &host, snapshot.cmdline().to_owned())?;
    let system = config.kernel.is_none().then(|| embedded::guest().system);
    snapshot.fits(&blueprint, &spec, system)?;
    let (links, helpers) = links.open()?;
    let console = open_console(&blueprint)?;
    let machine = machine::start(Setup {
        kvm,
        needs,
        blueprint,
        origin: Origin::Snapshot(Box::new(snapshot)),
        disks,
        links,
        system,
        metadata,
        console,
    })?;
    Ok((machine, spec, helpers))
}

fn open_console(blueprint: &Blueprint) -> Result<HostConsole, Failure> {
    let console = HostConsole::open(&blueprint.console)?;
    if let Some(path) = console.pty_path() {
        print::err(&format!("coracle: console on {}\n", path.display()));
    }
    Ok(console)
}

/// A machine on its way from a specification to open descriptors. Bad input is told first, before
/// a host that can't run it anyway.
pub(crate) struct Opening {
    config: Config,
    parts: Parts,
    links: Links,
    metadata: Metadata,
}

impl Opening {
    /// Judges the specification and opens the files that it names.
    pub(crate) fn begin(spec: &MachineSpec, metadata: Metadata) -> Result<Self, Failure> {
        let config = Config::try_from(spec)?;
        net::check(&config)?;
        let parts = Parts::open(&config)?;
        let links = Links::start(&config)?;
        Ok(Self {
            config,
            parts,
            links,
            metadata,
        })
    }

    /// Opens what is left, and what has to live as long as the machine.
    pub(crate) fn finish(self) -> Result<(Setup, Helpers), Failure> {
        let kvm = Kvm::open(Path::new(KVM))?;
        let needs = host::needs(&kvm);
        let host = HostCaps::gather(kvm.capabilities(), &needs, self.config.hugepages);
        let blueprint = self.parts.plan(&self.config, &host)?;
        let (links, helpers) = self.links.open()?;
        let setup = self
            .parts
            .setup(kvm, needs, blueprint, (links, self.metadata))?;
        Ok((setup, helpers))
    }
}

/// Prints the plan. A host without KVM shows what a stock one would start.
pub(crate) fn show(spec: &MachineSpec) -> Result<Exit, Failure> {
    let config = Config::try_from(spec)?;
    net::check(&config)?;
    let parts = Parts::open(&config)?;
    let (caps, needs) = match Kvm::open(Path::new(KVM)) {
        Ok(kvm) => (kvm.capabilities(), host::needs(&kvm)),
        Err(error) => {
            log::warn!("{error}; the plan is for a stock KVM");
            (KvmCaps::stock(), Needs::none())
        }
    };
    let host = HostCaps::gather(caps, &needs, config.hugepages);
    let blueprint = parts.plan(&config, &host)?;
    print::out(&print::json(&blueprint.describe())?)?;
    Ok(Exit::Done)
}

/// The open files of a machine and what its kernel is.
struct Parts {
    files: Files,
    kernel: Kernel,
    kernel_reads_acpi: bool,
}

impl Parts {
    fn open(config: &Config) -> Result<Self, Failure> {
        let files = Files::open(config, embedded::guest())?;
        let name = config
            .kernel
            .as_ref()
            .map(|kernel| kernel.path.display().to_string());
        let name = name.as_deref().unwrap_or("built-in");
        let kernel = files::open_kernel(config, &files.kernel)
            .map_err(|error| failure::bad_kernel(name, &error))?;
        let kernel_reads_acpi = depends_on_acpi(config)
            && files::reads_acpi(&kernel, &files.kernel).map_err(|error| {
                let message = format!("kernel {name}: can't be read: {error}");
                Failure::input(message, "check the disk that it is on")
            })?;
        Ok(Self {
            files,
            kernel,
            kernel_reads_acpi,
        })
    }

    fn plan(&self, config: &Config, host: &HostCaps) -> Result<Blueprint, Failure> {
        Ok(plan(&Inputs {
            config,
            host,
            kernel: &self.kernel,
            kernel_reads_acpi: self.kernel_reads_acpi,
            initrd_bytes: self.files.initrd.as_ref().map(|open| open.len),
        })?)
    }

    fn setup(
        self,
        kvm: Kvm,
        needs: Needs,
        blueprint: Blueprint,
        (links, metadata): (Vec<Box<dyn Link>>, Metadata),
    ) -> Result<Setup, Failure> {
        let kernel = match (self.kernel.into_payload(), self.files.kernel) {
            (Payload::Unpacked(bytes), _) => KernelBytes::Unpacked(bytes),
            (Payload::File, Image::File(open)) => KernelBytes::File(open.file),
            (Payload::File, Image::Memory(bytes)) => KernelBytes::Embedded(bytes),
        };
        let initrd = self.files.initrd.map(|open| open.file);
        Ok(Setup {
            kvm,
            needs,
            console: open_console(&blueprint)?,
            blueprint,
            origin: Origin::Boot { kernel, initrd },
            disks: self.files.disks,
            links,
            metadata,
            system: self.files.system,
        })
    }
}

pub(crate) fn exit_of(ended: Ended) -> Exit {
    match ended {
        Ended::PowerOff => Exit::Done,
        Ended::Reset(ResetCause::Asked | ResetCause::Watchdog) => Exit::Reset,
        Ended::Reset(ResetCause::TripleFault) => Exit::TripleFault,
        Ended::Reset(ResetCause::Panic) => Exit::GuestPanic,
        Ended::Killed => Exit::Killed,
    }
}

/// Examines this host for `coracle doctor`.
pub(crate) fn examine() -> DoctorReport {
    judge(&Facts::gather(
        Path::new("/"),
        KvmFacts::gather(Path::new(KVM)),
    ))
}
