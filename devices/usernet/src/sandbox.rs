//! What the process may still ask of the host once the network is set up: sockets of the Internet,
//! memory, the time. No file is opened, no program started, no other kind of socket made.

use crate::error::ServeError;
use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as ArgLen, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;
use std::io;

/// Allowed with any arguments, and why.
const FREE: &[(c_long, &str)] = &[
    // The guest's frames, connections, datagrams.
    (libc::SYS_recvfrom, "frames, connections, datagrams"),
    (libc::SYS_sendto, "the same"),
    (libc::SYS_connect, "flows of the guest"),
    (libc::SYS_accept4, "published ports"),
    (libc::SYS_bind, "asking whether an address is the host's"),
    (
        libc::SYS_getsockname,
        "the same, where everything can be bound",
    ),
    (libc::SYS_getsockopt, "how a connection attempt ended"),
    (libc::SYS_setsockopt, "no delay, an end with a reset"),
    (libc::SYS_shutdown, "one direction's end"),
    (libc::SYS_close, "flows that are over"),
    // Waiting.
    (libc::SYS_epoll_ctl, "which sockets are waited for"),
    (libc::SYS_epoll_wait, "waiting"),
    (libc::SYS_epoll_pwait, "waiting"),
    (libc::SYS_epoll_pwait2, "waiting"),
    (libc::SYS_clock_gettime, "the time, where the vDSO has none"),
    (
        libc::SYS_restart_syscall,
        "waiting that a stop has interrupted",
    ),
    // The control and the log.
    (libc::SYS_read, "questions of the control"),
    (libc::SYS_write, "the log"),
    (libc::SYS_writev, "the log"),
    (libc::SYS_poll, "whether the log is taken"),
    (libc::SYS_ppoll, "whether the log is taken"),
    // Numbers of questions.
    (libc::SYS_getrandom, "numbers that nobody can guess"),
    // Memory of the process.
    (libc::SYS_munmap, "buffers that are over"),
    (libc::SYS_mremap, "buffers that grow"),
    (libc::SYS_madvise, "memory given back"),
    (libc::SYS_brk, "small memory"),
    // The end, also that by a broken assertion.
    (libc::SYS_futex, "locks of the log"),
    (libc::SYS_exit, "the end"),
    (libc::SYS_exit_group, "the end"),
    (libc::SYS_rt_sigprocmask, "an abort"),
    (libc::SYS_rt_sigreturn, "signals"),
    (libc::SYS_sigaltstack, "the end of a thread"),
    (libc::SYS_getpid, "an abort"),
    (libc::SYS_gettid, "an abort"),
    (libc::SYS_tgkill, "an abort"),
];

fn condition(index: u8, length: ArgLen, op: Op, value: u64) -> Result<SeccompRule, io::Error> {
    let condition = SeccompCondition::new(index, length, op, value).map_err(io::Error::other)?;
    SeccompRule::new(vec![condition]).map_err(io::Error::other)
}

fn program() -> Result<BpfProgram, io::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, _) in FREE {
        rules.insert(*call, Vec::new());
    }
    let constant = |value: i32| u64::from(value.unsigned_abs());
    let family = |family| condition(0, ArgLen::Dword, Op::Eq, constant(family));
    let families = [family(libc::AF_INET)?, family(libc::AF_INET6)?];
    rules.insert(libc::SYS_socket, families.to_vec());
    // Memory that can be run is none that can be asked for.
    let no_code = || {
        let is_data = Op::MaskedEq(constant(libc::PROT_EXEC));
        condition(2, ArgLen::Dword, is_data, 0)
    };
    rules.insert(libc::SYS_mmap, vec![no_code()?]);
    rules.insert(libc::SYS_mprotect, vec![no_code()?]);
    // Whether the log goes to a terminal, and how its lines end there.
    let asks = |request| condition(1, ArgLen::Dword, Op::Eq, request);
    let questions = vec![asks(libc::TCGETS)?, asks(libc::TCGETS2)?];
    rules.insert(libc::SYS_ioctl, questions);
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, TargetArch::x86_64);
    let filter = filter.map_err(io::Error::other)?;
    filter.try_into().map_err(io::Error::other)
}

/// Closes everything else to the thread that calls this, for ever.
pub(crate) fn enter() -> Result<(), ServeError> {
    let sandbox = ServeError::host("closing what the network does not need (seccomp)");
    let program = program().map_err(&sandbox)?;
    seccompiler::apply_filter(&program).map_err(|error| sandbox(io::Error::other(error)))
}

/// Lets the process have as many descriptors as its flows may need, as far as the host allows it,
/// and says how many that are.
pub(crate) fn raise_descriptors(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= wanted {
        return current;
    }
    let raised = wanted.min(most);
    let limit = Rlimit {
        current: Some(raised),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, limit) {
        Ok(()) => raised,
        Err(_) => current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn only_the_internet_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        // The filter is the thread's.
        let thread = std::thread::spawn(move || {
            enter().unwrap();
            let denied = |error: io::Error| error.kind() == ErrorKind::PermissionDenied;
            assert!(denied(std::fs::File::open("/etc/passwd").unwrap_err()));
            assert!(denied(std::fs::read_dir("/").unwrap_err()));
            assert!(denied(std::fs::write("/tmp/x", "x").unwrap_err()));
            assert!(denied(std::os::unix::net::UnixStream::pair().unwrap_err()));
            assert!(denied(
                std::process::Command::new("/bin/true").spawn().unwrap_err()
            ));
            assert!(denied(
                std::os::unix::net::UnixDatagram::unbound().unwrap_err()
            ));
            TcpStream::connect(at).unwrap();
            UdpSocket::bind("127.0.0.1:0").unwrap();
            drop(vec![1_u8; 8 << 20]);
            // What a log asks before it writes.
            let log = io::stderr();
            let mut room = [PollFd::new(&log, PollFlags::OUT)];
            poll(&mut room, Some(&Timespec::default())).unwrap();
            let modes = rustix::termios::tcgetattr(&log);
            assert_ne!(modes.err(), Some(rustix::io::Errno::PERM));
        });
        thread.join().unwrap();
    }
}
