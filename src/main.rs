//! The program `tasr`.

use std::process::ExitCode;

fn main() -> ExitCode {
    tasr::cli::main()
}
