//! Writes the rows of the table as seeds for the fuzz targets, into the folder that is named.

use hostile::bench::Bench;
use hostile::rows::{self, subjects};
use hostile::{Transport, script};
use std::path::Path;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1);
    let folder = folder.ok_or_else(|| io::Error::other("which folder?"))?;
    for (target, transport) in [
        ("transport_mmio", Transport::Mmio),
        ("transport_pci", Transport::Pci),
        ("virtio_blk", Transport::Mmio),
        ("virtio_console", Transport::Mmio),
        ("virtio_balloon", Transport::Mmio),
        ("virtio_rng", Transport::Mmio),
        ("virtio_net", Transport::Mmio),
    ] {
        let bench = Bench::new(transport, (subjects::RNG.make)());
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        for row in rows::all() {
            let (own, kind) = match row.subject.name {
                "block-ro" => (Some("virtio_blk"), Some(2)),
                "console" => (Some("virtio_console"), Some(1)),
                "ports" => (Some("virtio_console"), Some(0)),
                "net" => (Some("virtio_net"), Some(0)),
                "balloon" => (Some("virtio_balloon"), Some(0)),
                // Of both: its own rows, and those of rings and registers.
                "rng" if row.id.starts_with("rng") => (Some("virtio_rng"), Some(1)),
                "block" | "block-written" => (Some("virtio_blk"), Some(0)),
                // The same rows again, and those that need their host.
                name if name.starts_with("block-") => continue,
                _ => (None, None),
            };
            let wanted = own.map_or(target.starts_with("transport"), |own| own == target);
            let elsewhere = row.only.is_some_and(|only| only != transport);
            let Some(script) = script::encode(&row, &bench).filter(|_| wanted && !elsewhere) else {
                continue;
            };
            let seed: Vec<u8> = kind.into_iter().chain(script).collect();
            fs::write(folder.join(format!("row-{}", row.id)), seed)?;
        }
    }
    Ok(())
}
