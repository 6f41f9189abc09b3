//! Root file systems: a tree of entries, and the image writers that turn it into bytes.

pub mod erofs;
pub mod tree;
