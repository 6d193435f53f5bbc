//! A connection to a sound daemon with one stream, and the loop that feeds or drains it. The wire format comes from the
//! `pulseaudio` crate; its own client is not used, because it clears a megabyte for each message, which in a debug build
//! takes longer than 10 ms of sound.

use std::ffi::CString;
use std::io::{BufReader, Read as _};
use std::os::unix::net::UnixStream;

use anyhow::Context as _;
use pulseaudio::protocol::stream::{BufferAttr, StreamFlags};
use pulseaudio::protocol::{self, ChannelMap, Command, SampleFormat, SampleSpec};

const RATE: u32 = 48_000;
const BYTES_PER_MS: u32 = RATE / 1000 * 4;

pub(crate) struct Daemon {
    socket: BufReader<UnixStream>,
    version: u16,
}

pub(crate) struct Playback {
    daemon: Daemon,
    channel: u32,
    /// Asked for when the stream was made.
    wanted: u32,
}

pub(crate) struct Record {
    daemon: Daemon,
}

impl Daemon {
    /// `server` as `unix:PATH`.
    pub(crate) fn connect(server: &str, cookie: &str) -> anyhow::Result<Self> {
        let path = server.strip_prefix("unix:").context("the server is given as unix:PATH")?;
        let cookie = std::fs::read(cookie).with_context(|| format!("no cookie in {cookie}"))?;
        let socket = UnixStream::connect(path).with_context(|| format!("nobody listens at {path}"))?;
        let mut daemon = Self { socket: BufReader::new(socket), version: protocol::MAX_VERSION };
        let auth = protocol::AuthParams {
            version: protocol::MAX_VERSION,
            supports_shm: false,
            supports_memfd: false,
            cookie,
        };
        let reply: protocol::AuthReply = daemon.call(&Command::Auth(auth))?;
        daemon.version = daemon.version.min(reply.version);
        let mut name = protocol::Props::new();
        name.set(protocol::Prop::ApplicationName, c"click");
        let _: protocol::SetClientNameReply = daemon.call(&Command::SetClientName(name))?;
        Ok(daemon)
    }

    fn call<R: protocol::CommandReply>(&mut self, command: &Command) -> anyhow::Result<R> {
        protocol::write_command_message(self.socket.get_mut(), 0, command, self.version)?;
        let (_, reply) = protocol::read_reply_message(&mut self.socket, self.version)?;
        Ok(reply)
    }

    pub(crate) fn playback(mut self, sink: &str) -> anyhow::Result<Playback> {
        let params = protocol::PlaybackStreamParams {
            sample_spec: SPEC,
            channel_map: ChannelMap::stereo(),
            sink_name: Some(CString::new(sink)?),
            buffer_attr: BufferAttr { target_length: 10 * BYTES_PER_MS, ..BufferAttr::default() },
            flags: StreamFlags { adjust_latency: true, ..StreamFlags::default() },
            ..protocol::PlaybackStreamParams::default()
        };
        let stream: protocol::CreatePlaybackStreamReply = self.call(&Command::CreatePlaybackStream(params))?;
        Ok(Playback { daemon: self, channel: stream.channel, wanted: stream.requested_bytes })
    }

    pub(crate) fn record(mut self, source: &str) -> anyhow::Result<Record> {
        let params = protocol::RecordStreamParams {
            sample_spec: SPEC,
            channel_map: ChannelMap::stereo(),
            source_name: Some(CString::new(source)?),
            buffer_attr: BufferAttr { fragment_size: 5 * BYTES_PER_MS, ..BufferAttr::default() },
            flags: StreamFlags { adjust_latency: true, ..StreamFlags::default() },
            ..protocol::RecordStreamParams::default()
        };
        let _: protocol::CreateRecordStreamReply = self.call(&Command::CreateRecordStream(params))?;
        Ok(Record { daemon: self })
    }

    /// The next message: a command, or sound in `sound`.
    fn next(&mut self, sound: &mut Vec<u8>) -> anyhow::Result<Option<Command>> {
        let descriptor = protocol::read_descriptor(&mut self.socket)?;
        if descriptor.channel == u32::MAX {
            return Ok(Some(Command::read_tag_prefixed(&mut self.socket, self.version)?.1));
        }
        sound.resize(descriptor.length as usize, 0);
        self.socket.read_exact(sound)?;
        Ok(None)
    }
}

impl Playback {
    /// Lets `fill` write whatever the daemon asks for, until the connection ends.
    pub(crate) fn run(mut self, fill: impl Fn(&mut [u8])) -> anyhow::Result<()> {
        let mut sound = Vec::new();
        let mut wanted = self.wanted;
        loop {
            if wanted > 0 {
                sound.resize(wanted as usize, 0);
                fill(&mut sound);
                protocol::write_memblock(self.daemon.socket.get_mut(), self.channel, &sound, 0)?;
            }
            wanted = match self.daemon.next(&mut sound)? {
                Some(Command::Request(request)) => request.length,
                Some(_) | None => 0,
            };
        }
    }
}

impl Record {
    /// Gives all sound to `take`, until the connection ends.
    pub(crate) fn run(mut self, take: impl Fn(&[u8])) -> anyhow::Result<()> {
        let mut sound = Vec::new();
        loop {
            if self.daemon.next(&mut sound)?.is_none() {
                take(&sound);
            }
        }
    }
}

const SPEC: SampleSpec = SampleSpec { format: SampleFormat::S16Le, channels: 2, sample_rate: RATE };
