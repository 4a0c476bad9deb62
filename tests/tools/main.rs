//! The subcommands around weights, run as a user runs them: synth, info, convert.

mod program;
mod synth;
