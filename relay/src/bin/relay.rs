use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match relay::run(&relay::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relay: {error}");
            ExitCode::FAILURE
        }
    }
}
