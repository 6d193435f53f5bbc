use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(
    name = "audio-bridge",
    version,
    about = "Desktop sound into a room, the room's voices into a virtual microphone"
)]
struct Cli {
    #[command(flatten)]
    args: audio_bridge::Args,
}

fn main() -> ExitCode {
    match audio_bridge::run(&Cli::parse().args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("audio-bridge: {error}");
            ExitCode::FAILURE
        }
    }
}
