//! `carillon`: one binary for a person at a terminal. `dev` runs a whole system on this machine, `token` mints a room
//! token, `doctor` says what stands in the way. The processes themselves are `sfu` and `signaling`: this package starts
//! and watches them and knows nothing of media or rooms.

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
        Command::Tied(args) => tie::main(args),
    };
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "carillon: {error:#}");
        ExitCode::FAILURE
    })
}
