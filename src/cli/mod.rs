//! The command line: one file a subcommand, messages and progress.

mod convert;
mod info;
pub mod interrupt;
pub mod progress;
mod synth;
mod upscale;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Timestep-aware diffusion super-resolution.
#[derive(Parser)]
#[command(name = "tasr", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Convert(convert::Args),
    Info(info::Args),
    Synth(synth::Args),
    Upscale(Box<upscale::Args>),
}

/// Runs the program; errors are printed as one sentence and become exit codes.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Convert(args) => convert::run(args),
        Command::Info(args) => info::run(args),
        Command::Synth(args) => synth::run(args),
        Command::Upscale(args) => upscale::run(*args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tasr: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}
