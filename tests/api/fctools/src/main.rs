//! Drives `coracle` through fctools, a published client of Firecracker's API, as it is: the client
//! believes that it has Firecracker before it. Arguments: a link named `firecracker` to the
//! program, and a guest that halts.
#![forbid(unsafe_code)]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fctools::process_spawner::DirectProcessSpawner;
use fctools::runtime::tokio::TokioRuntime;
use fctools::vm::api::VmApi;
use fctools::vm::configuration::{InitMethod, VmConfiguration, VmConfigurationData};
use fctools::vm::models::{
    BalloonDevice, BootSource, Drive, DriveIoEngine, EntropyDevice, HugePages, LoggerSystem,
    MachineConfiguration, MetricsSystem, RateLimiter, TokenBucket, UpdateBalloonDevice,
    UpdateDrive, VsockDevice,
};
use fctools::vm::shutdown::{VmShutdownAction, VmShutdownMethod};
use fctools::vm::{Vm, VmState};
use fctools::vmm::arguments::{VmmApiSocket, VmmArguments, VmmLogLevel};
use fctools::vmm::executor::unrestricted::UnrestrictedVmmExecutor;
use fctools::vmm::id::VmmId;
use fctools::vmm::installation::VmmInstallation;
use fctools::vmm::ownership::VmmOwnershipModel;
use fctools::vmm::resource::system::ResourceSystem;
use fctools::vmm::resource::{CreatedResourceType, MovedResourceType, Resource, ResourceType};

type Machine = Vm<UnrestrictedVmmExecutor, DirectProcessSpawner, TokioRuntime>;
type Resources = ResourceSystem<DirectProcessSpawner, TokioRuntime>;
type Outcome<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;
type Case = for<'a> fn(&'a mut Machine, &'a Rig) -> Outcome<'a>;

const PATIENCE: Duration = Duration::from_secs(20);

/// Every case has a machine of its own.
const CASES: &[(&str, InitMethod, Case)] = &[
    ("describes itself", InitMethod::ViaApiCalls, |vm, rig| {
        Box::pin(describe(vm, rig))
    }),
    ("changes a drive", InitMethod::ViaApiCalls, |vm, rig| {
        Box::pin(change_drive(vm, rig))
    }),
    ("knows its balloon", InitMethod::ViaApiCalls, |vm, rig| {
        Box::pin(balloon(vm, rig))
    }),
    ("pauses and resumes", InitMethod::ViaApiCalls, |vm, rig| {
        Box::pin(pause(vm, rig))
    }),
    ("writes metrics", InitMethod::ViaApiCalls, |vm, rig| {
        Box::pin(metrics(vm, rig))
    }),
    ("keeps metadata", InitMethod::ViaApiCalls, |vm, rig| {
        Box::pin(metadata(vm, rig))
    }),
    (
        "is killed when paused",
        InitMethod::ViaApiCalls,
        |vm, rig| Box::pin(kill(vm, rig)),
    ),
];

/// What a case is played with.
struct Rig {
    folder: tempfile::TempDir,
}

