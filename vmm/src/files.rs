//! Opens the files that a machine is made of.
