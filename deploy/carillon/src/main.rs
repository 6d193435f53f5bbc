//! `carillon`: one binary for a person at a terminal. `dev` runs a whole system on this machine, `token` mints a room
//! token, `doctor` says what stands in the way. The processes themselves are `sfu`, `signaling` and those of `relay`: this
//! package starts and watches them and knows nothing of media or rooms.

mod dev;
mod doctor;
mod duration;
mod local;
mod tie;
mod token;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Multi-party audio and desktop sound: start it, try it, look after it.
#[derive(Debug, Parser)]
#[command(name = "carillon", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine, with fresh secrets, and print links to open
    Dev(Box<dev::Args>),
    /// Mint a room token
    Token(token::Args),
    /// Check this machine for what would get in the way of a call
    Doctor(doctor::Args),
    /// Run the media node alone
    Sfu(Box<sfu::Args>),
    /// Run signalling alone
    Signaling(Box<signaling::Args>),
    /// Run the relay alone
    Relay(Box<relay::Args>),
    /// Run the credential broker alone
    CredentialBroker(Box<relay::broker::Args>),
    /// Become PROGRAM, but end when the process PARENT does
    #[command(hide = true)]
    Tied(tie::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Dev(args) => dev::main(*args),
        Command::Token(args) => token::main(&args),
        Command::Doctor(args) => doctor::main(&args),
        Command::Sfu(args) => sfu::run(*args).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Signaling(args) => signaling::run(*args).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Relay(args) => relay::run(&args).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::CredentialBroker(args) => relay::broker::run(&args).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Tied(args) => tie::main(args),
    };
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "carillon: {}", in_full(&error));
        ExitCode::FAILURE
    })
}

/// An error and its causes in one line. A cause that the text before it says already is not said twice.
fn in_full(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn each_cause_of_an_error_is_said_once() {
        let source = std::io::Error::other("address in use");
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 40000));
        let tells_its_source = anyhow::Error::from(sfu::StartError::Media { address, source });
        assert_eq!(in_full(&tells_its_source), "media port 127.0.0.1:40000 cannot be bound: address in use");
        let source = std::io::Error::from_raw_os_error(98);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 3478));
        let goes_on = anyhow::Error::from(relay::StartError::Port { port: "UDP", address, key: "--port", source });
        assert_eq!(in_full(&goes_on).matches("os error 98").count(), 1);
        let chained = Err::<(), _>(std::io::Error::other("disk full")).context("cannot write x").context("no start");
        assert_eq!(in_full(&chained.unwrap_err()), "no start: cannot write x: disk full");
    }
}
