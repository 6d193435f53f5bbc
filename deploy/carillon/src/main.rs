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

/// An error and its causes in one line.
fn in_full(error: &anyhow::Error) -> String {
    admin::failure::in_full(error.as_ref())
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
        assert_eq!(in_full(&tells_its_source).matches("address in use").count(), 1);
        let source = std::io::Error::from_raw_os_error(98);
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 3478));
        let goes_on = anyhow::Error::from(relay::StartError::Port { port: "UDP", address, key: "port", source });
        assert_eq!(in_full(&goes_on).matches("os error 98").count(), 1);
        let chained = Err::<(), _>(std::io::Error::other("disk full")).context("cannot write x").context("no start");
        assert_eq!(in_full(&chained.unwrap_err()), "no start: cannot write x: disk full");
    }

    #[test]
    fn a_room_has_as_many_places_at_signalling_as_at_the_node() {
        let default_of = |command: clap::Command, flag: &str| {
            let help = command.get_arguments().find(|a| a.get_id() == flag).unwrap().get_help().unwrap().to_string();
            help.rsplit_once("[default: ").unwrap().1.trim_end_matches(']').to_owned()
        };
        let node = default_of(<sfu::Args as clap::CommandFactory>::command(), "room_peers_max");
        let signalling = default_of(<signaling::Args as clap::CommandFactory>::command(), "members_max");
        assert_eq!(node, signalling);
        assert_eq!(signaling::rooms::Limits::default().members_max.to_string(), signalling);
    }
}
