//! A disk in memory that its test can look at, change and break.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, Geometry, TransferError};
use crate::ram::GuestRam;
use crate::virtio::Span;

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    read_only: bool,
    failure: Option<i32>,
    flushes: u64,
}

/// Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SharedDisk(Arc<Mutex<State>>);

impl SharedDisk {
    /// A disk that holds `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        let state = State {
            bytes,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The same disk, from now on for reading only.
    #[must_use]
    pub fn read_only(self) -> Self {
        self.state().read_only = true;
        self
    }

    /// Makes every later operation fail with this error of the system, or none.
    pub fn fail_with(&self, errno: Option<i32>) {
        self.state().failure = errno;
    }

    /// Grows or shrinks it.
    pub fn resize(&self, bytes: usize) {
        self.state().bytes.resize(bytes, 0);
    }

    /// What it holds.
    pub fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    /// How often it was flushed.
    pub fn flushes(&self) -> u64 {
        self.state().flushes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn each(
        &self,
        mut offset: u64,
        spans: &[Span],
        change: bool,
        mut copy: impl FnMut(u64, &mut [u8]) -> bool,
    ) -> Result<(), TransferError> {
        let mut state = self.state();
        let mut done = 0_u64;
        let fail = |done, error| Err(TransferError { done, error });
        if let Err(error) = state.check(change) {
            return fail(0, error);
        }
        for span in spans {
            let Some(piece) = state.range(offset, span.len.into()) else {
                return fail(done, io::ErrorKind::UnexpectedEof.into());
            };
            if !copy(span.at, piece) {
                return fail(done, io::ErrorKind::InvalidInput.into());
            }
            done = done.saturating_add(span.len.into());
            offset = offset.saturating_add(span.len.into());
        }
        Ok(())
    }

    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.check(true)?;
        let range = state.range(offset, len);
        range.ok_or(io::ErrorKind::UnexpectedEof)?.fill(0);
        Ok(())
    }
}

impl State {
    fn check(&self, change: bool) -> io::Result<()> {
        if change && self.read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.failure
            .map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn range(&mut self, offset: u64, len: u64) -> Option<&mut [u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(len).ok()?)?;
        self.bytes.get_mut(start..end)
    }
}

impl Disk for SharedDisk {
    fn geometry(&self) -> Geometry {
        let state = self.state();
        Geometry {
            bytes: u64::try_from(state.bytes.len()).unwrap_or_default(),
            read_only: state.read_only,
        }
    }

    fn read(&mut self, offset: u64, ram: &GuestRam, into: &[Span]) -> Result<(), TransferError> {
        self.each(offset, into, false, |at, piece| {
            ram.write_bytes(at, piece).is_ok()
        })
    }

    fn write(&mut self, offset: u64, ram: &GuestRam, from: &[Span]) -> Result<(), TransferError> {
        self.each(offset, from, true, |at, piece| {
            ram.read_bytes(at, piece).is_ok()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.state();
        state.flushes = state.flushes.saturating_add(1);
        state.check(false)
    }

    fn discard(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.zero(offset, len)
    }

    fn write_zeroes(&mut self, offset: u64, len: u64, _: bool) -> io::Result<()> {
        self.zero(offset, len)
    }
}
