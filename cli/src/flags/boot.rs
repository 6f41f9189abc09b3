//! `coracle boot`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use api::spec::{
    ConsoleBackend, KernelFormat, KernelProtocol, KernelSpec, MachineSpec, RateSpec, SizeSpec,
    TextError,
};
use clap::Args;
use serde::de::DeserializeOwned;
use vmm::machine::Metadata;

use crate::exit::{self, Exit};
use crate::failure::Failure;
use crate::flags::{balloon, console_port, disk, mmds, net, number, vsock};
use crate::{input, launch, logger};

const KEYS: &str = "\
While the console is a terminal, Ctrl-] is the monitor's key: Ctrl-] ? lists what can follow it.
SIGTERM presses the guest's power button; a guest that hasn't stopped by the deadline is killed.

Examples:
  coracle boot                                      the built-in guest, a shell on the terminal
  coracle boot --kernel vmlinux --disk root.img     your kernel, with its root on a disk
  coracle boot --kernel bzImage --initrd initrd.gz  a distribution's kernel as it is packaged
  coracle boot -p 8080:80                           a network without root; port 8080 leads in
  coracle boot --print-plan                         the whole machine as JSON, nothing started
";

/// Start a microVM with its console on this terminal
#[derive(Debug, Default, Args)]
#[command(after_help = format!("{KEYS}\n{}", exit::TABLE), args_override_self = true)]
pub(crate) struct Flags {
    /// Kernel, an ELF vmlinux or a bzImage [default: the built-in guest]
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    kernel: Option<PathBuf>,

    /// What the kernel must be: auto, elf or bzimage
    #[arg(
        long,
        value_name = "FORMAT",
        requires = "kernel",
        help_heading = "Guest"
    )]
    kernel_format: Option<String>,

    /// How the kernel is entered: auto, linux64 or pvh
    #[arg(long, value_name = "HOW", requires = "kernel", help_heading = "Guest")]
    kernel_protocol: Option<String>,

    /// Initial RAM disk
    #[arg(long, value_name = "FILE", help_heading = "Guest")]
    initrd: Option<PathBuf>,

    /// Text for the kernel's command line, whose last word wins; repeatable
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        help_heading = "Guest"
    )]
    cmdline: Vec<String>,

    /// Leave out what Coracle puts before it (--print-plan shows that)
    #[arg(long, help_heading = "Guest")]
    no_default_cmdline: bool,

    /// Virtual CPUs, 1 to 64 [default: 1]
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        help_heading = "Machine"
    )]
    cpus: Option<String>,

    /// Memory, such as 2G [default: 128M for the built-in guest, else 512M]
    #[arg(
        long,
        value_name = "SIZE",
        allow_negative_numbers = true,
        help_heading = "Machine"
    )]
    memory: Option<String>,

    /// Back the memory with 2 MiB pages that the host has reserved
    #[arg(long, help_heading = "Machine")]
    hugepages: bool,

    /// Image or block device, PATH[,ro][,id=SERIAL][,OPTION=VALUE]; repeatable
    #[arg(long, value_name = "DISK", help_heading = "Machine")]
    disk: Vec<OsString>,

    /// Interface, user, tap[:NAME] or passt:SOCKET[,OPTION=VALUE]; repeatable
    #[arg(long, value_name = "NET", help_heading = "Machine")]
    net: Vec<String>,

    /// Port of the host that leads into the guest, [IP:]PORT:PORT[/udp]
    #[arg(long, short = 'p', value_name = "PORT", help_heading = "Machine")]
    publish: Vec<String>,

    /// Metadata that the guest reads at 169.254.169.254, FILE[,version=v1]
    #[arg(long, value_name = "MMDS", help_heading = "Machine")]
    mmds: Option<String>,

    /// Streams between programs of guest and host, cid=N,path=SOCKET
    #[arg(long, value_name = "VSOCK", help_heading = "Machine")]
    vsock: Option<OsString>,

    /// Leave out the source of random numbers (virtio-rng)
    #[arg(long, help_heading = "Machine")]
    no_rng: bool,

    /// Random bytes that the guest gets in a second at most, such as 64K
    #[arg(long, value_name = "SIZE", help_heading = "Machine")]
    rng_limit: Option<String>,

    /// Balloon: any of size=SIZE,deflate-on-oom,stats=SECONDS,reporting,hinting
    #[arg(
        long,
        value_name = "OPT",
        num_args = 0..=1,
        default_missing_value = "",
        help_heading = "Machine"
    )]
    balloon: Option<String>,

    /// Watchdog (ib700) that bites a guest that hangs: reset, poweroff or report
    #[arg(long, value_name = "ACTION", help_heading = "Machine")]
    watchdog: Option<String>,

    /// What a guest's panic leads to: end or report [default: end]
    #[arg(long, value_name = "ACTION", help_heading = "Machine")]
    panic: Option<String>,

    /// How the guest reaches virtio devices: mmio or pci [default: mmio]
    #[arg(long, value_name = "HOW", help_heading = "Machine")]
    transport: Option<String>,

    /// Tables that describe the machine: auto, acpi, mptable or both
    #[arg(long, value_name = "TABLES", help_heading = "Machine")]
    platform: Option<String>,

    /// Its other end: stdio, pty, file:PATH or none [default: stdio]
    #[arg(long, value_name = "WHERE", help_heading = "Console")]
    console: Option<OsString>,

    /// Device that carries the console: auto, serial or virtio
    #[arg(long, value_name = "DEVICE", help_heading = "Console")]
    console_device: Option<String>,

    /// Port, name=NAME,socket=PATH|file=PATH|pty[,console]; ,, is a comma
    #[arg(long, value_name = "PORT", help_heading = "Console")]
    console_port: Vec<OsString>,

    /// Machine specification as JSON; other flags change and add to it
    #[arg(long, value_name = "FILE", help_heading = "Monitor")]
    spec: Option<PathBuf>,

    /// Print the whole machine as JSON and start nothing
    #[arg(long, help_heading = "Monitor")]
    print_plan: bool,

    /// Seconds that a guest has to stop after SIGTERM [default: 10]
    #[arg(
        long,
        value_name = "SECONDS",
        allow_negative_numbers = true,
        help_heading = "Monitor"
    )]
    stop_timeout: Option<String>,

    /// Name of the machine for `coracle machine` [default: vm-PID]
    #[arg(long, value_name = "NAME", help_heading = "Monitor")]
    name: Option<String>,

    /// Serve the API on a unix socket at this path [default: by its name]
    #[arg(long, value_name = "PATH", help_heading = "Monitor")]
    api_sock: Option<PathBuf>,

    /// off, error, warn, info, debug or trace [default: $CORACLE_LOG, warn]
    #[arg(long, value_name = "LEVEL", help_heading = "Monitor")]
    log_level: Option<String>,
}

