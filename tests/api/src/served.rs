//! A machine that serves an API.

use anyhow::Result;
use api::client::Client;
use harness::vm::SHORTLY;
use harness::{Machine, TestVm, guests};
use std::path::PathBuf;

use crate::raw::Raw;

/// A machine that has said hello.
#[derive(Debug)]
pub struct Served {
    /// The machine.
    pub machine: Machine,
    /// The socket of its API.
    pub socket: PathBuf,
}

impl Served {
    /// Boots `image` with a socket and whatever else `vm` adds.
    ///
    /// # Errors
    /// When it does not start.
    pub fn boot(image: &[u8], add: impl FnOnce(TestVm) -> Result<TestVm>) -> Result<Self> {
        let vm = TestVm::of(image)?;
        let socket = vm.folder().join("api.sock");
        let mut machine = add(vm)?.arg("--api-sock").arg(&socket).boot()?;
        machine.expect(guests::HELLO, SHORTLY)?;
        Ok(Self { machine, socket })
    }

    /// A well-behaved client.
    ///
    /// # Errors
    /// When it finds nobody.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::connect(&self.socket, SHORTLY)?)
    }

    /// A client that sends whatever it is given.
    ///
    /// # Errors
    /// When it finds nobody.
    pub fn raw(&self) -> Result<Raw> {
        Raw::connect(&self.socket, SHORTLY)
    }
}
