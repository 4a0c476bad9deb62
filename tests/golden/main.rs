//! Runs every golden case, `NAME.json` beside `NAME.safetensors`, found in `tests/fixtures/golden` and in
//! `$TASR_GOLDEN_DIR`, and prints each case's worst tensor. They run where `$TASR_GOLDEN_DEVICE` and
//! `$TASR_GOLDEN_DTYPE` say; without these on the CPU, and the short ones on the emulator too, where the build has it.
//!
//! `cargo test --release --test golden [-- FILTER...]`

mod case;
mod cleaner;
mod compare;
mod networks;
mod pipeline;
mod place;
mod tokens;
mod train;
mod units;

use std::process::ExitCode;

use case::Case;
use compare::Comparison;
use place::Place;
use tasr::error::{Error, Result};

/// How a case ended.
enum Outcome {
    Compared(Comparison),
    /// The kind belongs to a part of the system that is not built.
    NotBuilt,
}

fn run(case: &Case) -> Result<Outcome> {
    match case.kind() {
        "networks" => networks::run(case).map(Outcome::Compared),
        "pipeline" => pipeline::run(case).map(Outcome::Compared),
        "units" => units::run(case).map(Outcome::Compared),
        "cleaner" => cleaner::run(case).map(Outcome::Compared),
        "train" => train::run(case).map(Outcome::Compared),
        "metrics" => Ok(Outcome::NotBuilt),
        other => Err(Error::input(format!("unknown kind '{other}'")).at(case.name())),
    }
}

fn main() -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let (cases, places) = match case::find(&filters).and_then(|cases| Ok((cases, Place::all()?))) {
        Ok(found) => found,
        Err(error) => {
            eprintln!("golden: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (mut passed, mut failed, mut not_built) = (0, 0, 0);
    for (place, case) in places.iter().flat_map(|place| cases.iter().map(move |case| (place, case))) {
        if !place.takes(case) {
            continue;
        }
        place.enter();
        let start = std::time::Instant::now();
        let outcome = run(case);
        let seconds = start.elapsed().as_secs_f32();
        let name = format!("{}{}", case.name(), place.label);
        match outcome {
            Ok(Outcome::Compared(comparison)) => {
                let verdict = if comparison.passed() { "ok" } else { "FAILED" };
                println!("golden {name} ({}, {seconds:.1} s) ... {verdict}", case.kind());
                println!("{comparison}");
                if comparison.passed() { passed += 1 } else { failed += 1 }
            }
            Ok(Outcome::NotBuilt) => {
                println!("golden {name} ({0}) ... NOT BUILT: this engine has no '{0}' yet", case.kind());
                not_built += 1;
            }
            Err(error) => {
                println!("golden {name} ({}) ... FAILED\n    {error}", case.kind());
                failed += 1;
            }
        }
    }
    let verdict = if failed == 0 && passed > 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; {not_built} ignored; 0 measured; 0 filtered out"
    );
    if verdict == "ok" || cases.is_empty() && !filters.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
