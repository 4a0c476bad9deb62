//! OpenAI's CLIP RN50: a residual network that sees images of any size, and a text tower.

mod config;
mod text;
mod visual;

pub use config::ClipConfig;
pub use text::ClipText;
pub use visual::ClipVisual;
