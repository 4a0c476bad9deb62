//! (being written)
pub mod interrupt;
pub mod progress;
