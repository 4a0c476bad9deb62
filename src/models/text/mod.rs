//! From a prompt to the features that steer the sampler.

pub mod cleanup;
mod encoder;
pub mod tokenizer;
mod tower;

pub use encoder::TextEncoder;
pub use tokenizer::{Tokenizer, Tokens};
pub use tower::TextTower;
pub(crate) use tower::{Block, Gelu};
