//! What a run leaves for people and programs to read: JSON lines and TensorBoard events.

mod events;
mod lines;

pub use events::EventFile;
pub use lines::LineFile;
