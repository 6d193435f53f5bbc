//! One connection to the daemon: connect, authenticate, frame messages. The reactor is the caller's task: it awaits
//! [`Connection::next`] and answers. No threads, no callbacks, no shared memory (a desktop is often another container).
//!
//! ```text
//! | length u32 | channel u32 | offset u64 | flags u32 |  payload ... |      all big-endian
//!   channel ffffffff: a command (tag, sequence, arguments); else sound of that stream
//! ```

use std::ffi::CString;
use std::io::Cursor;
use std::time::Duration;

use pulseaudio::protocol::{
    self, AuthParams, AuthReply, Command, CommandReply, DESCRIPTOR_SIZE, Descriptor, DescriptorFlags, Prop, Props,
    ProtocolError, PulseError, SetClientNameReply, TagStructReader,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::cookie::Cookie;
use super::{PulseFailure, PulseSettings, REPLY_TIMEOUT, ServerAddress};

/// Commands are below 64 KiB; sound comes in blocks of the daemon's memory pool, 64 KiB by default.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Room for 80 ms of stereo sound in one read.
const READ_BYTES: usize = 16 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The daemon reads at once or hangs.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Not a stream: commands.
const CONTROL_CHANNEL: u32 = u32::MAX;

/// What the daemon sent.
#[derive(Debug)]
pub enum Message<'a> {
    Reply {
        sequence: u32,
        body: &'a [u8],
    },
    Error {
        sequence: u32,
        error: PulseError,
    },
    Event(Event),
    Sound {
        channel: u32,
        bytes: &'a [u8],
    },
    /// A command that is none of our business.
    Unknown,
}

/// What the daemon tells without being asked. `channel` is the stream; record and playback streams are numbered apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A playback stream wants this much more.
    Request {
        channel: u32,
        bytes: usize,
    },
    Underflow {
        channel: u32,
    },
    Overflow {
        channel: u32,
    },
    Killed {
        channel: u32,
    },
    Moved {
        channel: u32,
    },
    Suspended {
        channel: u32,
        suspended: bool,
    },
    /// A device came, went or changed.
    DevicesChanged,
}

pub struct Connection {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    writer: Box<dyn AsyncWrite + Send + Unpin>,
    version: u16,
    sequence: u32,
    /// Bytes `start..end` are read and not consumed.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    outgoing: Vec<u8>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("version", &self.version).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, authenticates and introduces us.
    pub async fn open(settings: &PulseSettings) -> Result<Self, PulseFailure> {
        let cookie = Cookie::load(&settings.cookie)?;
        let mut connection = timeout(CONNECT_TIMEOUT, Self::connect(&settings.server))
            .await
            .map_err(|_| PulseFailure::Timeout)?
            .map_err(|source| PulseFailure::Connect { server: settings.server.clone(), source })?;
        let auth = AuthParams {
            version: protocol::MAX_VERSION,
            supports_shm: false,
            supports_memfd: false,
            cookie: cookie.bytes().to_vec(),
        };
        let reply: AuthReply = connection.call(&Command::Auth(auth)).await?;
        if reply.version < protocol::MIN_VERSION {
            return Err(PulseFailure::Protocol(ProtocolError::UnsupportedVersion(reply.version)));
        }
        connection.version = reply.version.min(protocol::MAX_VERSION);
        let mut properties = Props::new();
        properties.set(Prop::ApplicationName, c"Carillon audio-bridge");
        connection.call::<SetClientNameReply>(&Command::SetClientName(properties)).await?;
        Ok(connection)
    }

