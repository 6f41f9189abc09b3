//! How a request changes what a machine will be: all of it or, where it is refused, nothing.

use api::error::{ApiError, Code};
use api::firecracker::{BootSource, CacheType, Words};
use api::request::Part;
use api::spec::{DiskSpec, MachineSpec};

use super::check;
use crate::control::description::Description;

impl Description {
    /// Takes a part over.
    ///
    /// # Errors
    /// When it cannot be had; nothing has changed then.
    pub(super) fn describe(&mut self, part: Part) -> Result<(), ApiError> {
        let mut next = self.clone();
        next.touched = true;
        let spec = &mut next.spec;
        match part {
            Part::Machine(machine) => {
                *spec = *machine;
                next.words = Words::default();
                check::all(spec)?;
            }
            Part::Size(patch) => {
                patch.apply(spec, &mut next.words)?;
                check::size(spec)?;
            }
            Part::BootSource(source) => {
                boot_from(spec, source);
                check::boot_source(spec)?;
            }
            Part::Disk(disk, cache) => {
                note_cache(&mut next.words, disk.id.as_deref(), cache);
                let place = put_disk(spec, *disk)?;
                check::disk(spec, place)?;
            }
            Part::Mmds(mmds) => {
                spec.mmds = Some(mmds);
                check::mmds(spec)?;
            }
            Part::WithoutDisk(id) => {
                take(&mut spec.disks, |one| one.id.as_ref() == Some(&id))?;
                next.words.unsafe_drives.remove(&id);
            }
            Part::Net(net) => {
                match spec.nets.iter().position(|one| one.id == net.id) {
                    Some(place) => spec.nets[place] = *net,
                    None => spec.nets.push(*net),
                }
                check::nets(spec)?;
            }
            Part::WithoutNet(id) => take(&mut spec.nets, |one| one.id.as_ref() == Some(&id))?,
            Part::Vsock(vsock) => {
                spec.vsock = Some(vsock);
                check::devices(spec)?;
            }
            Part::Entropy(entropy) => {
                entropy.apply(spec);
                check::devices(spec)?;
            }
            Part::Balloon(balloon) => {
                spec.balloon = Some(balloon);
                check::size(spec)?;
            }
            Part::Console(backend) => {
                spec.console.backend = backend;
                check::devices(spec)?;
            }
            Part::Nothing => {}
        }
        *self = next;
        Ok(())
    }
}

fn boot_from(spec: &mut MachineSpec, source: BootSource) {
    spec.kernel = Some(source.kernel());
    spec.initrd = source.initrd_path;
    // Without words of the user's, the monitor's choice.
    spec.default_cmdline = source.boot_args.is_none();
    spec.cmdline = source.boot_args.unwrap_or_default();
}

/// Whether a drive's flushes need not be carried out, which is told back as it was said.
fn note_cache(words: &mut Words, id: Option<&str>, cache: CacheType) {
    let Some(id) = id else { return };
    words.unsafe_drives.remove(id);
    if cache == CacheType::Unsafe {
        words.unsafe_drives.insert(id.to_owned());
    }
}

/// Takes away the one part that is meant.
fn take<T>(parts: &mut Vec<T>, meant: impl Fn(&T) -> bool) -> Result<(), ApiError> {
    let place = parts.iter().position(meant).ok_or_else(|| {
        ApiError::new(
            Code::UnknownDevice,
            "there is no device of that name",
            "GET /vm/config tells what there is",
        )
    })?;
    parts.remove(place);
    Ok(())
}

/// Puts a disk in the place of the one of the same name, or behind all others; the one with the
/// root is the first, as the guest names it then.
fn put_disk(spec: &mut MachineSpec, disk: DiskSpec) -> Result<usize, ApiError> {
    let disks = &mut spec.disks;
    let same = disks.iter().position(|one| one.id == disk.id);
    let root = disks.iter().position(|one| one.root);
    if disk.root && root.is_some_and(|root| Some(root) != same) {
        return Err(ApiError::new(
            Code::InvalidValue,
            "A root block device already exists!",
            "only one drive can have is_root_device",
        )
        .of_field("is_root_device"));
    }
    if let Some(same) = same {
        disks.remove(same);
    }
    let place = match same {
        _ if disk.root => 0,
        Some(same) => same,
        None => disks.len(),
    };
    disks.insert(place, disk);
    Ok(place)
}
