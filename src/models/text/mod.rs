//! The text side: tokens and their features.

mod tower;

pub use tower::TextTower;
