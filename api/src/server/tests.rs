//! Clients of every bad habit, on socket pairs, with a clock that the tests turn.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};

use rustix::event::{Timespec, poll};

use super::*;
use crate::http::Method;

/// A server, its clock and the requests that it has not answered.
struct Rig {
    server: Server,
    now: Instant,
    asked: VecDeque<(Ticket, Request)>,
}

impl Rig {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let server = Server::new(None, limits);
        let now = Instant::now();
        let asked = VecDeque::new();
        Self { server, now, asked }
    }

    /// A client, whose end gives up reading rather than wait.
    fn client(&mut self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        self.server.adopt(ours, self.now).unwrap();
        theirs
    }

    /// One turn without waiting: how many descriptors were ready.
    fn turn(&mut self) -> usize {
        let mut fds = Vec::new();
        self.server.watch(&mut fds);
        let count = poll(&mut fds, Some(&Timespec::default())).unwrap();
        let ready: Vec<_> = fds.iter().map(PollFd::revents).collect();
        self.server.turn(&ready, self.now);
        while let Some(asked) = self.server.take() {
            self.asked.push_back(asked);
        }
        count
    }

    /// Answers everything with the request's path.
    fn reply(&mut self) {
        while let Some((ticket, request)) = self.asked.pop_front() {
            self.server
                .answer(ticket, &Response::json(200, &request.path));
        }
    }

    /// Turns and answers until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..200 {
            let due = self.server.deadline().is_some_and(|at| at <= self.now);
            if self.turn() == 0 && self.asked.is_empty() && !due {
                return;
            }
            self.reply();
        }
        panic!("the server never comes to rest");
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn count(&self) -> usize {
        self.server.connections.len()
    }
}

/// What has come, and whether the stream is at its end.
fn come(client: &mut UnixStream) -> (String, bool) {
    let mut bytes = Vec::new();
    match client.read_to_end(&mut bytes) {
        Ok(_) => (String::from_utf8(bytes).unwrap(), true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            (String::from_utf8(bytes).unwrap(), false)
        }
        Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes)),
    }
}

/// The paths that answers name, in order.
fn paths(text: &str) -> Vec<&str> {
    text.split('"').skip(1).step_by(2).collect()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\n\r\n").into_bytes()
}

#[test]
fn requests_one_after_the_other() {
    let mut rig = Rig::new();
    let mut client = rig.client();
    for path in ["/a", "/b", "/c"] {
        client.write_all(&get(path)).unwrap();
        rig.settle();
        let (text, ended) = come(&mut client);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && !ended, "{text}");
        assert_eq!(paths(&text), [path]);
    }
    drop(client);
    rig.settle();
    assert_eq!(rig.count(), 0);
}

#[test]
fn a_request_in_single_bytes() {
    let mut rig = Rig::new();
    let mut client = rig.client();
    for byte in b"PUT /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc" {
        client.write_all(&[*byte]).unwrap();
        rig.turn();
    }
    let (_, request) = rig.asked.front().unwrap();
    assert_eq!(
        (request.method, request.body.as_slice()),
        (Method::Put, &b"abc"[..])
    );
    rig.settle();
    assert_eq!(paths(&come(&mut client).0), ["/a"]);
}

#[test]
fn pipelined_requests_are_answered_in_order_and_let_others_in_between() {
    let mut rig = Rig::new();
    let mut greedy = rig.client();
    let mut other = rig.client();
    let many: Vec<_> = (0..100).map(|n| get(&format!("/{n}"))).collect();
    greedy.write_all(&many.concat()).unwrap();
    other.write_all(&get("/other")).unwrap();
    rig.turn();
    assert_eq!(rig.asked.len(), 2, "one of each client");
    rig.settle();
    assert_eq!(paths(&come(&mut other).0), ["/other"]);
    let expected: Vec<_> = (0..100).map(|n| format!("/{n}")).collect();
    assert_eq!(paths(&come(&mut greedy).0), expected);
}

