//! Writes test guests to files: `cargo run -p harness --example guest FOLDER` leaves one image for
//! each guest of the harness there, to be tried by hand with `coracle boot --kernel`.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args_os().nth(1).ok_or("usage: guest FOLDER")?;
    for (name, image) in harness::guests::ALL {
        std::fs::write(PathBuf::from(&folder).join(name), image())?;
    }
    Ok(())
}
