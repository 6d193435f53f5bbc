//! The stream into the virtual microphone's sink. Always open, silent when nobody speaks, so that the first word is not
//! cut by a sink that has to wake up. The daemon asks for samples and its clock rules; the amount it holds grows only
//! while it runs empty ([`super::latency`]).

use std::sync::Arc;
use std::time::Instant;

use pulseaudio::protocol::stream::{BufferAttr, StreamFlags};
use pulseaudio::protocol::{
    ChannelMap, Command, CreatePlaybackStreamReply, PlaybackStreamParams, Prop, Props, PulseError, SampleFormat,
    SampleSpec, SetPlaybackStreamBufferAttrParams, SubscriptionMask,
};
use tokio::time::timeout;

use super::latency::TargetLatency;
use super::record::wait_for_change;
use super::wire::{Connection, Event, Message, device_name};
use super::{PulseFailure, PulseSettings, SILENT_MAX};
use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::pcm::{PcmSink, SAMPLE_RATE, samples_in_ms};
use crate::status::{DeviceState, Status, StreamSide};

/// More at once is never asked with 80 ms of target; a daemon that asks for seconds gets them in pieces.
const REQUEST_SAMPLES_MAX: usize = samples_in_ms(100);

#[derive(Clone, Debug)]
pub struct PlaybackSettings {
    pub pulse: PulseSettings,
    /// Name of the sink, such as `mic_in`.
    pub sink: String,
}

#[derive(Debug)]
pub struct PulseSink {
    settings: PlaybackSettings,
    connection: Option<Connection>,
    stream: Option<Stream>,
    target: TargetLatency,
    backoff: Backoff,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Stream {
    channel: u32,
    suspended: bool,
    /// Asked for and not delivered yet.
    wanted: usize,
}

impl PulseSink {
    #[must_use]
    pub fn new(settings: PlaybackSettings, status: Arc<Status>, metrics: Arc<Metrics>) -> Self {
        let target = TargetLatency::default();
        Self { settings, connection: None, stream: None, target, backoff: Backoff::daemon(), status, metrics }
    }

    async fn step(&mut self) -> Result<(), PulseFailure> {
        let Some(connection) = &mut self.connection else {
            self.status.device(StreamSide::Playback, DeviceState::Connecting);
            let mut connection = Connection::open(&self.settings.pulse).await?;
            let watched = SubscriptionMask::SINK | SubscriptionMask::MODULE;
            connection.send(&Command::Subscribe(watched)).await?;
            self.connection = Some(connection);
            return Ok(());
        };
        let Some(stream) = &mut self.stream else {
            self.stream = create(connection, &self.settings.sink, self.target.ms()).await?;
            if self.stream.is_some() {
                self.backoff.reset();
                self.metrics.playback_target_ms.set(i64::from(self.target.ms()));
                self.status.device(StreamSide::Playback, DeviceState::Connected);
            } else {
                self.status.device(StreamSide::Playback, DeviceState::WaitingForDevice);
                wait_for_change(connection).await?;
            }
            return Ok(());
        };
        let limit = if stream.suspended { SILENT_MAX * 1000 } else { SILENT_MAX };
        let message = timeout(limit, connection.next()).await.map_err(|_| PulseFailure::Timeout)??;
        if let Message::Event(event) = message {
            self.handle(event).await?;
        }
        Ok(())
    }

    async fn handle(&mut self, event: Event) -> Result<(), PulseFailure> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        match event {
            Event::Request { channel, bytes } if channel == stream.channel => {
                stream.wanted += bytes / 2;
                if self.target.relax(Instant::now()) {
                    self.retarget().await?;
                }
            }
            Event::Underflow { channel } if channel == stream.channel => {
                self.metrics.playback_underflows.inc();
                if self.target.underflowed(Instant::now()) {
                    self.retarget().await?;
                }
            }
            Event::Killed { channel } if channel == stream.channel => self.stream = None,
            Event::Moved { channel } if channel == stream.channel => {
                self.metrics.playback_moved.inc();
                self.stream = None;
                if let Some(connection) = &mut self.connection {
                    connection.send(&Command::DeletePlaybackStream(channel)).await?;
                }
            }
            Event::Suspended { channel, suspended } if channel == stream.channel => {
                stream.suspended = suspended;
                let state = if suspended { DeviceState::Suspended } else { DeviceState::Connected };
                self.status.device(StreamSide::Playback, state);
            }
            Event::Request { .. }
            | Event::Underflow { .. }
            | Event::Killed { .. }
            | Event::Moved { .. }
            | Event::Suspended { .. }
            | Event::Overflow { .. }
            | Event::DevicesChanged => {}
        }
        Ok(())
    }