impl Flags {
    /// Starts the machine, or prints its plan.
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        logger::start(self.log_level.as_deref())?;
        let spec = self.spec()?;
        if self.print_plan {
            return launch::show(&spec);
        }
        let metadata = match &self.mmds {
            Some(value) => mmds::read(&mmds::parse(value)?.path)?,
            None => Metadata::default(),
        };
        launch::machine(
            &spec,
            metadata,
            self.name.as_deref(),
            self.api_sock.as_deref(),
        )
    }

    /// The machine that the flags ask for.
    ///
    /// # Errors
    /// When a flag's text has none of the accepted forms, or the file of `--spec` has none.
    pub(crate) fn spec(&self) -> Result<MachineSpec, Failure> {
        let mut spec = self
            .spec
            .as_deref()
            .map(read_spec)
            .transpose()?
            .unwrap_or_default();
        self.guest(&mut spec)?;
        self.machine(&mut spec)?;
        self.console(&mut spec)?;
        Ok(spec)
    }

    fn guest(&self, spec: &mut MachineSpec) -> Result<(), Failure> {
        if let Some(path) = &self.kernel {
            let format = self
                .kernel_format
                .as_deref()
                .map_or(Ok(KernelFormat::Auto), str::parse);
            let protocol = self
                .kernel_protocol
                .as_deref()
                .map_or(Ok(KernelProtocol::Auto), str::parse);
            spec.kernel = Some(KernelSpec {
                path: path.clone(),
                format: format.map_err(word)?,
                protocol: protocol.map_err(word)?,
            });
        }
        if self.initrd.is_some() {
            spec.initrd.clone_from(&self.initrd);
        }
        for text in &self.cmdline {
            if !spec.cmdline.is_empty() {
                spec.cmdline.push(' ');
            }
            spec.cmdline.push_str(text);
        }
        spec.default_cmdline &= !self.no_default_cmdline;
        Ok(())
    }

    fn machine(&self, spec: &mut MachineSpec) -> Result<(), Failure> {
        if let Some(text) = &self.cpus {
            spec.cpus = number("cpus", text, "give the number of virtual CPUs, 1 to 64")?;
        }
        if let Some(text) = &self.memory {
            spec.memory = Some(SizeSpec::Text(text.clone()));
        }
        spec.hugepages |= self.hugepages;
        for value in &self.disk {
            spec.disks.push(disk::parse(value)?);
        }
        for value in &self.net {
            spec.nets.push(net::parse(value)?);
        }
        net::publish(&mut spec.nets, &self.publish);
        if let Some(value) = &self.mmds {
            let mut mmds = mmds::parse(value)?.spec;
            mmds.network_interfaces = (0..spec.nets.len()).map(|at| spec.net_name(at)).collect();
            spec.mmds = Some(mmds);
        }
        if let Some(value) = &self.vsock {
            spec.vsock = Some(vsock::parse(value)?);
        }
        spec.rng &= !self.no_rng;
        if let Some(text) = &self.rng_limit {
            spec.rng_bandwidth = Some(RateSpec::of_text(text));
        }
        if let Some(value) = &self.balloon {
            spec.balloon = Some(balloon::parse(value)?);
        }
        if let Some(text) = &self.watchdog {
            spec.watchdog = Some(text.parse().map_err(word)?);
        }
        if let Some(text) = &self.panic {
            spec.panic = text.parse().map_err(word)?;
        }
        if let Some(text) = &self.transport {
            spec.transport = text.parse().map_err(word)?;
        }
        if let Some(text) = &self.platform {
            spec.platform = text.parse().map_err(word)?;
        }
        if let Some(text) = &self.stop_timeout {
            spec.stop_timeout_ms = seconds(text)?;
        }
        Ok(())
    }

    fn console(&self, spec: &mut MachineSpec) -> Result<(), Failure> {
        if let Some(value) = &self.console {
            spec.console.backend = console_backend(value)?;
        }
        if let Some(text) = &self.console_device {
            spec.console.device = text.parse().map_err(word)?;
        }
        for value in &self.console_port {
            spec.console_ports.push(console_port::parse(value)?);
        }
        Ok(())
    }
}

