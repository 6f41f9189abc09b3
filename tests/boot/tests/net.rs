//! Networks of guests: taps in a namespace of the test's own, the user-mode network, and what
//! becomes of the host's side.

use api::client::Client;
use boot_tests::shell::{self, COMMAND};
use boot_tests::{code, judge};
use harness::netns::Namespace;
use harness::pty::OnTerminal;
use harness::vm::SHORTLY;
use harness::{Exit, TestVm, coracle, guests, skip};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

/// What the host serves: long enough for many packets.
const SERVED_BYTES: usize = 300_000;

fn served() -> Vec<u8> {
    (0_u32..)
        .flat_map(u32::to_le_bytes)
        .take(SERVED_BYTES)
        .collect()
}

/// Answers every request on `listener` with the same bytes, as long as the test runs.
fn serve(listener: TcpListener) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {SERVED_BYTES}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&served());
        }
    });
}

fn shell(command: &Command) -> OnTerminal {
    shell::start(command, 100, 30).unwrap()
}

fn run(terminal: &mut OnTerminal, command: &str, wanted: &str) {
    shell::run(terminal, command, wanted).unwrap();
}

fn leave(terminal: &mut OnTerminal) {
    terminal.type_keys(b"poweroff\r").unwrap();
    let status = terminal.exit(COMMAND).unwrap();
    assert_eq!(status.code(), Some(code::POWERED_OFF));
}

/// Fetches `url` in the guest and compares what came, by its sum.
fn fetch(terminal: &mut OnTerminal, url: &str) {
    let mut sum = Command::new("md5sum");
    let mut sum = sum
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sum.stdin.take().unwrap().write_all(&served()).unwrap();
    let sum = String::from_utf8(sum.wait_with_output().unwrap().stdout).unwrap();
    let sum = sum.split_whitespace().next().unwrap();
    let fetch = format!("wget -q -O /tmp/got {url}; md5sum /tmp/got");
    run(terminal, &fetch, sum);
}

#[test]
fn a_guest_reads_its_metadata_as_it_is_now() {
    if skip::without_kvm() {
        return;
    }
    let vm = TestVm::new().unwrap();
    let metadata = br#"{"latest": {"meta-data": {"instance-id": "vm-first"}}}"#;
    let file = vm.file("meta.json", metadata).unwrap();
    let socket = vm.folder().join("api.sock");
    let vm = vm.args(&["--net", "user", "--mmds"]);
    let vm = vm.arg(format!("{},version=v1", file.display()));
    let vm = vm.arg("--api-sock").arg(&socket);
    let mut terminal = shell(&vm.command().unwrap());
    let read = "wget -q -O - http://169.254.169.254/latest/meta-data/instance-id";
    run(&mut terminal, read, "vm-first");
    let mut client = Client::connect(&socket, SHORTLY).unwrap();
    let change = json!({"latest": {"meta-data": {"instance-id": "vm-second"}}});
    assert_eq!(client.patch("/mmds", &change).unwrap().status, 204);
    run(&mut terminal, read, "vm-second");
    run(
        &mut terminal,
        "wget http://169.254.169.254/nope",
        "404 Not Found",
    );
    let config = client.get("/vm/config").unwrap().json();
    assert_eq!(config["mmds-config"]["network_interfaces"], json!(["net0"]));
    let devices = client.get("/coracle/v1/devices").unwrap().json();
    let devices = devices.as_array().unwrap();
    let net = devices.iter().find(|device| device["name"] == "net0");
    let counts = &net.unwrap()["report"]["metadata"];
    assert_eq!(counts["requests"], 3, "{counts}");
    leave(&mut terminal);
}

/// A program that ends with the test.
struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of DHCP on `interface`.
fn dnsmasq(space: &Namespace, folder: &std::path::Path, interface: &str) -> Beside {
    let mut command = Command::new("dnsmasq");
    command.args([
        "--no-daemon",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--port=0",
        "--bind-interfaces",
        "--dhcp-range=10.9.0.50,10.9.0.50,1h",
        "--dhcp-option=option:dns-server,10.9.0.9",
        "--domain=example.test",
        "--pid-file=",
    ]);
    command.arg(format!("--interface={interface}"));
    let leases = folder.join("leases");
    command.arg(format!("--dhcp-leasefile={}", leases.display()));
    let mut command = space.wrap(&command);
    let child = command.stderr(Stdio::null()).spawn().unwrap();
    Beside(child)
}

