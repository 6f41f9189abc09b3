//! The keys that are meant for the monitor and not for the guest: a pure state machine.

/// What the help key prints. Each line starts and ends as a raw terminal needs it.
pub const ESCAPE_HELP: &str = "\r\n\
    [coracle] Ctrl-] and then: q quit now, p press the power button, \
    Ctrl-] send Ctrl-], ? this help\r\n";

/// Ctrl-], the key that starts an escape.
const PREFIX: u8 = 0x1d;

/// What one typed byte amounts to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Escape {
    /// The guest gets this byte.
    Byte(u8),
    /// The user wants to quit.
    Quit,
    /// The user presses the power button.
    PowerButton,
    /// The user wants to see the keys, or pressed one that means nothing.
    Help,
}

/// Tells the user's keys for the monitor from those for the guest.
#[derive(Clone, Copy, Debug, Default)]
pub struct EscapeFilter {
    prefixed: bool,
}

impl EscapeFilter {
    /// Takes one typed byte: none when it only started an escape.
    pub fn step(&mut self, byte: u8) -> Option<Escape> {
        if !std::mem::take(&mut self.prefixed) {
            self.prefixed = byte == PREFIX;
            return (byte != PREFIX).then_some(Escape::Byte(byte));
        }
        Some(match byte {
            PREFIX => Escape::Byte(PREFIX),
            b'q' | b'Q' => Escape::Quit,
            b'p' | b'P' => Escape::PowerButton,
            _ => Escape::Help,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(input: &[u8]) -> Vec<Escape> {
        let mut filter = EscapeFilter::default();
        input.iter().filter_map(|byte| filter.step(*byte)).collect()
    }

    #[test]
    fn escapes_are_taken_out_and_the_rest_passes() {
        use Escape::{Byte, Help, PowerButton, Quit};
        let cases: &[(&[u8], &[Escape])] = &[
            (b"", &[]),
            (b"ab", &[Byte(b'a'), Byte(b'b')]),
            (b"\x1d", &[]),
            (b"\x1dq", &[Quit]),
            (b"\x1dQ", &[Quit]),
            (b"\x1dp", &[PowerButton]),
            (b"\x1d?", &[Help]),
            (b"\x1dx", &[Help]),
            (b"\x1d\x1d", &[Byte(0x1d)]),
            (b"\x1d\x1dq", &[Byte(0x1d), Byte(b'q')]),
            (b"a\x1dpb", &[Byte(b'a'), PowerButton, Byte(b'b')]),
            (
                b"qp?\x03\xff",
                &[Byte(b'q'), Byte(b'p'), Byte(b'?'), Byte(3), Byte(0xff)],
            ),
        ];
        for (input, expected) in cases {
            assert_eq!(run(input), *expected, "{input:?}");
        }
    }

    #[test]
    fn the_help_names_every_key() {
        for key in ["Ctrl-]", "q quit", "p press", "?"] {
            assert!(ESCAPE_HELP.contains(key), "{key}");
        }
        assert!(!ESCAPE_HELP.trim().contains('\n'));
    }

    proptest! {
        /// Text without the prefix passes unchanged, and doubling each prefix passes any text.
        #[test]
        fn anything_can_be_typed(input: Vec<u8>) {
            let doubled: Vec<u8> = input
                .iter()
                .flat_map(|byte| std::iter::repeat_n(*byte, 1 + usize::from(*byte == PREFIX)))
                .collect();
            let bytes: Vec<Escape> = input.iter().map(|byte| Escape::Byte(*byte)).collect();
            prop_assert_eq!(run(&doubled), bytes);
        }
    }
}
