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
    ] {
        let bench = Bench::new(transport, (subjects::RNG.make)());
        let folder = Path::new(&folder).join(target);
        fs::create_dir_all(&folder)?;
        for row in rows::all() {
            let is_block = row.subject.name.starts_with("block");
            let wanted = is_block == (target == "virtio_blk");
            let elsewhere = row.only.is_some_and(|only| only != transport);
            let Some(script) = script::encode(&row, &bench).filter(|_| wanted && !elsewhere) else {
                continue;
            };
            let kind = match row.subject.name {
                "block-ro" => Some(2),
                _ => is_block.then_some(0),
            };
            let seed: Vec<u8> = kind.into_iter().chain(script).collect();
            fs::write(folder.join(format!("row-{}", row.id)), seed)?;
        }
    }
    Ok(())
}
