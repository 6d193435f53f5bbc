use std::io::Write as _;
use std::process::ExitCode;

use audio_bridge::RunError;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "audio-bridge",
    version,
    about = "Desktop sound into a room, the room's voices into a virtual microphone",
    args_conflicts_with_subcommands = false
)]
struct Cli {
    #[command(flatten)]
    args: audio_bridge::Args,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the sound daemon's devices and says what is missing. Flags stand before the word
    Devices,
    /// Plays a tone into the desktop and the microphone and says whether it comes back. Flags stand before the word
    Probe,
}

fn main() -> ExitCode {
    let Cli { args, command } = Cli::parse();
    let outcome = match command {
        None => audio_bridge::run(&args).map(|()| true),
        Some(Command::Devices) => audio_bridge::devices(&args).and_then(|found| {
            print(&found)?;
            Ok(found.complaints().is_empty())
        }),
        Some(Command::Probe) => audio_bridge::probe(&args).and_then(|found| {
            print(&found)?;
            Ok(found.are_good())
        }),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("audio-bridge: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &impl std::fmt::Display) -> Result<(), RunError> {
    write!(std::io::stdout(), "{text}").map_err(RunError::Setup)
}
