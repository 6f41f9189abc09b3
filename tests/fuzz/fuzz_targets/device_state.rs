//! Any bytes as the saved state of a device, or a good state with some of them changed: an error,
//! or a device that has a state of its own, goes on, and works after a reset. The first byte
//! chooses the device, the second what the others are.
#![no_main]

use coracle_fuzz::state;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [device, how, rest @ ..] = data else {
        return;
    };
    state::restore(*device, how & 1 == 0, rest);
});