    async fn connect(server: &ServerAddress) -> std::io::Result<Self> {
        match server {
            ServerAddress::Unix(path) => {
                let (reader, writer) = UnixStream::connect(path).await?.into_split();
                Ok(Self::over(Box::new(reader), Box::new(writer)))
            }
            ServerAddress::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                // 10 ms of sound must not wait for the acknowledgement of the last.
                stream.set_nodelay(true)?;
                let (reader, writer) = stream.into_split();
                Ok(Self::over(Box::new(reader), Box::new(writer)))
            }
        }
    }

    fn over(reader: Box<dyn AsyncRead + Send + Unpin>, writer: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self {
            reader,
            writer,
            version: protocol::MAX_VERSION,
            sequence: 0,
            buffer: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            outgoing: Vec::new(),
        }
    }

    /// Sends a command and waits for its reply; events that come first are ignored, so streams must not be open yet or
    /// the caller must not mind.
    pub async fn call<R: CommandReply>(&mut self, command: &Command) -> Result<R, PulseFailure> {
        let version = self.version;
        self.exchange(command, |body| TagStructReader::new(&mut Cursor::new(body), version).read()).await
    }

    /// As [`call`](Self::call), for commands whose reply is empty.
    pub async fn call_for_ack(&mut self, command: &Command) -> Result<(), PulseFailure> {
        self.exchange(command, |_| Ok(())).await
    }

    async fn exchange<R>(
        &mut self,
        command: &Command,
        read: impl FnOnce(&[u8]) -> Result<R, ProtocolError>,
    ) -> Result<R, PulseFailure> {
        let asked = self.send(command).await?;
        timeout(REPLY_TIMEOUT, async {
            loop {
                match self.next().await? {
                    Message::Reply { sequence, body } if sequence == asked => return Ok(read(body)?),
                    Message::Error { sequence, error } if sequence == asked => {
                        return Err(ProtocolError::ServerError(error).into());
                    }
                    Message::Reply { .. }
                    | Message::Error { .. }
                    | Message::Event(_)
                    | Message::Sound { .. }
                    | Message::Unknown => {}
                }
            }
        })
        .await
        .map_err(|_| PulseFailure::Timeout)?
    }

    /// Sends a command without waiting; its sequence number is in the reply.
    pub async fn send(&mut self, command: &Command) -> Result<u32, PulseFailure> {
        self.sequence = self.sequence.wrapping_add(1);
        self.outgoing.clear();
        protocol::encode_command_message(&mut self.outgoing, self.sequence, command, self.version)?;
        self.flush().await?;
        Ok(self.sequence)
    }

    /// Sends sound to a playback stream.
    pub async fn send_sound(&mut self, channel: u32, samples: &[i16]) -> Result<(), PulseFailure> {
        let mut head = [0; DESCRIPTOR_SIZE];
        let bytes = samples.len() * 2;
        let length = u32::try_from(bytes).map_err(|_| PulseFailure::Oversized(bytes))?;
        let descriptor = Descriptor { length, channel, offset: 0, flags: DescriptorFlags::empty() };
        protocol::encode_descriptor(&mut head, &descriptor);
        self.outgoing.clear();
        self.outgoing.extend_from_slice(&head);
        self.outgoing.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), PulseFailure> {
        let write = self.writer.write_all(&self.outgoing);
        Ok(timeout(WRITE_TIMEOUT, write).await.map_err(|_| PulseFailure::Timeout)??)
    }

    /// Waits for the next message. May be cancelled: what was read so far stays.
    pub async fn next(&mut self) -> Result<Message<'_>, PulseFailure> {
        let descriptor = self.fill().await?;
        let payload = self.start + DESCRIPTOR_SIZE..self.start + DESCRIPTOR_SIZE + descriptor.length as usize;
        self.start = payload.end;
        if descriptor.channel != CONTROL_CHANNEL {
            return Ok(Message::Sound { channel: descriptor.channel, bytes: &self.buffer[payload] });
        }
        parse_command(&self.buffer[payload], self.version)
    }

    /// Reads until a whole message is at the front.
    async fn fill(&mut self) -> Result<Descriptor, PulseFailure> {
        loop {
            let needed = match self.buffer[self.start..self.end].first_chunk::<DESCRIPTOR_SIZE>() {
                Some(head) => {
                    let descriptor = protocol::read_descriptor(&mut Cursor::new(head))?;
                    let length = descriptor.length as usize;
                    if length > PAYLOAD_BYTES_MAX {
                        return Err(PulseFailure::Oversized(length));
                    }
                    if self.end - self.start >= DESCRIPTOR_SIZE + length {
                        return Ok(descriptor);
                    }
                    DESCRIPTOR_SIZE + length
                }
                None => DESCRIPTOR_SIZE,
            };
            self.make_room(needed);
            let read = self.reader.read(&mut self.buffer[self.end..]).await?;
            if read == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            self.end += read;
        }
    }

    /// Moves what is read to the front and makes the buffer large enough for a message of `needed` bytes.
    fn make_room(&mut self, needed: usize) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < needed.max(self.end + 1) {
            self.buffer.resize(needed.next_multiple_of(READ_BYTES), 0);
        }
    }
}

