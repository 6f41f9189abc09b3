//! What a machine is, in the words of those who described it. It answers every question of what
//! was asked for, in every state of the machine; what is changed while the guest runs is noted.

use std::collections::BTreeMap;

use api::error::{ApiError, Code};
use api::firecracker::{Balloon, InstanceInfo, MachineConfig, NAMELESS, Version, VmConfig, Words};
use api::http::Response;
use api::machine::{MachineState, MachineView};
use api::request::{MetadataChange, Topic};
use api::spec::{MachineSpec, SizeSpec};
use mmds::{Metadata, StoreError};

/// Coracle's own version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A machine as it was described.
#[derive(Clone, Debug)]
pub struct Description {
    id: String,
    pub(super) spec: MachineSpec,
    pub(super) words: Words,
    /// What the guest can read; copies share it.
    metadata: Metadata,
    /// Whether a client has described some of it.
    pub(super) touched: bool,
}

impl Description {
    /// The machine of `spec`, which is called `id` if it has a name.
    #[must_use]
    pub fn new(id: Option<String>, spec: MachineSpec) -> Self {
        Self {
            id: id.unwrap_or_else(|| NAMELESS.to_owned()),
            spec,
            words: Words::default(),
            metadata: Metadata::default(),
            touched: false,
        }
    }

    /// Whether no client has described any of it.
    pub(super) fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// The same, with this metadata.
    #[must_use]
    pub fn with_metadata(self, metadata: Metadata) -> Self {
        Self { metadata, ..self }
    }

    /// What the machine is called.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The specification that has come of it.
    #[must_use]
    pub fn spec(&self) -> &MachineSpec {
        &self.spec
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Changes the metadata, which the guest sees at once.
    ///
    /// # Errors
    /// When it cannot be so; it is as it was then.
    pub(super) fn change_metadata(&self, change: MetadataChange) -> Result<Response, ApiError> {
        let done = match change {
            MetadataChange::Put(document) => self.metadata.put(document),
            MetadataChange::Merge(patch) => self.metadata.patch(&patch),
        };
        done.map(|()| Response::done()).map_err(|error| {
            let (code, hint) = match error {
                StoreError::TooLarge { .. } => (Code::TooLarge, "keep less in it"),
                StoreError::Nothing => (Code::WrongState, "PUT metadata first"),
            };
            ApiError::new(code, error.to_string(), hint)
        })
    }

    /// Tells what is asked of a machine in `state`.
    pub(super) fn tell(&self, topic: Topic, state: MachineState) -> Result<Response, ApiError> {
        let (spec, words) = (&self.spec, &self.words);
        Ok(match topic {
            Topic::Instance => Response::json(200, &InstanceInfo::new(&self.id, state)),
            Topic::Version => Response::json(200, &Version::SPOKEN),
            Topic::MachineConfig => Response::json(200, &MachineConfig::of(spec, words)),
            Topic::VmConfig => Response::json(200, &VmConfig::of(spec, words)),
            Topic::Balloon => {
                let balloon = spec.balloon.as_ref().ok_or_else(no_balloon)?;
                Response::json(200, &Balloon::of(balloon))
            }
            Topic::Metadata => match self.metadata.get() {
                Some(document) => Response::json(200, &*document),
                None => Response::json(200, &BTreeMap::<&str, ()>::new()),
            },
        })
    }

    /// The machine, which is not started: nothing is planned yet.
    pub(super) fn view(&self) -> MachineView {
        let spec = &self.spec;
        let kernel = spec.kernel.as_ref();
        let memory = spec.memory.as_ref().map(SizeSpec::bytes);
        MachineView {
            state: MachineState::NotStarted,
            pid: std::process::id(),
            version: VERSION,
            kernel: kernel.map_or("built-in".into(), |one| one.path.display().to_string()),
            cmdline: spec.cmdline.clone(),
            vcpus: u32::try_from(spec.cpus).unwrap_or(u32::MAX),
            cpu_quota: None,
            memory_bytes: memory.and_then(Result::ok).unwrap_or_default(),
            devices: Vec::new(),
        }
    }
}

fn no_balloon() -> ApiError {
    ApiError::new(
        Code::UnknownDevice,
        "the machine has no virtio-balloon",
        "GET /vm/config tells what it has",
    )
}
