//! Which model-specific registers are set at boot and which are worth saving.