#[test]
fn a_guest_on_a_tap_has_an_address_by_dhcp_and_fetches_files() {
    if skip::without_kvm() || skip::without_program("dnsmasq") {
        return;
    }
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    space.ip("tuntap add dev vm0 mode tap").unwrap();
    space.ip("address add 10.9.0.1/24 dev vm0").unwrap();
    space.ip("link set dev vm0 up").unwrap();
    let host = SocketAddr::from(([10, 9, 0, 1], 0));
    let listener = space.enter(|| TcpListener::bind(host)).unwrap().unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener);
    let vm = TestVm::new().unwrap();
    let socket = vm.folder().join("api.sock");
    let _dnsmasq = dnsmasq(&space, vm.folder(), "vm0");
    let vm = vm.args(&["--net", "tap:vm0", "--cmdline", "ip=dhcp"]);
    let vm = vm.arg("--api-sock").arg(&socket);
    let mut terminal = shell(&space.wrap(&vm.command().unwrap()));
    run(&mut terminal, "ip addr show dev eth0", "inet 10.9.0.50/24");
    run(&mut terminal, "ip route", "default via 10.9.0.1 dev eth0");
    run(&mut terminal, "cat /etc/resolv.conf", "nameserver 10.9.0.9");
    run(&mut terminal, "ping -c 1 10.9.0.1", "1 packets received");
    fetch(&mut terminal, &format!("http://10.9.0.1:{port}/"));
    // What the interface did, in the API.
    let mut client = Client::connect(&socket, SHORTLY).unwrap();
    let devices = client.get("/coracle/v1/devices").unwrap().json();
    let net = devices
        .as_array()
        .unwrap()
        .iter()
        .find(|device| device["name"] == "net0")
        .unwrap();
    let text = net["report"].to_string();
    assert_eq!(net["model"], "virtio-net", "{text}");
    assert!(number(net, "rx_packets_count") > 10, "{text}");
    assert!(number(net, "tx_packets_count") > 10, "{text}");
    assert!(number(net, "rx_bytes_count") > 300_000, "{text}");
    let config = client.get("/vm/config").unwrap().json();
    assert_eq!(config["network-interfaces"][0]["host_dev_name"], "vm0");
    leave(&mut terminal);
}

/// A number of a device's report, wherever in it.
fn number(device: &Value, name: &str) -> u64 {
    fn find(value: &Value, name: &str) -> Option<u64> {
        let parts = value.as_object()?;
        let own = parts.get(name).and_then(Value::as_u64);
        own.or_else(|| parts.values().find_map(|part| find(part, name)))
    }
    find(&device["report"], name).unwrap_or_else(|| panic!("no {name} in {device}"))
}

#[test]
fn the_user_mode_network_works_at_once_and_publishes_ports() {
    if skip::without_kvm() {
        return;
    }
    let host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = host.local_addr().unwrap().port();
    serve(host);
    let published = free_port();
    let vm = TestVm::new().unwrap().args(&["--net", "user,host=on"]);
    let vm = vm.args(&["-p", &format!("{published}:80")]);
    let mut terminal = shell(&vm.command().unwrap());
    run(&mut terminal, "ip addr show dev eth0", "inet 10.0.2.15/24");
    run(&mut terminal, "cat /etc/resolv.conf", "nameserver 10.0.2.3");
    run(&mut terminal, "ping -c 1 10.0.2.2", "1 packets received");
    fetch(&mut terminal, &format!("http://10.0.2.2:{port}/"));
    // IPv6, whose address the guest makes itself and asks about for a second.
    let six = "until ip addr show dev eth0 | grep fd00: | grep -qv tentative; do sleep 1; done";
    run(&mut terminal, &format!("{six}; echo six=$?"), "six=0");
    run(&mut terminal, "ping -c 1 fd00::3", "1 packets received");
    if let Ok(host) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        let port = host.local_addr().unwrap().port();
        serve(host);
        fetch(&mut terminal, &format!("http://[fd00::2]:{port}/"));
    } else {
        skip::skipped("this host has no IPv6");
    }
    run(
        &mut terminal,
        "echo from the guest > /tmp/index.html; httpd -p 80 -h /tmp; echo started=$?",
        "started=0",
    );
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, published)).unwrap();
    stream.set_read_timeout(Some(COMMAND)).unwrap();
    stream
        .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("from the guest\n"), "{answer}");
    leave(&mut terminal);
    // The port is free again: the network's process has ended with the machine.
    TcpListener::bind((Ipv4Addr::LOCALHOST, published)).unwrap();
}

