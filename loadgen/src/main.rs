//! `loadgen`: see `loadgen --help`.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    loadgen::cli::main(loadgen::cli::Cli::parse())
}
