//! `tasr info`: what files are, and what this machine computes with.

mod device;
mod file;

use std::path::PathBuf;

use serde_json::json;

use crate::error::Result;

/// Tell what checkpoint files are, what they hold and what they lack; or list the devices of this machine
#[derive(clap::Args)]
pub struct Args {
    /// Checkpoint files or diffusers folders
    #[arg(required_unless_present = "device", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// List the devices: processor, memory, GPUs
    #[arg(long)]
    device: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command. A file that cannot be read is named, and the others are told of.
///
/// # Errors
/// The first file that cannot be read.
pub fn run(args: Args) -> Result<()> {
    let devices = args.device.then(device::Devices::find);
    let (mut reports, mut failures) = (Vec::new(), Vec::new());
    for path in &args.files {
        match file::FileReport::open(path) {
            Ok(report) => reports.push(report),
            Err(error) => failures.push(error),
        }
    }
    if args.json {
        let errors: Vec<String> = failures.iter().map(ToString::to_string).collect();
        println!("{}", json!({"files": reports, "errors": errors, "devices": devices}));
    } else {
        let reports = reports.iter().map(ToString::to_string);
        let blocks: Vec<String> = reports.chain(devices.iter().map(ToString::to_string)).collect();
        print!("{}", blocks.join("\n"));
    }
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(()) };
    if !args.json {
        failures.for_each(|error| eprintln!("tasr: error: {error}"));
    }
    Err(first)
}
