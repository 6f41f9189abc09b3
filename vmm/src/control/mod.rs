//! The control thread: lifecycle, signals, deadlines.
