//! DNS through TCP: the same rules for names as in datagrams. Each message has its length in front.

use crate::dns::{Addresses, Question};
use crate::net::Net;
use crate::wire::be16;
use smoltcp::socket::tcp;

/// The longest question that is passed on.
const MOST_QUESTION: usize = 4096;
/// The longest answer that there can be, with its length.
const MOST_ANSWER: usize = 2 + 65_535;

/// Looks into both directions of a connection to the name server.
#[derive(Debug, Default)]
pub(super) struct Inspector {
    /// What may go to the server and has not yet.
    questions: Vec<u8>,
    /// The start of an answer that is not complete.
    answer: Vec<u8>,
}

impl Inspector {
    /// True while questions wait for the server.
    pub(super) fn waits(&self) -> bool {
        !self.questions.is_empty()
    }

    pub(super) fn questions(&self) -> &[u8] {
        &self.questions
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.questions.drain(..bytes.min(self.questions.len()));
    }

    /// Takes whole questions of the guest; false when one is refused.
    pub(super) fn take_questions(&mut self, net: &mut Net, guest: &mut tcp::Socket<'_>) -> bool {
        while self.questions.len() < MOST_QUESTION && guest.can_recv() {
            let mut length = [0; 2];
            if guest.peek_slice(&mut length) != Ok(2) {
                break;
            }
            let length = 2 + usize::from(u16::from_be_bytes(length));
            if length > MOST_QUESTION {
                net.counters.drops.malformed += 1;
                return false;
            }
            if guest.recv_queue() < length {
                break;
            }
            let mut message = vec![0; length];
            if guest.recv_slice(&mut message) != Ok(length) {
                return false;
            }
            let question = message.get(2..).and_then(Question::of_query);
            let Some(question) = question else {
                net.counters.drops.malformed += 1;
                return false;
            };
            net.counters.dns_questions += 1;
            if !net.rules.resolves(&question.name) {
                net.counters.drops.names += 1;
                return false;
            }
            self.questions.extend_from_slice(&message);
        }
        true
    }

    /// Learns from what the server sends.
    pub(super) fn take_answers(&mut self, net: &mut Net, data: &[u8]) {
        self.answer.extend_from_slice(data);
        while let Some(length) = be16(&self.answer, 0).map(|length| 2 + usize::from(length)) {
            let Some(message) = self.answer.get(2..length) else {
                break;
            };
            if let Some(question) = Question::of_answer(message) {
                let found = Addresses::of(message, &question);
                net.rules
                    .names
                    .learn(&question.name, &found.aliases, &found.addresses, net.now);
            }
            self.answer.drain(..length);
        }
        debug_assert!(self.answer.len() <= MOST_ANSWER, "a message has a length");
    }
}
