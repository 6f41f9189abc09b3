//! A pseudoterminal: the guest's console at a path under /dev/pts.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// The far end. Holding it open keeps the near end from reporting a hang-up whenever no
/// program has the console open.
#[derive(Debug)]
pub(super) struct Pty {
    path: PathBuf,
    _held: File,
}

impl Pty {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Opens a pseudoterminal: its far end, and three handles to the near one, which never wait.
pub(super) fn open() -> io::Result<(Pty, [File; 3])> {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&near)?;
    unlockpt(&near)?;
    fcntl_setfl(&near, fcntl_getfl(&near)? | OFlags::NONBLOCK)?;
    let path = PathBuf::from(OsString::from_vec(ptsname(&near, Vec::new())?.into_bytes()));
    let no_controlling_terminal = i32::try_from(OFlags::NOCTTY.bits()).unwrap_or(0);
    let held = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(no_controlling_terminal)
        .open(&path)?;
    // Else the terminal would echo the guest's output back to it as input.
    let mut modes = tcgetattr(&held)?;
    modes.make_raw();
    tcsetattr(&held, OptionalActions::Now, &modes)?;
    let near = File::from(near);
    let ends = [near.try_clone()?, near.try_clone()?, near];
    Ok((Pty { path, _held: held }, ends))
}
