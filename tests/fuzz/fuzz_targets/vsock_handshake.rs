//! Any bytes as the line of a host program, in any pieces: no panic, the same in pieces as in one,
//! never more taken than the line, and only a decimal port is a port.
#![no_main]

use devices::virtio::vsock::greeting::{LINE_BYTES, Line, Parsed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((piece_len, text)) = data.split_first() else {
        return;
    };
    let whole = Line::default().push(text);
    let mut line = Line::default();
    let (mut found, mut before) = (Parsed::More, 0);
    for piece in text.chunks(usize::from(piece_len % 16) + 1) {
        found = line.push(piece);
        assert!(line.room() <= LINE_BYTES);
        match &mut found {
            Parsed::More => before += piece.len(),
            Parsed::Bad => break,
            Parsed::Connect { used, .. } => {
                assert!(*used <= piece.len());
                *used += before;
                break;
            }
        }
    }
    assert_eq!(found, whole);
    if let Parsed::Connect { port, used } = whole {
        assert!(used <= LINE_BYTES && port != u32::MAX);
        assert_eq!(text[used - 1], b'\n');
        let line = std::str::from_utf8(&text[..used]).expect("digits and a word");
        let mut words = line.split_whitespace();
        assert!(
            words
                .next()
                .is_some_and(|word| word.eq_ignore_ascii_case("connect"))
        );
        let number = words.next().expect("a port");
        assert_eq!(number.parse(), Ok(port));
        assert_eq!(words.next(), None);
    }
});
