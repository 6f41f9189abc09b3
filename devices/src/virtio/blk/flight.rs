//! The requests that an engine works on, by tag, and those that go on when there is room.

use std::collections::VecDeque;

use super::request::{Request, Step};
use crate::disk::engine::Finished;

/// A request in the air, and what is being done of it.
pub(super) type Flying = (Request, Step);

/// What is in the air. Bounded by the engine's depth.
#[derive(Debug, Default)]
pub(super) struct Flight {
    places: Vec<Option<Flying>>,
    free: Vec<u16>,
    /// One step of theirs has ended, and the next is to begin.
    pub(super) landed: VecDeque<Request>,
    /// Room for what the engine has ended, kept from one look to the next.
    pub(super) ended: Vec<Finished>,
    /// No engine, or one that has failed: everything is done within the call.
    grounded: bool,
}

impl Flight {
    /// Room for so many; without an engine, none.
    pub(super) fn new(depth: Option<u16>) -> Self {
        let mut flight = Self::default();
        flight.resize(depth);
        flight
    }

    /// Another engine, while nothing is in the air.
    pub(super) fn resize(&mut self, depth: Option<u16>) {
        let count = depth.unwrap_or(0);
        self.places = (0..count).map(|_| None).collect();
        self.free = (0..count).rev().collect();
        self.grounded = depth.is_none();
    }

    pub(super) fn has_engine(&self) -> bool {
        !self.grounded
    }

    /// The engine is not used any more.
    pub(super) fn give_up_engine(&mut self) {
        self.grounded = true;
    }

    pub(super) fn engine_name(&self) -> &'static str {
        if self.grounded { "sync" } else { "io_uring" }
    }

    /// A tag that is free; none when everything is in the air.
    pub(super) fn tag(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Something is in the air under the tag that was free.
    pub(super) fn take_off(&mut self, tag: u16, flying: Flying) {
        self.free.pop_if(|free| *free == tag);
        if let Some(place) = self.places.get_mut(usize::from(tag)) {
            *place = Some(flying);
        }
    }

    /// What was in the air under a tag.
    pub(super) fn land(&mut self, tag: u16) -> Option<Flying> {
        let flying = self.places.get_mut(usize::from(tag))?.take()?;
        self.free.push(tag);
        Some(flying)
    }

    /// Everything that is in the air although no engine works on it any more.
    pub(super) fn crash(&mut self) -> Vec<Flying> {
        let tags = 0..u16::try_from(self.places.len()).unwrap_or(u16::MAX);
        tags.filter_map(|tag| self.land(tag)).collect()
    }

    pub(super) fn count(&self) -> u64 {
        let flying = self.places.len().saturating_sub(self.free.len());
        flying.saturating_add(self.landed.len()) as u64
    }

    pub(super) fn is_flying(&self) -> bool {
        self.free.len() < self.places.len()
    }
}
