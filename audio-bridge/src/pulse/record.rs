//! The capture stream. There is exactly one, open as long as the daemon is there, listeners or none: an idle null sink
//! works in blocks of two seconds, and only a low-latency stream that is always attached makes the first sound of the
//! desktop come in milliseconds.
//!
//! It captures the named source and nothing else: when that device goes away the daemon would gladly move the stream
//! to the default source, which is the microphone with the users' own voices. So moving is forbidden, a move that
//! happens all the same ends the stream, and the name is looked up again until it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use pulseaudio::protocol::stream::{BufferAttr, StreamFlags};
use pulseaudio::protocol::{
    ChannelMap, Command, CreateRecordStreamReply, Prop, Props, PulseError, RecordStreamParams, SampleFormat,
    SampleSpec, SetRecordStreamBufferAttrParams, SubscriptionMask,
};
use tokio::time::timeout;

use super::pieces::Pieces;
use super::wake;
use super::wire::{Connection, Event, Message, device_name};
use super::{DEVICE_POLL, PulseFailure, PulseSettings, SILENT_MAX};
use crate::backoff::Backoff;
use crate::metrics::Metrics;
use crate::pcm::{CAPTURE_CHANNELS, Captured, PcmSource, SAMPLE_RATE};
use crate::status::{DeviceState, Status, StreamSide};

/// What the source needs to know.
#[derive(Clone, Debug)]
pub struct RecordSettings {
    pub pulse: PulseSettings,
    /// Name of the source, such as `desktop.monitor`.
    pub source: String,
    /// The daemon is asked to deliver this much at a time, or less for a program that wants little delay; may change.
    pub fragment_ms: Arc<AtomicU32>,
}

#[derive(Debug)]
pub struct PulseSource {
    settings: RecordSettings,
    connection: Option<Connection>,
    stream: Option<Stream>,
    backoff: Backoff,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Stream {
    channel: u32,
    suspended: bool,
    /// Suspension is our own doing until the first sound.
    waking: bool,
    /// Asked for at a time, in samples per channel.
    fragment: usize,
    pieces: Pieces,
}

impl PulseSource {
    #[must_use]
    pub fn new(settings: RecordSettings, status: Arc<Status>, metrics: Arc<Metrics>) -> Self {
        Self { settings, connection: None, stream: None, backoff: Backoff::daemon(), status, metrics }
    }

    /// Goes one step further: a connection, then a stream, then sound. `None`: call again.
    async fn step(&mut self, samples: &mut Vec<i16>) -> Result<Option<Captured>, PulseFailure> {
        let Some(connection) = &mut self.connection else {
            self.status.device(StreamSide::Capture, DeviceState::Connecting);
            let mut connection = Connection::open(&self.settings.pulse).await?;
            let watched = SubscriptionMask::SOURCE | SubscriptionMask::SINK | SubscriptionMask::MODULE;
            connection.send(&Command::Subscribe(watched)).await?;
            self.connection = Some(connection);
            return Ok(None);
        };
        let Some(stream) = &mut self.stream else {
            self.stream = create(connection, &self.settings).await?;
            if self.stream.is_some() {
                self.backoff.reset();
                self.status.device(StreamSide::Capture, DeviceState::Connected);
                let sink = self.settings.source.strip_suffix(".monitor");
                if let (Some(sink), Some(stream)) = (sink, self.stream.as_mut().filter(|stream| !stream.suspended)) {
                    stream.waking = true;
                    tokio::spawn(wake(self.settings.pulse.clone(), sink.to_owned()));
                }
            } else {
                self.status.device(StreamSide::Capture, DeviceState::WaitingForDevice);
                wait_for_change(connection).await?;
            }
            return Ok(None);
        };
        let fragment = stream.pieces.samples(self.settings.fragment_ms.load(Ordering::Relaxed));
        if stream.fragment != fragment {
            stream.fragment = fragment;
            let index = stream.channel;
            let buffer_attr = buffer_attr(fragment);
            let change =
                SetRecordStreamBufferAttrParams { index, buffer_attr, adjust_latency: true, early_requests: false };
            connection.send(&Command::SetRecordStreamBufferAttr(change)).await?;
        }
        let limit = if stream.suspended { SILENT_MAX * 1000 } else { SILENT_MAX };
        let message = timeout(limit, connection.next()).await.map_err(|_| PulseFailure::Timeout)??;
        match message {
            Message::Sound { channel, bytes } if channel == stream.channel => {
                stream.waking = false;
                let at = Instant::now();
                samples.extend(bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])));
                stream.pieces.arrived(bytes.len() / (2 * CAPTURE_CHANNELS));
                self.metrics.capture_chunk_ms.observe(bytes.len() as f64 / (2 * CAPTURE_CHANNELS * 48) as f64);
                Ok(Some(Captured::Chunk { at }))
            }
            Message::Event(event) => self.handle(event).await,
            Message::Sound { .. } | Message::Reply { .. } | Message::Error { .. } | Message::Unknown => Ok(None),
        }
    }

    async fn handle(&mut self, event: Event) -> Result<Option<Captured>, PulseFailure> {
        let (Some(connection), Some(stream)) = (&mut self.connection, &mut self.stream) else { return Ok(None) };
        match event {
            Event::Moved { channel } if channel == stream.channel => {
                self.metrics.capture_moved.inc();
                tracing::warn!(source = %self.settings.source, "Daemon moved the capture stream; it is closed");
                connection.send(&Command::DeleteRecordStream(channel)).await?;
                self.stream = None;
                Ok(Some(Captured::Lost))
            }
            Event::Killed { channel } if channel == stream.channel => {
                self.metrics.capture_killed.inc();
                self.stream = None;
                Ok(Some(Captured::Lost))
            }
            Event::Suspended { channel, suspended } if channel == stream.channel => {
                stream.suspended = suspended;
                if stream.waking {
                    return Ok(None);
                }
                let state = if suspended { DeviceState::Suspended } else { DeviceState::Connected };
                self.status.device(StreamSide::Capture, state);
                Ok(None)
            }
            Event::Overflow { channel } if channel == stream.channel => {
                self.metrics.capture_overflows.inc();
                Ok(None)
            }
            Event::Moved { .. }
            | Event::Killed { .. }
            | Event::Suspended { .. }
            | Event::Overflow { .. }
            | Event::Request { .. }
            | Event::Underflow { .. }
            | Event::DevicesChanged => Ok(None),
        }
    }
}

