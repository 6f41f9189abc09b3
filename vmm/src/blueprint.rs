//! The blueprint: everything that a machine will have, computed without opening anything.