/// The console's other end; a path is taken as it is, whatever its bytes.
fn console_backend(value: &OsStr) -> Result<ConsoleBackend, Failure> {
    match value.as_bytes().strip_prefix(b"file:") {
        Some(path) if !path.is_empty() => Ok(ConsoleBackend::File(OsStr::from_bytes(path).into())),
        _ => value.to_string_lossy().parse().map_err(word),
    }
}

/// A word that isn't one of a few.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err takes"
)]
pub(super) fn word(error: TextError) -> Failure {
    let first = error.accepted.split(',').next().unwrap_or_default();
    Failure::input(
        error.to_string(),
        format!("choose one of them, such as {first}"),
    )
}

/// Seconds, with a fraction if the user likes, as milliseconds.
pub(super) fn seconds(text: &str) -> Result<u64, Failure> {
    let refuse = || {
        Failure::input(
            format!("stop timeout {text:?} is not a number of seconds"),
            "give seconds, such as 10 or 0.5",
        )
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(refuse());
    }
    let whole: u64 = whole.parse().map_err(|_| refuse())?;
    let fraction: u64 = format!("{fraction:0<3.3}").parse().map_err(|_| refuse())?;
    whole
        .checked_mul(1000)
        .and_then(|ms| ms.checked_add(fraction))
        .ok_or_else(refuse)
}

fn read_spec(path: &Path) -> Result<MachineSpec, Failure> {
    let hint = "correct the file; `{}` is the smallest specification";
    read_json("spec", path, hint)
}

/// What is in a file of JSON that `what` names.
///
/// # Errors
/// When it can't be read, is too long, or holds something else.
pub(super) fn read_json<T: DeserializeOwned>(
    what: &'static str,
    path: &Path,
    hint: &str,
) -> Result<T, Failure> {
    let text = input::read(what, path, "give a short file of JSON")?;
    serde_json::from_str(&text).map_err(|error| {
        let message = format!("{what} {}: {error}", path.display());
        Failure::input(message, hint)
    })
}
