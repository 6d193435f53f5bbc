//! The end of a process by signal. The first SIGINT or SIGTERM asks it to end well, the second ends it at once.

use tokio::signal::unix::{Signal, SignalKind, signal as listen};

/// What a shell reports for a process that SIGINT ended.
const EXIT_CODE_FORCED: i32 = 130;

/// Waits for SIGINT or SIGTERM and gives its name. From then on a second signal ends the process at once, whatever it
/// is doing. Must be polled inside a tokio runtime with IO.
pub async fn signal() -> std::io::Result<&'static str> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let first = either(&mut interrupt, &mut terminate).await;
    tokio::spawn(async move {
        let second = either(&mut interrupt, &mut terminate).await;
        tracing::warn!(signal = second, "Ending at once on the second signal");
        std::process::exit(EXIT_CODE_FORCED);
    });
    Ok(first)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}
