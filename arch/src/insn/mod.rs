//! Decoder of the few instructions that a weak KVM cannot emulate; effects are data.