fn parse_command(payload: &[u8], version: u16) -> Result<Message<'_>, PulseFailure> {
    let mut cursor = Cursor::new(payload);
    match Command::read_tag_prefixed(&mut cursor, version) {
        Ok((sequence, Command::Reply)) => {
            let body = payload.get(cursor.position() as usize..).unwrap_or_default();
            Ok(Message::Reply { sequence, body })
        }
        Ok((sequence, Command::Error(error))) => Ok(Message::Error { sequence, error }),
        Ok((_, command)) => Ok(event_of(&command).map_or(Message::Unknown, Message::Event)),
        Err(ProtocolError::Unimplemented(..) | ProtocolError::UnexpectedCommand(_)) => Ok(Message::Unknown),
        Err(error) => Err(PulseFailure::Protocol(error)),
    }
}

/// The "stream index" of the protocol's events is the channel.
#[expect(clippy::wildcard_enum_match_arm, reason = "a hundred commands, most of them only sent by clients")]
fn event_of(command: &Command) -> Option<Event> {
    Some(match command {
        Command::Request(request) => Event::Request { channel: request.channel, bytes: request.length as usize },
        Command::Underflow(underflow) => Event::Underflow { channel: underflow.channel },
        Command::Overflow(channel) => Event::Overflow { channel: *channel },
        Command::RecordStreamKilled(channel) | Command::PlaybackStreamKilled(channel) => {
            Event::Killed { channel: *channel }
        }
        Command::RecordStreamMoved(moved) => Event::Moved { channel: moved.stream_index },
        Command::PlaybackStreamMoved(moved) => Event::Moved { channel: moved.stream_index },
        Command::RecordStreamSuspended(change) | Command::PlaybackStreamSuspended(change) => {
            Event::Suspended { channel: change.stream_index, suspended: change.suspended }
        }
        Command::SubscribeEvent(_) => Event::DevicesChanged,
        _ => return None,
    })
}

/// A device name as the protocol wants it. Names with a zero byte do not exist.
pub(super) fn device_name(name: &str) -> CString {
    CString::new(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reading(bytes: Vec<u8>) -> Connection {
        Connection::over(Box::new(Cursor::new(bytes)), Box::new(tokio::io::sink()))
    }

    fn message(channel: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        protocol::write_memblock(&mut bytes, channel, payload, 0).expect("writes");
        bytes
    }

    #[tokio::test]
    async fn sound_and_events_are_told_apart() {
        let mut bytes = message(3, &[1, 2, 3, 4]);
        bytes.extend(message(3, &[9; 40_000]));
        protocol::write_command_message(&mut bytes, 7, &Command::Overflow(3), protocol::MAX_VERSION).expect("writes");
        let mut connection = reading(bytes);
        assert!(matches!(connection.next().await, Ok(Message::Sound { channel: 3, bytes: [1, 2, 3, 4] })));
        assert!(matches!(connection.next().await, Ok(Message::Sound { channel: 3, bytes }) if bytes.len() == 40_000));
        assert!(matches!(connection.next().await, Ok(Message::Event(Event::Overflow { channel: 3 }))));
        assert!(matches!(connection.next().await, Err(PulseFailure::Lost(_))));
    }

    #[tokio::test]
    async fn a_length_that_would_eat_the_memory_is_refused() {
        let mut bytes = message(3, &[]);
        bytes[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(reading(bytes).next().await, Err(PulseFailure::Oversized(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), control: bool) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
            let bytes = if control { message(CONTROL_CHANNEL, &bytes) } else { bytes };
            runtime.block_on(async {
                let mut connection = reading(bytes);
                while connection.next().await.is_ok() {}
            });
        }
    }
}
