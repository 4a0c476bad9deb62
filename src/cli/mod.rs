//! The command line: one file a subcommand, messages and progress.

mod bench;
mod compare;
mod convert;
mod data;
mod degrade;
mod device;
mod info;
pub mod interrupt;
mod maps;
mod memory;
pub mod progress;
mod pull;
mod synth;
mod train;
mod upscale;

use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::error::{Error, Result};

/// Timestep-aware diffusion super-resolution.
#[derive(Parser)]
#[command(name = "tasr", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Upscale(Box<upscale::Args>),
    Convert(convert::Args),
    Data(data::Args),
    Degrade(Box<degrade::Args>),
    Train(Box<train::Args>),
    Compare(compare::Args),
    Info(info::Args),
    Maps(maps::Args),
    Pull(pull::Args),
    Synth(synth::Args),
    Bench(bench::Args),
}

/// Runs the program; errors are printed as one sentence and become exit codes.
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader of the messages that has gone away changes nothing about the exit code.
            let _ = writeln!(std::io::stderr(), "tasr: error: {error}");
            ExitCode::from(error.kind().exit_code())
        }
    }
}

fn run() -> Result<()> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(asked) if !asked.use_stderr() => {
            // The help or the version; a closed pipe, as with `| head`, is no error.
            let _ = asked.print();
            return Ok(());
        }
        Err(wrong) => return Err(Error::usage(sentence(&wrong))),
    };
    match cli.command {
        Command::Upscale(args) => upscale::run(*args),
        Command::Convert(args) => convert::run(args),
        Command::Data(args) => data::run(args),
        Command::Degrade(args) => degrade::run(*args),
        Command::Train(args) => train::run(*args),
        Command::Compare(args) => compare::run(&args),
        Command::Info(args) => info::run(args),
        Command::Maps(args) => maps::run(args),
        Command::Pull(args) => pull::run(args),
        Command::Synth(args) => synth::run(args),
        Command::Bench(args) => bench::run(args),
    }
}

/// What clap has to say, without its usage lines.
fn sentence(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "no subcommand is given; `tasr --help` lists them".to_owned();
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = text.lines().map(str::trim);
    let told: Vec<&str> = lines
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    told.join(" ").replace(" tip: ", "; ")
}
