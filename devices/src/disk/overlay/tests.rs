//! The delta against a plain model, live and after a loss of power at any point.

mod crash;
mod kit;
mod live;
