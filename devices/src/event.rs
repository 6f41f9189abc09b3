//! The loop that devices live on: one thread, one epoll, subscribers owned by it.
//!
//! A [`Remote`] is how other threads reach a loop: they hand over subscribers and stop it.
//! The loop itself waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::{fmt, io, thread};

use event_manager::{EventManager, MutEventSubscriber, RemoteEndpoint, SubscriberOps};

/// What sits on a loop and is called when one of its file descriptors is ready.
pub type Subscriber = Box<dyn MutEventSubscriber + Send>;

/// A loop that could not be made, reached or continued.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// epoll or an eventfd is missing, mostly for want of file descriptors.
    #[error("cannot make the event loop of device I/O; is the limit of open files reached?")]
    Make(#[source] event_manager::Error),
    /// epoll_wait failed.
    #[error("the event loop of device I/O cannot wait for events")]
    Wait(#[source] event_manager::Error),
    /// The loop has ended, so nobody takes the message.
    #[error("the event loop of device I/O has ended already")]
    Gone(#[source] event_manager::Error),
    /// The thread could not be started.
    #[error("cannot start the thread {name} for device I/O")]
    Spawn {
        /// The thread's name.
        name: String,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// A loop with its subscribers.
pub struct Loop {
    manager: EventManager<Subscriber>,
    stop: Arc<AtomicBool>,
}

impl fmt::Debug for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loop")
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

impl Loop {
    /// Makes a loop without subscribers.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> Result<Self, LoopError> {
        let manager = EventManager::new().map_err(LoopError::Make)?;
        Ok(Self {
            manager,
            stop: Arc::default(),
        })
    }

    /// Adds a subscriber, which registers its file descriptors at once.
    pub fn add(&mut self, subscriber: Subscriber) {
        self.manager.add_subscriber(subscriber);
    }

    /// A handle for other threads.
    pub fn remote(&self) -> Remote {
        Remote {
            endpoint: self.manager.remote_endpoint(),
            stop: Arc::clone(&self.stop),
        }
    }

    /// Serves events until some [`Remote::stop`], then hands the thread back. The subscribers
    /// live on until the loop is dropped.
    ///
    /// # Errors
    /// When waiting for events fails, which only a fault of ours can cause.
    pub fn run(&mut self) -> Result<(), LoopError> {
        while !self.stop.load(Ordering::Acquire) {
            // A signal ends the wait without an event, which is no error.
            self.manager.run().map_err(LoopError::Wait)?;
        }
        Ok(())
    }

    /// Runs the loop on a thread of its own; the subscribers are dropped when it ends.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn(mut self, name: &str) -> Result<(Remote, LoopThread), LoopError> {
        let remote = self.remote();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || self.run());
        let name = name.to_owned();
        thread
            .map(|thread| (remote, thread))
            .map_err(|error| LoopError::Spawn { name, error })
    }
}

/// The thread of a loop, to be joined once it was told to stop.
pub type LoopThread = JoinHandle<Result<(), LoopError>>;

/// Reaches a loop from any thread, itself included: nothing here waits for the loop.
#[derive(Clone)]
pub struct Remote {
    endpoint: RemoteEndpoint<Subscriber>,
    stop: Arc<AtomicBool>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("stop", &self.stop)
            .finish_non_exhaustive()
    }
}

impl Remote {
    /// Hands a subscriber over; the loop adds it when it next looks.
    ///
    /// # Errors
    /// When the loop has ended.
    pub fn add(&self, subscriber: Subscriber) -> Result<(), LoopError> {
        let add = |ops: &mut dyn SubscriberOps<Subscriber = Subscriber>| {
            ops.add_subscriber(subscriber);
        };
        self.endpoint.fire(add).map_err(LoopError::Gone)
    }

    /// Makes the loop end after the events that it is serving. A loop that does not run yet will
    /// end as soon as it is run.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // It fails when the counter is full, and then the loop is awake anyway.
        let _ = self.endpoint.kick();
    }
}

#[cfg(test)]
mod tests;