#[test]
fn a_pending_request_holds_up_its_own_client_only() {
    let mut rig = Rig::new();
    let mut first = rig.client();
    let mut second = rig.client();
    first
        .write_all(&[get("/slow"), get("/after")].concat())
        .unwrap();
    rig.turn();
    let slow = rig.asked.pop_front().unwrap();
    second.write_all(&get("/quick")).unwrap();
    rig.settle();
    assert_eq!(paths(&come(&mut second).0), ["/quick"]);
    assert_eq!(come(&mut first).0, "");
    rig.server.answer(slow.0, &Response::json(200, &"/slow"));
    rig.settle();
    assert_eq!(paths(&come(&mut first).0), ["/slow", "/after"]);
}

#[test]
fn a_slow_client_is_ended_and_delays_nobody() {
    let mut rig = Rig::new();
    let mut slow = rig.client();
    let mut other = rig.client();
    for byte in &get("/loris")[..9] {
        slow.write_all(&[*byte]).unwrap();
        rig.turn();
        rig.pass(Duration::from_secs(1));
        other.write_all(&get("/")).unwrap();
        rig.settle();
        assert_eq!(paths(&come(&mut other).0), ["/"]);
    }
    assert_eq!(come(&mut slow), (String::new(), false));
    rig.pass(Duration::from_secs(1));
    rig.settle();
    let (text, ended) = come(&mut slow);
    assert!(text.starts_with("HTTP/1.1 408 ") && ended, "{text}");
    rig.pass(Duration::from_secs(1));
    rig.settle();
    assert_eq!(rig.count(), 1, "the other one stays");
}

#[test]
fn idle_connections_end_late_and_give_way_to_others() {
    let mut rig = Rig::new();
    let mut idle: Vec<_> = (0..10).map(|_| rig.client()).collect();
    rig.turn();
    let mut early = rig.client();
    let (text, ended) = come(&mut early);
    assert!(
        text.starts_with("HTTP/1.1 503 ") && text.contains("Retry-After: 1\r\n"),
        "{text}"
    );
    assert!(ended);
    rig.pass(Duration::from_secs(1));
    let mut late = rig.client();
    late.write_all(&get("/late")).unwrap();
    rig.settle();
    assert_eq!(paths(&come(&mut late).0), ["/late"]);
    assert!(
        come(&mut idle[0]).1,
        "the one that was idle for longest gave way"
    );
    assert!(!come(&mut idle[1]).1);
    let deadline = rig.server.deadline().unwrap();
    assert_eq!(deadline - rig.now, Duration::from_secs(299));
    rig.pass(Duration::from_secs(300));
    rig.settle();
    assert_eq!(rig.count(), 0);
    assert_eq!(
        rig.server.deadline(),
        None,
        "nothing wakes a server without clients"
    );
}

#[test]
fn a_client_within_a_request_does_not_give_way() {
    let mut rig = Rig::with(Limits {
        connections: 1,
        ..Limits::default()
    });
    let mut busy = rig.client();
    busy.write_all(b"GET /").unwrap();
    rig.turn();
    rig.pass(Duration::from_secs(5));
    let mut other = rig.client();
    assert!(come(&mut other).0.starts_with("HTTP/1.1 503 "));
    busy.write_all(b"a HTTP/1.1\r\n\r\n").unwrap();
    rig.settle();
    assert_eq!(paths(&come(&mut busy).0), ["/a"]);
}

#[test]
fn a_half_closed_client_is_answered_to_the_end() {
    let mut rig = Rig::new();
    let mut client = rig.client();
    client.write_all(&[get("/a"), get("/b")].concat()).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    rig.settle();
    let (text, ended) = come(&mut client);
    assert_eq!((paths(&text), ended), (vec!["/a", "/b"], true));
    // Half a request will never be whole.
    let mut client = rig.client();
    client.write_all(b"GET /a HT").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    rig.settle();
    assert_eq!((come(&mut client), rig.count()), ((String::new(), true), 0));
}

#[test]
fn a_client_that_goes_while_its_request_is_carried_out() {
    let mut rig = Rig::new();
    let mut client = rig.client();
    client.write_all(&get("/a")).unwrap();
    rig.turn();
    let (ticket, _) = rig.asked.pop_front().unwrap();
    drop(client);
    rig.turn();
    assert_eq!(rig.turn(), 0, "it is not reported again and again");
    rig.server.answer(ticket, &Response::done());
    rig.settle();
    assert_eq!(rig.count(), 0);
}

