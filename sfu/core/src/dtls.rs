//! The secure channel of a peer as the rest of the core sees it: a handshake that runs behind a small trait, the check of
//! the announced fingerprint, and at the end the SRTP keys. Which library shakes hands is known in `peer` only.

use std::{fmt, time::Instant};

use sha2::{Digest, Sha256, Sha384, Sha512};
use srtp::{Keys, Profile};
use subtle::ConstantTimeEq;

use crate::{Fingerprint, GoneReason};

/// A DTLS endpoint without sockets or clock. After each call of the first three, [`Handshake::poll`] is called until it
/// answers [`Output::Wait`].
pub(crate) trait Handshake: Send {
    fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) -> Result<(), HandshakeFailed>;
    fn handle_timeout(&mut self, now: Instant) -> Result<(), HandshakeFailed>;
    /// Sends close_notify where there is a connection to close.
    fn close(&mut self, now: Instant);
    fn poll<'a>(&mut self, buf: &'a mut [u8]) -> Output<'a>;
    fn version(&self) -> &'static str;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HandshakeFailed;

pub(crate) enum Output<'a> {
    Datagram(&'a [u8]),
    /// Leaf certificate of the peer, DER. Its possession has been proven, its identity has not.
    Certificate(&'a [u8]),
    /// Exported keying material (RFC 5764 section 4.2).
    Keys(Profile, Result<Keys, HandshakeFailed>),
    Connected,
    /// close_notify of the peer.
    Closed,
    /// Something that has no use here.
    Ignored,
    /// The same again with at least so many bytes.
    NeedsBuffer(usize),
    /// Nothing more until this time.
    Wait(Instant),
}

pub(crate) struct Channel {
    handshake: Box<dyn Handshake>,
    fingerprint: Fingerprint,
    /// The peer's certificate has the announced fingerprint.
    trusted: bool,
    state: State,
    wake_at: Option<Instant>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Handshaking,
    Established,
    /// The library gave up after the keys were out. SRTP goes on; ICE consent ends it.
    Broken,
}

/// What a handshake is for.
pub(crate) struct Established {
    pub(crate) keys: Keys,
    pub(crate) profile: Profile,
    pub(crate) version: &'static str,
}

#[derive(Clone, Copy)]
pub(crate) enum Input<'a> {
    Datagram(&'a [u8]),
    Timeout,
    Close,
}

/// Datagrams on their way in or out of an endpoint, back to back. Bounded: what does not fit is lost, as on a network.
#[derive(Default)]
pub(crate) struct Datagrams {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Datagrams {
    /// The longest flight is a chain of certificates and some short records.
    const COUNT_MAX: usize = 16;
    const BYTES_MAX: usize = 16 * 1_024;

    /// `false` when it does not fit.
    pub(crate) fn push(&mut self, datagram: &[u8]) -> bool {
        if self.ends.len() >= Self::COUNT_MAX || self.bytes.len() + datagram.len() > Self::BYTES_MAX {
            return false;
        }
        self.bytes.extend_from_slice(datagram);
        self.ends.push(self.bytes.len());
        true
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// Certificates are the largest things that come out of a handshake; browsers' are below 1 KB.
const BUFFER_MAX: usize = 1 << 16;

impl Channel {
    pub(crate) fn new(handshake: Box<dyn Handshake>, fingerprint: Fingerprint) -> Self {
        Self { handshake, fingerprint, trusted: false, state: State::Handshaking, wake_at: None }
    }

    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// Nothing that comes in changes anything any more.
    pub(crate) fn is_over(&self) -> bool {
        self.state == State::Broken
    }

    /// Feeds one input and drains the outputs. An error ends the peer.
    pub(crate) fn drive(
        &mut self,
        now: Instant,
        input: Input<'_>,
        out: &mut Datagrams,
        buf: &mut Vec<u8>,
    ) -> Result<Option<Established>, GoneReason> {
        if self.state == State::Broken {
            return Ok(None);
        }
        let fed = match input {
            Input::Datagram(datagram) => self.handshake.handle_datagram(now, datagram),
            Input::Timeout => self.handshake.handle_timeout(now),
            Input::Close => {
                self.handshake.close(now);
                Ok(())
            }
        };
        // Drained even after a failure: an alert may wait there.
        match (self.drain(out, buf)?, fed) {
            (None, Err(HandshakeFailed)) => self.fail(),
            (established, _) => Ok(established),
        }
    }

    fn drain(&mut self, out: &mut Datagrams, buf: &mut Vec<u8>) -> Result<Option<Established>, GoneReason> {
        let (mut connected, mut exported) = (false, None);
        loop {
            match self.handshake.poll(buf) {
                // What does not fit is lost like on a network; the handshake repeats it.
                Output::Datagram(datagram) => _ = out.push(datagram),
                Output::Certificate(certificate) => {
                    if !matches(&self.fingerprint, certificate) {
                        return self.end(GoneReason::FingerprintMismatch);
                    }
                    self.trusted = true;
                }
                Output::Keys(profile, Ok(keys)) => exported = Some((profile, keys)),
                Output::Keys(_, Err(HandshakeFailed)) => return self.end(GoneReason::NoSrtpProfile),
                Output::Connected => connected = true,
                Output::Closed => return self.end(GoneReason::Closed),
                Output::Ignored => {}
                Output::NeedsBuffer(len) if len <= BUFFER_MAX => buf.resize(len, 0),
                Output::NeedsBuffer(_) => return self.fail(),
                Output::Wait(at) => {
                    self.wake_at = Some(at);
                    break;
                }
            }
        }
        if !connected {
            return Ok(None);
        }
        match exported {
            Some((profile, keys)) if self.trusted => {
                self.state = State::Established;
                Ok(Some(Established { keys, profile, version: self.handshake.version() }))
            }
            Some(_) => self.end(GoneReason::FingerprintMismatch),
            None => self.end(GoneReason::NoSrtpProfile),
        }
    }

    /// After the keys are out, an error inside DTLS ends DTLS only: a forged record may not end a call.
    fn fail(&mut self) -> Result<Option<Established>, GoneReason> {
        self.wake_at = None;
        if self.state == State::Handshaking {
            return self.end(GoneReason::DtlsFailed);
        }
        self.state = State::Broken;
        Ok(None)
    }

    fn end(&mut self, reason: GoneReason) -> Result<Option<Established>, GoneReason> {
        self.state = State::Broken;
        self.wake_at = None;
        Err(reason)
    }
}

fn matches(announced: &Fingerprint, certificate: &[u8]) -> bool {
    let equal = match announced {
        Fingerprint::Sha256(digest) => digest.ct_eq(Sha256::digest(certificate).as_slice()),
        Fingerprint::Sha384(digest) => digest.ct_eq(Sha384::digest(certificate).as_slice()),
        Fingerprint::Sha512(digest) => digest.ct_eq(Sha512::digest(certificate).as_slice()),
    };
    equal.into()
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Plays back outputs; fails on the datagram `x`.
    struct Script(VecDeque<Step>);

    enum Step {
        Certificate,
        Keys,
        Connected,
        Closed,
        Wait,
    }

    impl Handshake for Script {
        fn handle_datagram(&mut self, _: Instant, datagram: &[u8]) -> Result<(), HandshakeFailed> {
            if datagram == b"x" { Err(HandshakeFailed) } else { Ok(()) }
        }
        fn handle_timeout(&mut self, _: Instant) -> Result<(), HandshakeFailed> {
            Ok(())
        }
        fn close(&mut self, _: Instant) {}
        fn version(&self) -> &'static str {
            "DTLS"
        }
        fn poll<'a>(&mut self, _: &'a mut [u8]) -> Output<'a> {
            let profile = Profile::AeadAes128Gcm;
            match self.0.pop_front() {
                Some(Step::Certificate) => Output::Certificate(b"certificate"),
                Some(Step::Keys) => {
                    Output::Keys(profile, Keys::from_keying_material(profile, &[1; 56]).map_err(|_| HandshakeFailed))
                }
                Some(Step::Connected) => Output::Connected,
                Some(Step::Closed) => Output::Closed,
                Some(Step::Wait) | None => Output::Wait(start()),
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "an origin for made-up time")]
    fn start() -> Instant {
        Instant::now()
    }

    /// What each datagram leads to.
    fn run(steps: Vec<Step>, datagrams: &[&[u8]]) -> Vec<Result<(), GoneReason>> {
        let fingerprint = Fingerprint::Sha256(Sha256::digest(b"certificate").into());
        let mut channel = Channel::new(Box::new(Script(steps.into())), fingerprint);
        let mut out = Datagrams::default();
        let progress = datagrams
            .iter()
            .map(|datagram| channel.drive(start(), Input::Datagram(datagram), &mut out, &mut Vec::new()).map(|_| ()));
        progress.collect()
    }

    #[test]
    fn error_ends_a_handshake_but_not_a_call() {
        assert_eq!(run(vec![Step::Wait], &[b"x"]), [Err(GoneReason::DtlsFailed)]);
        let shaken = vec![Step::Certificate, Step::Connected, Step::Keys, Step::Wait];
        assert_eq!(run(shaken, &[b".", b"x", b"."]), [Ok(()), Ok(()), Ok(())]);
    }

    #[test]
    fn nothing_is_established_without_the_announced_certificate_and_keys() {
        let nameless = vec![Step::Connected, Step::Keys, Step::Wait];
        assert_eq!(run(nameless, &[b"."]), [Err(GoneReason::FingerprintMismatch)]);
        let keyless = vec![Step::Certificate, Step::Connected, Step::Wait];
        assert_eq!(run(keyless, &[b"."]), [Err(GoneReason::NoSrtpProfile)]);
    }

    #[test]
    fn datagrams_keep_their_borders_and_are_bounded() {
        let mut datagrams = Datagrams::default();
        assert!(datagrams.is_empty());
        assert!(datagrams.push(b"one") && datagrams.push(b"") && datagrams.push(b"three"));
        assert_eq!(datagrams.iter().collect::<Vec<_>>(), [&b"one"[..], b"", b"three"]);
        assert!(!datagrams.push(&[0; Datagrams::BYTES_MAX]));
        while datagrams.push(b".") {}
        assert_eq!(datagrams.iter().count(), Datagrams::COUNT_MAX);
    }

    #[test]
    fn close_notify_ends_a_call() {
        let closed = vec![Step::Certificate, Step::Connected, Step::Keys, Step::Wait, Step::Closed];
        assert_eq!(run(closed, &[b".", b"."]), [Ok(()), Err(GoneReason::Closed)]);
    }
}