impl PcmSource for PulseSource {
    async fn read(&mut self, samples: &mut Vec<i16>) -> Captured {
        loop {
            match self.step(samples).await {
                Ok(Some(captured)) => return captured,
                Ok(None) => {}
                Err(failure) => {
                    let had_stream = self.stream.take().is_some();
                    self.connection = None;
                    self.metrics.pulse_reconnects.inc();
                    self.status.device_failed(StreamSide::Capture, &failure);
                    tokio::time::sleep(self.backoff.next(rand::random())).await;
                    if had_stream {
                        return Captured::Lost;
                    }
                }
            }
        }
    }
}

/// Makes the monitored sink deliver now instead of within two seconds. Without it everything works, later.
async fn wake(pulse: PulseSettings, sink: String) {
    if let Err(failure) = wake::wake(&pulse, &sink).await {
        tracing::debug!(%failure, sink, "Could not wake the sink");
    }
}

/// Opens the stream, or `None` when the source does not exist now.
async fn create(connection: &mut Connection, settings: &RecordSettings) -> Result<Option<Stream>, PulseFailure> {
    let name = device_name(&settings.source);
    let mut props = Props::new();
    props.set(Prop::MediaName, c"Desktop sound");
    let pieces = Pieces::default();
    let fragment = pieces.samples(settings.fragment_ms.load(Ordering::Relaxed));
    let params = RecordStreamParams {
        sample_spec: SampleSpec {
            format: SampleFormat::S16Le,
            channels: CAPTURE_CHANNELS as u8,
            sample_rate: SAMPLE_RATE,
        },
        channel_map: ChannelMap::stereo(),
        source_name: Some(name.clone()),
        buffer_attr: buffer_attr(fragment),
        flags: StreamFlags { adjust_latency: true, no_move: true, ..StreamFlags::default() },
        props,
        ..RecordStreamParams::default()
    };
    let created: CreateRecordStreamReply = match connection.call(&Command::CreateRecordStream(params)).await {
        Ok(created) => created,
        Err(PulseFailure::Refused(PulseError::NoEntity)) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    if created.sink_name.as_ref() != Some(&name) {
        connection.send(&Command::DeleteRecordStream(created.channel)).await?;
        return Ok(None);
    }
    tracing::debug!(
        source = %settings.source,
        fragment = created.buffer_attr.fragment_size,
        latency_us = created.stream_latency,
        "Opened the capture stream"
    );
    let (channel, suspended) = (created.channel, created.suspended);
    Ok(Some(Stream { channel, suspended, waking: false, fragment, pieces }))
}

/// For recording only the fragment and the whole count; the rest keeps "server decides".
fn buffer_attr(fragment: usize) -> BufferAttr {
    let fragment_size = (fragment * CAPTURE_CHANNELS * 2) as u32;
    BufferAttr { fragment_size, ..BufferAttr::default() }
}

/// Waits until the set of devices changed, or a moment.
pub(super) async fn wait_for_change(connection: &mut Connection) -> Result<(), PulseFailure> {
    let change = async {
        loop {
            if let Message::Event(Event::DevicesChanged) = connection.next().await? {
                return Ok(());
            }
        }
    };
    timeout(DEVICE_POLL, change).await.unwrap_or(Ok(()))
}