impl Rig {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(program), Some(kernel)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: fctools-client FIRECRACKER KERNEL");
        return ExitCode::from(2);
    };
    let (mut passed, mut failed) = (0, 0);
    for (name, method, case) in CASES {
        let run = tokio::time::timeout(PATIENCE, run(&program, &kernel, method.clone(), *case));
        let outcome = run.await.context("it takes too long").flatten();
        match outcome {
            Ok(()) => {
                println!("ok: a machine of fctools {name}");
                passed += 1;
            }
            Err(error) => {
                println!("FAILED: a machine of fctools {name}: {error:#}");
                failed += 1;
            }
        }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

async fn run(program: &Path, kernel: &Path, method: InitMethod, case: Case) -> Result<()> {
    let rig = Rig {
        folder: tempfile::tempdir()?,
    };
    let mut vm = prepare(program, kernel, &rig, method).await?;
    let outcome = match vm.start(PATIENCE).await.context("the start") {
        Ok(()) => case(&mut vm, &rig).await,
        error => error,
    };
    // The client does not end a machine that it forgets.
    if matches!(vm.get_state(), VmState::Running | VmState::Paused) {
        shut_down(&mut vm, VmShutdownMethod::Kill).await?;
    }
    vm.cleanup().await.context("cleaning up")?;
    outcome
}

async fn prepare(program: &Path, kernel: &Path, rig: &Rig, method: InitMethod) -> Result<Machine> {
    let installation = VmmInstallation::new(program, program, program);
    let mut resources = Resources::new(
        DirectProcessSpawner,
        TokioRuntime,
        VmmOwnershipModel::Shared,
    );
    let arguments = VmmArguments::new(VmmApiSocket::Enabled(rig.path("api.sock")))
        .log_level(VmmLogLevel::Info)
        .show_log_level();
    let executor = UnrestrictedVmmExecutor::new(arguments).id(VmmId::new("fctools-machine")?);
    let data = data(kernel, rig, &mut resources)?;
    let configuration = VmConfiguration::New {
        init_method: method,
        data,
    };
    let vm = Machine::prepare(executor, resources, installation, configuration).await;
    vm.context("preparing")
}

fn limiter() -> RateLimiter {
    let bucket = |size| TokenBucket {
        size,
        one_time_burst: Some(10),
        refill_time: 100,
    };
    RateLimiter {
        bandwidth: bucket(1 << 30),
        ops: bucket(100_000),
    }
}

fn data(kernel: &Path, rig: &Rig, resources: &mut Resources) -> Result<VmConfigurationData> {
    let moved = ResourceType::Moved(MovedResourceType::Copied);
    let created = ResourceType::Created(CreatedResourceType::File);
    std::fs::write(rig.path("disk"), vec![0; 1 << 20])?;
    let drive = |resource: Resource| Drive {
        drive_id: "data".to_owned(),
        is_root_device: false,
        cache_type: None,
        partuuid: None,
        is_read_only: Some(false),
        block: Some(resource),
        rate_limiter: Some(limiter()),
        io_engine: Some(DriveIoEngine::Sync),
        socket: None,
    };
    Ok(VmConfigurationData {
        boot_source: BootSource {
            kernel_image: resources.create_resource(kernel, moved)?,
            boot_args: Some("console=ttyS0 reboot=k panic=1".to_owned()),
            initrd: None,
        },
        drives: vec![drive(resources.create_resource(rig.path("disk"), moved)?)],
        machine_configuration: MachineConfiguration {
            vcpu_count: 1,
            mem_size_mib: 64,
            smt: Some(false),
            track_dirty_pages: Some(false),
            huge_pages: Some(HugePages::None),
        },
        cpu_template: None,
        network_interfaces: Vec::new(),
        balloon_device: Some(BalloonDevice {
            amount_mib: 0,
            deflate_on_oom: true,
            stats_polling_interval_s: Some(1),
        }),
        vsock_device: Some(VsockDevice {
            guest_cid: 3,
            uds: resources.create_resource(rig.path("v.sock"), ResourceType::Produced)?,
        }),
        logger_system: Some(LoggerSystem {
            logs: Some(resources.create_resource(rig.path("log"), created)?),
            level: Some(VmmLogLevel::Info),
            ..LoggerSystem::default()
        }),
        metrics_system: Some(MetricsSystem {
            metrics: resources.create_resource(rig.path("metrics"), created)?,
        }),
        mmds_configuration: None,
        entropy_device: Some(EntropyDevice {
            rate_limiter: Some(limiter()),
        }),
    })
}

async fn shut_down(vm: &mut Machine, method: VmShutdownMethod) -> Result<()> {
    let action = VmShutdownAction {
        method,
        timeout: Some(PATIENCE),
        graceful: false,
    };
    let outcome = vm.shutdown([action]).await.context("shutting down")?;
    ensure!(outcome.errors.is_empty(), "{:?}", outcome.errors);
    Ok(())
}

async fn describe(vm: &mut Machine, _rig: &Rig) -> Result<()> {
    let info = vm.get_info().await?;
    ensure!(info.id == "fctools-machine" && !info.is_paused, "{info:?}");
    let version = vm.get_firecracker_version().await?;
    ensure!(version == info.vmm_version, "{version}");
    let machine = vm.get_machine_configuration().await?;
    ensure!(
        (machine.vcpu_count, machine.mem_size_mib) == (1, 64),
        "{machine:?}"
    );
    ensure!(vm.get_state() == VmState::Running, "{}", vm.get_state());
    Ok(())
}

async fn change_drive(vm: &mut Machine, rig: &Rig) -> Result<()> {
    let update = UpdateDrive {
        drive_id: "data".to_owned(),
        block: None,
        rate_limiter: Some(limiter()),
    };
    vm.update_drive(update.clone()).await?;
    std::fs::write(rig.path("other"), vec![0; 2 << 20])?;
    let moved = ResourceType::Moved(MovedResourceType::Copied);
    let other = vm
        .get_resource_system_mut()
        .create_resource(rig.path("other"), moved)?;
    other.start_initialization_with_same_path()?;
    vm.get_resource_system_mut().synchronize().await?;
    vm.update_drive(UpdateDrive {
        block: Some(other),
        ..update.clone()
    })
    .await?;
    let nobody = UpdateDrive {
        drive_id: "nobody".to_owned(),
        ..update
    };
    ensure!(
        vm.update_drive(nobody).await.is_err(),
        "a drive that is not there"
    );
    Ok(())
}

async fn balloon(vm: &mut Machine, _rig: &Rig) -> Result<()> {
    let balloon = vm.get_balloon_device().await?;
    ensure!(
        balloon.deflate_on_oom && balloon.amount_mib == 0,
        "{balloon:?}"
    );
    // The guest has no driver for it, which Firecracker refuses too.
    let update = UpdateBalloonDevice { amount_mib: 8 };
    let refused = vm.update_balloon_device(update).await;
    ensure!(refused.is_err(), "a balloon without a driver");
    let balloon = vm.get_balloon_device().await?;
    ensure!(balloon.amount_mib == 0, "{balloon:?}");
    let statistics = vm.get_balloon_statistics().await?;
    ensure!(statistics.actual_mib == 0, "{statistics:?}");
    Ok(())
}

async fn pause(vm: &mut Machine, _rig: &Rig) -> Result<()> {
    for _ in 0..10 {
        vm.pause().await?;
        ensure!(vm.get_info().await?.is_paused, "it says that it runs");
        vm.resume().await?;
        ensure!(!vm.get_info().await?.is_paused, "it says that it is paused");
    }
    Ok(())
}

async fn metrics(vm: &mut Machine, rig: &Rig) -> Result<()> {
    vm.flush_metrics().await?;
    let text = std::fs::read_to_string(rig.path("metrics"))?;
    let lines = text.lines().map(serde_json::from_str::<serde_json::Value>);
    let lines = lines
        .collect::<Result<Vec<_>, _>>()
        .context("a line that is no JSON")?;
    ensure!(!lines.is_empty(), "no line of metrics");
    Ok(())
}

async fn metadata(vm: &mut Machine, _rig: &Rig) -> Result<()> {
    let value = serde_json::json!({"latest": {"meta-data": {"ami-id": "x"}}});
    vm.create_mmds_untyped(&value).await?;
    ensure!(vm.get_mmds_untyped().await? == value, "other metadata");
    vm.update_mmds_untyped(&serde_json::json!({"latest": {"user": "y"}}))
        .await?;
    let merged = serde_json::json!({"latest": {"meta-data": {"ami-id": "x"}, "user": "y"}});
    ensure!(vm.get_mmds_untyped().await? == merged, "not merged");
    Ok(())
}

async fn kill(vm: &mut Machine, _rig: &Rig) -> Result<()> {
    shut_down(vm, VmShutdownMethod::PauseThenKill).await
}
