//! Any bytes as HTTP requests, in pieces of any size: no panic, memory bounded by the limits of a
//! request, pieces make no difference, and what comes out is answered in bounded space.
#![no_main]

use api::http::parse::{BODY_BYTES, HEAD_BYTES};
use api::http::{Malformed, Parser, Request};
use api::machine::MachineState;
use api::request::{Read, read};
use libfuzzer_sys::fuzz_target;

/// Feeds `bytes` in pieces of `piece` bytes and hands on what comes out.
fn play(bytes: &[u8], piece: usize, mut take: impl FnMut(Result<Request, Malformed>)) {
    let mut parser = Parser::default();
    for part in bytes.chunks(piece) {
        let mut part = part;
        while !part.is_empty() {
            let now;
            (now, part) = part.split_at(part.len().min(parser.room()));
            assert!(!now.is_empty(), "a parser that waits has room");
            parser.push(now);
            loop {
                match parser.request() {
                    Ok(Some(request)) => take(Ok(request)),
                    Ok(None) => break,
                    Err(error) => return take(Err(error)),
                }
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&first, bytes)) = data.split_first() else {
        return;
    };
    let mut whole = Vec::new();
    play(bytes, HEAD_BYTES + BODY_BYTES, |one| whole.push(one));
    let mut expected = whole.iter();
    play(bytes, usize::from(first) + 1, |one| {
        assert_eq!(Some(&one), expected.next(), "pieces make a difference");
    });
    assert_eq!(expected.next(), None);
    for request in whole.iter().flatten() {
        assert!(request.body.len() <= BODY_BYTES && request.path.starts_with('/'));
        if let Read::Refused(response) = read(request, MachineState::Running) {
            assert!((400..600).contains(&response.status));
            assert!(response.body.len() < 4 * (HEAD_BYTES + BODY_BYTES));
        }
    }
});