/// A port of the host's loopback that was free a moment ago.
fn free_port() -> u16 {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    free.local_addr().unwrap().port()
}

#[test]
fn real_programs_ask_a_name_server_and_load_a_published_port() {
    let programs = ["dnsmasq", "curl", "wrk"];
    if skip::without_kvm() || programs.iter().any(|name| skip::without_program(name)) {
        return;
    }
    let (names, published) = (free_port(), free_port());
    let mut server = Command::new("dnsmasq");
    server.args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv"]);
    server.args(["--no-hosts", "--listen-address=127.0.0.1", "--pid-file="]);
    server.args(["--bind-interfaces", "--address=/host.test/192.0.2.7"]);
    server.args(["--address=/host.test/2001:db8::7"]);
    server.arg(format!("--port={names}"));
    let _server = Beside(server.stderr(Stdio::null()).spawn().unwrap());
    let net = format!("user,dns=127.0.0.1:{names}");
    let vm = TestVm::new().unwrap().args(&["--net", &net]);
    let vm = vm.args(&["-p", &format!("{published}:80")]);
    let mut terminal = shell(&vm.command().unwrap());
    let ask = "nslookup host.test";
    run(&mut terminal, ask, "192.0.2.7");
    run(&mut terminal, ask, "2001:db8::7");
    run(&mut terminal, "nslookup other.test", "REFUSED");
    let fill = "head -c 100000 /dev/zero > /tmp/zeroes; httpd -p 80 -h /tmp; echo up=$?";
    run(&mut terminal, fill, "up=0");
    let url = format!("http://127.0.0.1:{published}/zeroes");
    let got = output(Command::new("curl").args(["-sS", "--max-time", "60", &url]));
    assert_eq!(got.stdout, [0; 100_000], "{}", got.stderr);
    let mut load = Command::new("wrk");
    load.args(["--threads", "1", "--connections", "8", "--duration", "5s"]);
    let load = output(load.args(["--timeout", "20s", &url]));
    let text = String::from_utf8(load.stdout).unwrap();
    let bytes = |line: &str| line.trim().split_once(" requests in ").is_some();
    assert!(text.lines().any(bytes), "{text}");
    // It tells these only when there are some.
    for word in ["Socket errors", "Non-2xx", " 0 requests in"] {
        assert!(!text.contains(word), "{text}");
    }
    leave(&mut terminal);
}

#[test]
fn the_hosts_own_services_are_closed_unless_opened() {
    if skip::without_kvm() {
        return;
    }
    let host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = host.local_addr().unwrap().port();
    serve(host);
    let vm = TestVm::new().unwrap().args(&["--net", "user"]);
    let mut terminal = shell(&vm.command().unwrap());
    for address in ["10.0.2.2", "169.254.169.254"] {
        let fetch = format!("wget -q -O /tmp/got http://{address}:{port}/; echo got=$?");
        run(&mut terminal, &fetch, "got=1");
    }
    leave(&mut terminal);
}

/// Starts a guest that ends at once with these arguments, in a namespace.
fn brief(space: &Namespace, arguments: &[&str]) -> Exit {
    let vm = TestVm::of(&guests::hello_reset()).unwrap().args(arguments);
    let mut command = space.wrap(&vm.command().unwrap());
    output(&mut command)
}

