//! Any bytes as a DHCP message: no panic, an answer of bounded length with the client's number, and
//! never another address than the guest's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use usernet::{Config, Dhcp, dhcp_answer};

fuzz_target!(|data: &[u8]| {
    let config = Config::default();
    if let Dhcp::Answer(answer) = dhcp_answer(&config, data) {
        assert!((300..600).contains(&answer.data.len()));
        assert_eq!(answer.data[4..8], data[4..8], "the client's number");
        let given = &answer.data[16..20];
        assert!(given == [0; 4] || given == config.subnet4.guest.octets());
        assert_eq!(answer.to.port(), 68);
    }
});
