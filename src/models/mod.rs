//! The networks of the system and what feeds them.

pub mod text;