#[test]
fn a_client_that_does_not_read_is_ended_and_delays_nobody() {
    let mut rig = Rig::new();
    let mut deaf = rig.client();
    let mut other = rig.client();
    deaf.write_all(&get("/a")).unwrap();
    rig.turn();
    let (ticket, _) = rig.asked.pop_front().unwrap();
    let large = vec!["x"; 1 << 20];
    rig.server.answer(ticket, &Response::json(200, &large));
    rig.pass(Duration::from_secs(9));
    other.write_all(&get("/")).unwrap();
    rig.settle();
    assert_eq!((paths(&come(&mut other).0), rig.count()), (vec!["/"], 2));
    rig.pass(Duration::from_secs(1));
    rig.settle();
    assert_eq!(rig.count(), 1);
    let (text, ended) = come(&mut deaf);
    assert!(text.starts_with("HTTP/1.1 200 ") && ended);
}

#[test]
fn large_answers_come_whole() {
    let mut rig = Rig::new();
    let mut client = rig.client();
    client.write_all(&get("/a")).unwrap();
    rig.turn();
    let (ticket, _) = rig.asked.pop_front().unwrap();
    let large = vec!["x"; 1 << 18];
    rig.server.answer(ticket, &Response::json(200, &large));
    let mut text = String::new();
    while !text.ends_with(']') {
        rig.turn();
        text.push_str(&come(&mut client).0);
    }
    assert!(text.ends_with(&serde_json::to_string(&large).unwrap()));
}

#[test]
fn malformed_requests_are_answered_and_end_the_connection() {
    let mut rig = Rig::new();
    let cases: &[(&[u8], &str)] = &[
        (b"rubbish\r\n\r\n", "400"),
        (b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400"),
        (b"PUT / HTTP/1.1\r\nContent-Length: 51201\r\n\r\n", "413"),
        (
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "411",
        ),
        (b"PUT / HTTP/1.1\r\nTransfer-Encoding: x\r\n\r\n", "501"),
        (b"GET / HTTP/3.0\r\n\r\n", "505"),
    ];
    for (bytes, status) in cases {
        let mut client = rig.client();
        client.write_all(bytes).unwrap();
        // What follows is nobody's request.
        client.write_all(&get("/smuggled")).unwrap();
        rig.settle();
        let (text, ended) = come(&mut client);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(text.contains("Connection: close\r\n") && ended, "{text}");
        assert!(
            text.contains("\"fault_message\":") && text.contains("\"hint\":"),
            "{text}"
        );
        assert_eq!(text.matches("Server: Coracle").count(), 1, "{text}");
    }
}

#[test]
fn a_client_that_sends_too_much_still_reads_why() {
    let mut rig = Rig::new();
    let mut client = rig.client();
    client
        .write_all(b"PUT / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n")
        .unwrap();
    let body = vec![0; 100_000];
    let mut sent = 0;
    while sent < body.len() {
        match client.write(&body[sent..]) {
            Ok(len) => sent += len,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        rig.turn();
    }
    rig.settle();
    let (text, ended) = come(&mut client);
    assert!(text.starts_with("HTTP/1.1 413 ") && ended, "{text}");
    // One that never stops is not listened to for ever.
    rig.pass(Duration::from_secs(1));
    rig.settle();
    assert_eq!(rig.count(), 0);
}

#[test]
fn a_connection_ends_when_the_client_says_so() {
    let mut rig = Rig::new();
    for head in [
        "GET /a HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET /a HTTP/1.0\r\n\r\n",
    ] {
        let mut client = rig.client();
        client.write_all(head.as_bytes()).unwrap();
        client.write_all(&get("/b")).unwrap();
        rig.settle();
        let (text, ended) = come(&mut client);
        assert_eq!((paths(&text), ended), (vec!["/a"], true));
    }
}

#[test]
fn a_client_that_waits_for_leave_to_send_gets_it() {
    let mut rig = Rig::new();
    let mut client = rig.client();
    let head = b"PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    client.write_all(head).unwrap();
    rig.settle();
    assert_eq!(come(&mut client).0, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"{}").unwrap();
    rig.settle();
    assert_eq!(paths(&come(&mut client).0), ["/a"]);
}

#[test]
fn a_client_that_goes_within_a_request_is_let_go_at_once() {
    let mut rig = Rig::new();
    let mut client = rig.client();
    client.write_all(b"GET /a HT").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    // The bytes, then the end.
    rig.turn();
    rig.turn();
    let due = rig.server.deadline().is_some_and(|at| at <= rig.now);
    assert!(due, "nothing that is polled would tell of it");
    rig.turn();
    assert_eq!((rig.count(), come(&mut client).1), (0, true));
}

#[test]
fn an_answer_to_head_has_no_body() {
    let mut rig = Rig::new();
    let mut client = rig.client();
    client.write_all(b"HEAD /a HTTP/1.1\r\n\r\n").unwrap();
    rig.settle();
    let (text, _) = come(&mut client);
    assert!(text.ends_with("Content-Length: 4\r\n\r\n"), "{text}");
}

#[test]
fn a_thousand_clients_take_ten_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let mut rig = Rig::new();
    rig.server.listener = Some(Listener::bind(&path).unwrap());
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(UnixStream::connect(&path).unwrap());
        rig.turn();
        assert!(rig.count() <= 10);
        if idle.len() > 100 {
            idle.remove(0);
        }
    }
    rig.pass(Duration::from_secs(2));
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_nonblocking(true).unwrap();
    client.write_all(&get("/a")).unwrap();
    rig.settle();
    assert_eq!(paths(&come(&mut client).0), ["/a"]);
}

