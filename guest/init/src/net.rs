//! The guest's network: every interface up, its addresses from the kernel's command line (`ip=`) or
//! by DHCP.
//!
//! Where the command line says `ip=dhcp`, as the monitor writes it for a network that answers at
//! once, the shell waits a moment for the addresses. Otherwise DHCP goes on beside it.

mod client;
mod dhcp;
mod netlink;
mod setting;

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::thread::{ClockId, Timespec, clock_nanosleep_relative};

use dhcp::Lease;
use netlink::Route;
use setting::{How, Setting};

/// How long the shell waits for an address that the command line promises.
const PATIENCE: Duration = Duration::from_secs(5);
const INTERFACES: &str = "/sys/class/net";
/// What `/etc/resolv.conf` points to.
const RESOLVER: &str = "/run/resolv.conf";

/// Sets up all interfaces that there are. A guest without one has nothing to do here.
pub(crate) fn start(command_line: &str) {
    let names = interfaces();
    if names.is_empty() {
        return;
    }
    let settings = Setting::all(command_line);
    let done = match Route::open() {
        Ok(mut route) => {
            // Programs that talk to themselves expect it.
            tell("lo", &route.up("lo"));
            let (sender, receiver) = channel();
            let waits = names.iter().filter(|name| {
                let setting = setting::of(&settings, name);
                set_up(&mut route, name, setting, &sender)
            });
            Ok((waits.count(), receiver))
        }
        Err(error) => Err(error),
    };
    match done {
        Ok((waits, receiver)) => {
            for _ in 0..waits {
                // The senders' threads say by themselves what they wait for.
                let _ = receiver.recv_timeout(PATIENCE);
            }
        }
        Err(error) => eprintln!("init: cannot set up the network: {error}"),
    }
}

/// The interfaces but the loopback one, in the order of their names.
fn interfaces() -> Vec<String> {
    let entries = fs::read_dir(INTERFACES).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        // Ethernet has type 1 (ARPHRD_ETHER).
        .filter(|name| {
            let kind = fs::read_to_string(format!("{INTERFACES}/{name}/type"));
            kind.is_ok_and(|kind| kind.trim() == "1")
        })
        .collect();
    names.sort();
    names
}

/// Sets up one interface: true when `done` will tell of an address that is worth waiting for.
fn set_up(route: &mut Route, name: &str, setting: Option<&Setting>, done: &Sender<()>) -> bool {
    let how = setting.map(|setting| &setting.how);
    if how == Some(&How::Off) {
        return false;
    }
    if !tell(name, &route.up(name)) {
        return false;
    }
    if let Some(How::Static(lease)) = how {
        tell(name, &apply(route, name, lease, None));
        return false;
    }
    let (name, done) = (name.to_owned(), done.clone());
    let started = thread::Builder::new().name(format!("dhcp-{name}"));
    let started = started.spawn(move || {
        if let Err(error) = keep(&name, &done) {
            eprintln!("init: no address for {name}: {error}");
        }
        // Whoever waits need not wait any longer.
        let _ = done.send(());
    });
    started.is_ok() && how == Some(&How::Dhcp)
}

/// Gets an address and keeps it for as long as the guest runs.
fn keep(name: &str, done: &Sender<()>) -> io::Result<()> {
    let mut client = client::Client::open(name)?;
    let mut route = Route::open()?;
    let mut had: Option<Lease> = None;
    loop {
        let lease = client.lease(had.as_ref());
        apply(&mut route, name, &lease, had.as_ref())?;
        let _ = done.send(());
        let Some(seconds) = lease.seconds else {
            return Ok(());
        };
        had = Some(lease);
        let pause = Timespec {
            tv_sec: i64::from((seconds / 2).max(30)),
            tv_nsec: 0,
        };
        let _ = clock_nanosleep_relative(ClockId::Monotonic, &pause);
    }
}

/// Makes a lease true, in place of the one before.
fn apply(route: &mut Route, name: &str, lease: &Lease, had: Option<&Lease>) -> io::Result<()> {
    let place = |lease: &Lease| (lease.address, lease.prefix, lease.router);
    if had.map(place) != Some(place(lease)) {
        if let Some(had) = had {
            // It goes with its routes; one that is gone already is as good.
            let _ = route.remove_address(name, had.address, had.prefix);
        }
        if let Some(mtu) = lease.mtu {
            // A server may know of more than the device takes, which stays as it is then.
            let _ = route.set_mtu(name, mtu);
        }
        route.add_address(name, lease.address, lease.prefix)?;
        if let Some(router) = lease.router {
            route.add_default(name, router)?;
        }
    }
    if !lease.dns.is_empty() {
        fs::write(RESOLVER, resolver(lease))?;
    }
    Ok(())
}

/// The text of `resolv.conf`.
fn resolver(lease: &Lease) -> String {
    let server = |address: &Ipv4Addr| format!("nameserver {address}\n");
    let domain = lease.domain.as_ref();
    let search = domain.map(|domain| format!("search {domain}\n"));
    let servers = lease.dns.iter().map(server);
    search.into_iter().chain(servers).collect()
}

/// Says what went wrong with an interface: true when nothing did.
fn tell(name: &str, result: &io::Result<()>) -> bool {
    if let Err(error) = result {
        eprintln!("init: cannot set up {name}: {error}");
    }
    result.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolvers_text() {
        let lease = Lease {
            dns: vec![Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::new(9, 9, 9, 9)],
            domain: Some("example.org".into()),
            ..Lease::of(Ipv4Addr::new(10, 0, 2, 15), 24)
        };
        assert_eq!(
            resolver(&lease),
            "search example.org\nnameserver 10.0.2.3\nnameserver 9.9.9.9\n"
        );
    }
}