    async fn retarget(&mut self) -> Result<(), PulseFailure> {
        let (Some(connection), Some(stream)) = (&mut self.connection, &self.stream) else { return Ok(()) };
        let target_ms = self.target.ms();
        tracing::debug!(target_ms, "Changed the buffer of the virtual microphone");
        self.metrics.playback_target_ms.set(i64::from(target_ms));
        let change = SetPlaybackStreamBufferAttrParams {
            index: stream.channel,
            buffer_attr: buffer_attr(target_ms),
            adjust_latency: true,
            early_requests: false,
        };
        connection.send(&Command::SetPlaybackStreamBufferAttr(change)).await?;
        Ok(())
    }

    async fn failed(&mut self, failure: &PulseFailure) {
        self.connection = None;
        self.stream = None;
        self.metrics.pulse_reconnects.inc();
        self.status.device_failed(StreamSide::Playback, failure);
        tokio::time::sleep(self.backoff.next(rand::random())).await;
    }
}

impl PcmSink for PulseSink {
    async fn wanted(&mut self) -> usize {
        loop {
            if let Some(stream) = &mut self.stream
                && stream.wanted > 0
            {
                return stream.wanted.min(REQUEST_SAMPLES_MAX);
            }
            if let Err(failure) = self.step().await {
                self.failed(&failure).await;
            }
        }
    }

    async fn write(&mut self, samples: &[i16]) {
        let (Some(connection), Some(stream)) = (&mut self.connection, &mut self.stream) else { return };
        stream.wanted = stream.wanted.saturating_sub(samples.len());
        if let Err(failure) = connection.send_sound(stream.channel, samples).await {
            self.failed(&failure).await;
        }
    }
}

/// Opens the stream, or `None` when the sink does not exist now.
async fn create(connection: &mut Connection, sink: &str, target_ms: u32) -> Result<Option<Stream>, PulseFailure> {
    let name = device_name(sink);
    let mut props = Props::new();
    props.set(Prop::MediaName, c"Voices of the room");
    let params = PlaybackStreamParams {
        sample_spec: SampleSpec { format: SampleFormat::S16Le, channels: 1, sample_rate: SAMPLE_RATE },
        channel_map: ChannelMap::mono(),
        sink_name: Some(name.clone()),
        buffer_attr: buffer_attr(target_ms),
        flags: StreamFlags { adjust_latency: true, no_move: true, ..StreamFlags::default() },
        props,
        ..PlaybackStreamParams::default()
    };
    let created: CreatePlaybackStreamReply = match connection.call(&Command::CreatePlaybackStream(params)).await {
        Ok(created) => created,
        Err(PulseFailure::Refused(PulseError::NoEntity)) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    if created.sink_name.as_ref() != Some(&name) {
        connection.send(&Command::DeletePlaybackStream(created.channel)).await?;
        return Ok(None);
    }
    tracing::debug!(
        sink,
        target = created.buffer_attr.target_length,
        latency_us = created.stream_latency,
        "Opened the playback stream"
    );
    let wanted = created.requested_bytes as usize / 2;
    Ok(Some(Stream { channel: created.channel, suspended: created.suspended, wanted }))
}

/// Only the target is ours; the daemon derives when to start and how little to ask for.
fn buffer_attr(target_ms: u32) -> BufferAttr {
    BufferAttr { target_length: (samples_in_ms(target_ms) * 2) as u32, ..BufferAttr::default() }
}