/// What has come on a stream without waiting.
fn arrived(client: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    if let Err(error) = client.read_to_end(&mut bytes) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
    String::from_utf8(bytes).unwrap()
}

/// A client whose request is answered with a stream.
fn follower(rig: &mut Rig) -> UnixStream {
    let mut client = rig.client();
    client.write_all(b"GET /e HTTP/1.1\r\n\r\n").unwrap();
    rig.turn();
    let (ticket, _) = rig.asked.pop_front().unwrap();
    rig.server.stream(ticket, b"first\n");
    client
}

#[test]
fn a_stream_gets_every_line_and_its_end() {
    let mut rig = Rig::new();
    let mut client = follower(&mut rig);
    let text = arrived(&mut client);
    assert!(text.ends_with("\r\n\r\n6\r\nfirst\n\r\n"), "{text}");
    // It may be silent for as long as it likes, and its client may say what it likes.
    rig.pass(Duration::from_secs(100_000));
    client.write_all(b"rubbish").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    rig.settle();
    rig.server.publish(b"second\n");
    assert_eq!(arrived(&mut client), "7\r\nsecond\n\r\n");
    rig.server.end_streams();
    assert_eq!(arrived(&mut client), "0\r\n\r\n");
    rig.settle();
    assert_eq!(rig.count(), 0);
}

#[test]
fn a_slow_stream_loses_lines_and_is_told() {
    let mut rig = Rig::new();
    let mut client = follower(&mut rig);
    let line = [b"x".repeat(999), b"\n".to_vec()].concat();
    for _ in 0..10_000 {
        rig.server.publish(&line);
    }
    let waiting: usize = rig.server.connections.iter().map(Connection::waiting).sum();
    assert!(waiting <= 66 << 10, "{waiting} bytes wait");
    let mut text = String::new();
    for _ in 0..10_000 {
        text.push_str(&arrived(&mut client));
        rig.turn();
    }
    let came = text.matches("\nx").count() as u64;
    let told = text.split("\"count\":").nth(1).unwrap();
    let lost: u64 = told.split('}').next().unwrap().parse().unwrap();
    assert_eq!(came + lost, 10_000, "{came} came, {lost} lost");
    // From then on it gets everything again.
    rig.server.publish(b"last\n");
    assert!(arrived(&mut client).contains("last"));
}

#[test]
fn streams_leave_room_for_others_and_end_with_their_clients() {
    let mut rig = Rig::new();
    let limit = rig.server.limits.streams;
    let followers: Vec<_> = (0..limit).map(|_| follower(&mut rig)).collect();
    let mut late = follower(&mut rig);
    assert!(arrived(&mut late).starts_with("HTTP/1.1 503 "));
    drop(followers);
    rig.settle();
    rig.server.publish(b"nobody hears\n");
    rig.settle();
    assert_eq!(rig.count(), 1, "only the one that was refused");
    let mut client = follower(&mut rig);
    assert!(arrived(&mut client).starts_with("HTTP/1.1 200 "));
}
