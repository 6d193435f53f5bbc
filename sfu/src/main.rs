use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match sfu::run(sfu::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sfu: {error}");
            ExitCode::FAILURE
        }
    }
}