fn output(command: &mut Command) -> Exit {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Exit {
        code: output.status.code(),
        signal: None,
        stdout: output.stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn taps_that_cannot_be_had_are_named_with_what_mends_it() {
    if skip::without_kvm() {
        return;
    }
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    space.ip("tuntap add dev one mode tap").unwrap();
    space
        .ip("link add name veth0 type veth peer name veth1")
        .unwrap();
    for (net, words) in [
        ("tap:veth0", ["tap veth0", "another kind"]),
        ("tap:one,queues=2", ["tap one", "made with one queue"]),
        (
            "tap:a-very-long-name-of-a-tap",
            ["tap \"a-very-long", "15 bytes"],
        ),
        ("tap,fd=77", ["tap", "fd 77 is not open"]),
        ("user,publish=80", ["net publish \"80\"", "not understood"]),
    ] {
        let exit = brief(&space, &["--net", net]);
        judge(&exit, code::INPUT, &words).unwrap();
    }
    // A plan opens nothing, and a machine leaves nothing behind.
    for print in [true, false] {
        let arguments: &[&str] = match print {
            true => &["--net", "tap:made", "--print-plan"],
            false => &["--net", "tap:made"],
        };
        let exit = brief(&space, arguments);
        let code = if print {
            code::POWERED_OFF
        } else {
            code::RESET
        };
        assert_eq!(exit.code, Some(code), "{exit:?}");
        space.ip("link show dev made").unwrap_err();
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    if skip::without_kvm() {
        return;
    }
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 8099));
    let _taken = space.enter(listen).unwrap().unwrap();
    let exit = brief(&space, &["--net", "user,dns=9.9.9.9", "-p", "8099:80"]);
    judge(&exit, code::INPUT, &["cannot publish", "8099"]).unwrap();
    let exit = brief(&space, &["--net", "user,dns=9.9.9.9", "-p", "8098:80"]);
    assert_eq!(exit.code, Some(code::RESET), "{exit:?}");
}

#[test]
fn a_set_up_is_made_found_good_and_undone() {
    if skip::without_program("nft") {
        return;
    }
    let Some(space) = Namespace::new().unwrap() else {
        return;
    };
    let net = |words: &str| {
        let mut command = Command::new(coracle().unwrap());
        command.arg("net").args(words.split_whitespace());
        output(&mut space.wrap(&command))
    };
    let text = |exit: &Exit| String::from_utf8(exit.stdout.clone()).unwrap();
    for flags in ["", "--bridge br7 --nat 10.7.0.1/24"] {
        let setup = format!("setup --tap vm7 --user root --queues 2 {flags}");
        let shown = net(&setup);
        assert!(
            text(&shown).contains("sudo ip tuntap add dev vm7"),
            "{shown:?}"
        );
        let done = net(&format!("{setup} --apply"));
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(text(&done).contains("--net tap:vm7"), "{done:?}");
        let doctor = net("doctor vm7 --queues 2 --json");
        assert_eq!(doctor.code, Some(0), "{doctor:?}");
        let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
        assert_eq!(report["ready"], true);
        // Twice is refused, and leaves what is there.
        let again = net(&format!("{setup} --apply"));
        assert_eq!(again.code, Some(code::HOST), "{again:?}");
        assert_eq!(net("doctor vm7 --queues 2").code, Some(0));
        let undone = net(&format!("{setup} --undo --apply"));
        assert_eq!(undone.code, Some(0), "{undone:?}");
        for name in ["vm7", "br7"] {
            space.ip(&format!("link show dev {name}")).unwrap_err();
        }
        let mut list = Command::new("nft");
        let left = output(&mut space.wrap(list.args(["list", "ruleset"])));
        assert!(left.stdout.is_empty(), "{left:?}");
    }
}

#[test]
fn passt_is_another_network() {
    if skip::without_kvm() || skip::without_program("passt") {
        return;
    }
    let host = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = host.local_addr().unwrap().port();
    serve(host);
    let vm = TestVm::new().unwrap();
    let socket = vm.folder().join("passt.sock");
    // It goes on by itself when it listens, and ends with its client.
    let mut passt = Command::new("passt");
    passt.args(["--quiet", "--one-off", "--runas", "0", "--socket"]);
    let started = output(passt.arg(&socket));
    assert_eq!(started.code, Some(0), "{started:?}");
    let net = format!("passt:{}", socket.display());
    let vm = vm.args(&["--net", &net]);
    let mut terminal = shell(&vm.command().unwrap());
    run(&mut terminal, "ip route", "default via ");
    // The gateway's address is the host's loopback there.
    let gateway = "$(ip route | grep default | cut -d ' ' -f 3)";
    fetch(&mut terminal, &format!("http://{gateway}:{port}/"));
    leave(&mut terminal);
}
