//! Reverse-mode differentiation: a tape of closures, run backwards once.
//!
//! The engine knows closures, not ops: each op records one that turns the gradient of its result into
//! gradients of its inputs. Without a tape nothing is recorded and nothing is kept alive.

mod context;
mod tape;

pub use context::Cx;
pub use tape::{Gradients, Tape, variable};
