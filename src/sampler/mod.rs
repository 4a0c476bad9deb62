//! Everything between the networks: timestep schedule, noise, random streams, tiles, guidance and sizes.
//!
//! It knows no model and no device: host code on plain slices and numbers, so that each rule can be read and
//! tested on its own. Where a formula has an official counterpart, the float operations happen in the same
//! order and precision.

pub mod guidance;
pub mod noise;
pub mod philox;
pub mod random;
pub mod replay;
pub mod schedule;
pub mod sizes;
pub mod tiles;

pub use guidance::Guidance;
pub use noise::{NoiseSource, Seeded, content_hash};
pub use random::Random;
pub use replay::Replay;
pub use schedule::{AddNoise, Schedule, Step};
pub use sizes::Sizes;
pub use tiles::{PaddedTile, PaddedTiles, Tiling};
