//! The few devices of a PC that a guest expects at fixed ports and addresses.
