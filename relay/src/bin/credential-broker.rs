use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match relay::broker::run(&relay::broker::Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("credential-broker: {error}");
            ExitCode::FAILURE
        }
    }
}
