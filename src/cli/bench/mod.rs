//! `tasr bench`: how fast this machine is.

mod kernels;
mod machine;
mod parts;
mod pipeline;
mod timing;
mod train;

use crate::error::Result;

/// Measure the speed of the networks on this machine
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Pipeline(pipeline::Args),
    Kernels(kernels::Args),
    Train(train::Args),
}

/// Runs the command.
///
/// # Errors
/// Those of what is measured.
pub fn run(args: Args) -> Result<()> {
    match args.what {
        What::Pipeline(args) => pipeline::run(&args),
        What::Kernels(args) => kernels::run(&args),
        What::Train(args) => train::run(&args),
    }
}
