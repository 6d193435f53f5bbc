//! Makes an idle null sink deliver at once. Such a sink has rendered two seconds of silence ahead and looks up when they
//! are over: neither a new listener on its monitor nor a new player makes it look up sooner, so the first packet after
//! a start would come up to two seconds late. Resuming from suspension sets its clock to now. Only done to a sink that
//! is idle, and by nobody suspended, when the capture stream has just been opened.

use pulseaudio::protocol::{Command, GetSinkInfo, SinkInfo, SinkState, SuspendParams};

use super::wire::{Connection, device_name};
use super::{PulseFailure, PulseSettings};

/// Uses a connection of its own: the capture stream's is not to wait for replies.
pub(super) async fn wake(pulse: &PulseSettings, sink: &str) -> Result<(), PulseFailure> {
    let name = Some(device_name(sink));
    let mut connection = Connection::open(pulse).await?;
    let info: SinkInfo =
        connection.call(&Command::GetSinkInfo(GetSinkInfo { index: None, name: name.clone() })).await?;
    if info.state != SinkState::Idle {
        return Ok(());
    }
    for suspend in [true, false] {
        let params = SuspendParams { device_index: None, device_name: name.clone(), suspend };
        connection.call_for_ack(&Command::SuspendSink(params)).await?;
    }
    Ok(())
}
