//! The command line: one file a subcommand, messages and progress.

mod bench;
mod convert;
mod info;
pub mod interrupt;
pub mod progress;
mod synth;

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
    Bench(bench::Args),
    Convert(convert::Args),
    Info(info::Args),
    Synth(synth::Args),
}

/// Runs the program; errors are printed as one sentence and become exit codes.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench(args) => bench::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Info(args) => info::run(args),
        Command::Synth(args) => synth::run(args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tasr: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}
