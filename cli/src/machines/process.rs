//! A machine's process: known by its number and the moment of its start, since numbers are used
//! again, and reached through a descriptor that stays its own.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::machine::MachineRecord;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The field of /proc/PID/stat that tells when a process was started, counted from the one after
/// its name (proc(5)).
const START_TIME: usize = 19;

/// A machine's process that was alive when it was looked for.
#[derive(Debug)]
pub(super) struct Process(OwnedFd);

impl Process {
    /// That of a record; none when it has ended.
    pub(super) fn of(record: &MachineRecord) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(record.pid).ok()?)?;
        let process = Self(pidfd_open(pid, PidfdFlags::empty()).ok()?);
        // Looked at after the descriptor was opened, so that both mean the same process.
        (start_time(&record.pid.to_string()).ok()? == record.start_time).then_some(process)
    }

    /// Whether it has ended within `patience`.
    pub(super) fn ends_within(&self, patience: Duration) -> bool {
        let deadline = Instant::now().checked_add(patience);
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Ends it at once, whatever it does.
    pub(super) fn kill(&self) {
        // It fails only for a process that has ended.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

/// When this process was started, in the host's ticks.
pub(super) fn start_time_of_self() -> io::Result<u64> {
    start_time("self")
}

fn start_time(process: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name is in parentheses and may hold anything.
    let fields = text.rsplit_once(") ").map(|(_, fields)| fields);
    let field = fields.and_then(|fields| fields.split_ascii_whitespace().nth(START_TIME));
    field
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other("/proc tells no start time"))
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
