//! What a program has written so far, collected by a thread, to be waited for.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of one stream and whether it has ended.
#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

/// A stream that a thread reads to its end.
#[derive(Clone, Debug, Default)]
pub struct Output(Arc<(Mutex<State>, Condvar)>);

impl Output {
    /// Starts to collect `from`.
    pub fn collect(mut from: impl Read + Send + 'static) -> Output {
        let output = Output::default();
        let filled = output.clone();
        std::thread::spawn(move || {
            let mut chunk = [0; 4096];
            // A pseudo-terminal reports EIO once its last user is gone: an end like any other.
            while let Ok(count) = from.read(&mut chunk) {
                let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else {
                    break;
                };
                filled.lock().bytes.extend_from_slice(bytes);
                filled.0.1.notify_all();
            }
            filled.lock().ended = true;
            filled.0.1.notify_all();
        });
        output
    }

    /// Everything so far.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Everything so far as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// Waits until `wanted` stands at or after byte `from`; returns where it ends. None when the
    /// stream ends or `limit` passes first.
    #[must_use]
    pub fn wait_for(&self, wanted: &[u8], from: usize, limit: Duration) -> Option<usize> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(at) = find(&state.bytes, wanted, from) {
                return Some(at + wanted.len());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended || left.is_zero() {
                return None;
            }
            let woken = self.0.1.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until the stream has ended; false after `limit`.
    #[must_use]
    pub fn wait_for_end(&self, limit: Duration) -> bool {
        let wait = self
            .0
            .1
            .wait_timeout_while(self.lock(), limit, |state| !state.ended);
        wait.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(bytes: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(wanted.len())
        .position(|window| window == wanted)
        .map(|at| at + from)
}
