//! The process `signaling`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match signaling::run(signaling::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Logs may not be set up yet.
            eprintln!("signaling: {error}");
            ExitCode::FAILURE
        }
    }
}
