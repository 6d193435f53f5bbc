//! A participant of our own: controlling ICE agent with one candidate, DTLS, SRTP. It shares packages with the node, so
//! what both get wrong together is for the foreign stacks to find.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use sfu_core::{
    Certificate, Command, DtlsRole, HeaderProfile, IceCredentials, Join, Joined, Mid, PeerId, Reply, TrackKind,
};
use srtp::{Half, Keys, OneByteWriter, Opener, Profile, RtpHeader, Sealer};
use stun::{Class, IntegrityKey, Message, Method, TransactionId, Writer};

use super::{Endpoint, World, certificate, join};

/// One RTP packet as a client heard it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Received {
    pub(crate) at: Instant,
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) marker: bool,
    pub(crate) timestamp: u32,
    /// `ROC << 16 | SEQ`.
    pub(crate) index: u64,
    pub(crate) csrcs: Vec<u32>,
    /// RFC 6464 at the client's own extension id.
    pub(crate) level: Option<u8>,
    pub(crate) payload: Vec<u8>,
}

/// What a client does differently from a good one.
#[derive(Clone, Default)]
pub(crate) struct Behaviour {
    pub(crate) wrong_password: bool,
    pub(crate) wrong_ufrag: bool,
    pub(crate) claims_controlled: bool,
    pub(crate) never_nominates: bool,
    pub(crate) no_fingerprint: bool,
    pub(crate) unknown_attribute: bool,
    pub(crate) no_checks: bool,
    /// Keeps each media datagram as it came.
    pub(crate) keeps_datagrams: bool,
    /// The network takes its media away.
    pub(crate) hears_nothing: bool,
}

pub(crate) struct Client {
    pub(crate) id: PeerId,
    pub(crate) address: SocketAddr,
    pub(crate) behaviour: Behaviour,
    pub(crate) profile: HeaderProfile,
    pub(crate) local: IceCredentials,
    pub(crate) joined: Joined,
    pub(crate) received: Vec<Received>,
    pub(crate) rtcp: Vec<Vec<u8>>,
    pub(crate) datagrams: Vec<Vec<u8>>,
    pub(crate) answers: Vec<(Class, Option<u16>)>,
    pub(crate) srtp_profile: Option<Profile>,
    pub(crate) closed: bool,
    pub(crate) failed: bool,
    pub(crate) unopened: usize,
    /// Next packet of each track that it sends.
    pub(crate) streams: Vec<Stream>,
    /// Written into its packets.
    pub(crate) mid: Option<Mid>,
    dtls: dimpl::Dtls,
    dtls_role: DtlsRole,
    dtls_wake: Option<Instant>,
    keys: Option<(Opener, Sealer)>,
    next_check: Instant,
    transactions: u64,
    out: VecDeque<(SocketAddr, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    pub(crate) kind: TrackKind,
    pub(crate) ssrc: u32,
    pub(crate) index: u64,
    pub(crate) timestamp: u32,
}

impl Client {
    /// Joins the room as it likes; `change` edits the join of a usual client.
    pub(crate) fn join(world: &mut World, id: u64, change: impl FnOnce(&mut Join)) -> Self {
        Self::with_certificate(world, id, &certificate(), change)
    }

    pub(crate) fn with_behaviour(
        world: &mut World,
        id: u64,
        behaviour: Behaviour,
        change: impl FnOnce(&mut Join),
    ) -> Self {
        let mut client = Self::with_certificate(world, id, &certificate(), change);
        client.behaviour = behaviour;
        client
    }

    pub(crate) fn with_certificate(
        world: &mut World,
        id: u64,
        certificate: &Certificate,
        change: impl FnOnce(&mut Join),
    ) -> Self {
        let local = IceCredentials { ufrag: format!("cl{id:04}"), pwd: format!("{id:024}") };
        let mut join = join(id, local.clone(), certificate.fingerprint());
        change(&mut join);
        let (profile, node_role) = (join.profile, join.dtls_role);
        let streams = join.tracks.iter().map(|track| Stream {
            kind: track.kind,
            ssrc: track.ssrc.map_or(5_000 + id as u32, |ssrc| ssrc.0),
            index: 100,
            timestamp: 90_000,
        });
        let streams = streams.collect();
        let joined = world.join(join);
        let config = Arc::new(dimpl::Config::builder().build().unwrap());
        let identity = dimpl::DtlsCertificate {
            certificate: certificate.certificate_der.clone(),
            private_key: certificate.private_key_der.clone(),
        };
        let mut dtls = dimpl::Dtls::new_auto(config, identity, world.now);
        let dtls_role = if node_role == DtlsRole::Server { DtlsRole::Client } else { DtlsRole::Server };
        dtls.set_active(dtls_role == DtlsRole::Client);
        Self {
            id: PeerId(id),
            address: ([192, 0, 2, (id % 250) as u8 + 1], 10_000 + (id / 250) as u16).into(),
            behaviour: Behaviour::default(),
            profile,
            local,
            joined,
            received: Vec::new(),
            rtcp: Vec::new(),
            datagrams: Vec::new(),
            answers: Vec::new(),
            srtp_profile: None,
            closed: false,
            failed: false,
            unopened: 0,
            streams,
            mid: None,
            dtls,
            dtls_role,
            dtls_wake: None,
            keys: None,
            next_check: world.now,
            transactions: 0,
            out: VecDeque::new(),
        }
    }

    /// Joins and runs until media can flow.
    pub(crate) fn connected(world: &mut World, id: u64, change: impl FnOnce(&mut Join)) -> Self {
        let mut client = Self::join(world, id, change);
        world.run(Duration::from_millis(50), &mut [&mut client]);
        assert!(client.is_connected(), "client {id} did not connect");
        client
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.keys.is_some()
    }

    pub(crate) fn restart_ice(&mut self, world: &mut World) {
        self.local = IceCredentials { ufrag: format!("{}x", self.local.ufrag), pwd: format!("{}x", self.local.pwd) };
        let command = Command::RestartIce { peer: self.id, remote: self.local.clone() };
        match world.command(command) {
            Reply::Restarted { local } => self.joined.local_ice = local,
            other => panic!("{other:?}"),
        }
        self.next_check = world.now;
    }

    /// The next packet of its first track.
    pub(crate) fn speak(&mut self, payload: &[u8]) {
        self.send(0, payload, Some(20), false);
    }

    pub(crate) fn send(&mut self, stream: usize, payload: &[u8], level: Option<u8>, marker: bool) {
        let payload_type = self.profile.opus;
        self.send_as(stream, payload_type, payload, level, marker);
    }

    pub(crate) fn send_as(
        &mut self,
        stream: usize,
        payload_type: u8,
        payload: &[u8],
        level: Option<u8>,
        marker: bool,
    ) {
        let Stream { ssrc, index, timestamp, .. } = self.streams[stream];
        self.streams[stream].index += 1;
        self.streams[stream].timestamp = timestamp.wrapping_add(960);
        let packet = self.packet((payload_type, marker), (index, timestamp, ssrc), level, payload);
        self.out.push_back((self.address, packet));
    }

    /// A sealed packet, without sending it.
    pub(crate) fn packet(
        &mut self,
        (payload_type, marker): (u8, bool),
        (index, timestamp, ssrc): (u64, u32, u32),
        level: Option<u8>,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut buf = vec![0; 1_600];
        buf[0] = 0x80;
        buf[1] = payload_type | u8::from(marker) << 7;
        buf[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        buf[4..8].copy_from_slice(&timestamp.to_be_bytes());
        buf[8..12].copy_from_slice(&ssrc.to_be_bytes());
        let mut header_len = 12;
        let level = level.zip(self.profile.audio_level);
        let mid = self.mid.zip(self.profile.mid);
        if level.is_some() || mid.is_some() {
            buf[0] |= 0x10;
            let mut extensions = OneByteWriter::new(&mut buf[12..]).unwrap();
            if let Some((level, id)) = level {
                extensions.push(id, &[level]).unwrap();
            }
            if let Some((mid, id)) = mid {
                extensions.push(id, mid.as_bytes()).unwrap();
            }
            header_len += extensions.finish().unwrap();
        }
        buf[header_len..header_len + payload.len()].copy_from_slice(payload);
        self.seal(buf, header_len, header_len + payload.len(), index)
    }

    /// Seals any bytes as RTP.
    pub(crate) fn seal(&mut self, mut buf: Vec<u8>, header_len: usize, len: usize, index: u64) -> Vec<u8> {
        buf.resize(len + 40, 0);
        let (_, sealer) = self.keys.as_mut().expect("connected");
        let sealed = sealer.seal_rtp(&mut buf, header_len, len, index).unwrap();
        buf.truncate(sealed);
        buf
    }

    pub(crate) fn send_rtcp(&mut self, compound: &[u8]) {
        let mut buf = compound.to_vec();
        buf.resize(compound.len() + 40, 0);
        let (_, sealer) = self.keys.as_mut().expect("connected");
        let sealed = sealer.seal_rtcp(&mut buf, compound.len()).unwrap();
        buf.truncate(sealed);
        self.out.push_back((self.address, buf));
    }

    pub(crate) fn send_raw(&mut self, datagram: Vec<u8>) {
        self.out.push_back((self.address, datagram));
    }

    pub(crate) fn close(&mut self, now: Instant) {
        self.dtls.handle_timeout(now).unwrap();
        self.dtls.close().unwrap();
        self.poll_dtls();
    }

    /// The slot's SSRC, from the answer.
    pub(crate) fn slot(&self, kind: TrackKind, index: u8) -> u32 {
        self.joined.slots.iter().find(|slot| (slot.kind, slot.index) == (kind, index)).unwrap().ssrc.0
    }

    pub(crate) fn track(&self, kind: TrackKind) -> u32 {
        self.joined.tracks.iter().find(|track| track.kind == kind).unwrap().track.0
    }

    pub(crate) fn heard(&self) -> Vec<&[u8]> {
        self.received.iter().map(|packet| &packet.payload[..]).collect()
    }

    pub(crate) fn check(&mut self) -> Vec<u8> {
        self.transactions += 1;
        let mut id = [0; 12];
        id[..8].copy_from_slice(&self.transactions.to_be_bytes());
        id[8..].copy_from_slice(&(self.id.0 as u32).to_be_bytes());
        let mut buf = vec![0; 400];
        let mut writer = Writer::new(&mut buf, Class::Request, Method::BINDING, TransactionId(id)).unwrap();
        let remote = &self.joined.local_ice;
        let ours = if self.behaviour.wrong_ufrag { "nobody" } else { &self.local.ufrag };
        writer.username(format!("{}:{ours}", remote.ufrag).as_bytes()).unwrap();
        writer.priority(1 << 24).unwrap();
        if self.behaviour.claims_controlled {
            writer.ice_controlled(1).unwrap();
        } else {
            writer.ice_controlling(1).unwrap();
        }
        if !self.behaviour.never_nominates {
            writer.use_candidate().unwrap();
        }
        if self.behaviour.unknown_attribute {
            writer.attribute(stun::AttributeType(0x7abc), &[1]).unwrap();
        }
        let password = if self.behaviour.wrong_password { "not the password of anybody" } else { &remote.pwd };
        let key = IntegrityKey::short_term(password.as_bytes());
        let len = writer.finish(Some(&key), !self.behaviour.no_fingerprint).unwrap();
        buf.truncate(len);
        buf
    }

    fn receive_stun(&mut self, datagram: &[u8]) {
        let message = Message::parse(datagram).unwrap();
        let key = IntegrityKey::short_term(self.joined.local_ice.pwd.as_bytes());
        if message.verify_integrity(&key).is_err() {
            return;
        }
        assert!(message.has_fingerprint());
        self.answers.push((message.class(), message.error_code().map(|error| error.code)));
        if message.class() == Class::Success {
            assert_eq!(message.xor_mapped_address(), Some(self.address));
            if self.dtls_role == DtlsRole::Client {
                self.poll_dtls();
            }
        }
    }

    fn poll_dtls(&mut self) {
        let mut buf = vec![0; 4_096];
        loop {
            match self.dtls.poll_output(&mut buf) {
                dimpl::Output::Packet(datagram) => self.out.push_back((self.address, datagram.to_vec())),
                dimpl::Output::KeyingMaterial(material, profile) => {
                    let profile = match profile {
                        dimpl::SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
                        dimpl::SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
                        _ => Profile::Aes128CmHmacSha1_80,
                    };
                    self.install(profile, &Keys::from_keying_material(profile, &material).unwrap());
                }
                dimpl::Output::CloseNotify => self.closed = true,
                dimpl::Output::Timeout(at) => {
                    self.dtls_wake = Some(at);
                    break;
                }
                _ => {}
            }
        }
    }

    fn install(&mut self, profile: Profile, keys: &Keys) {
        let (ours, theirs): (&Half, &Half) = match self.dtls_role {
            DtlsRole::Client => (&keys.client, &keys.server),
            DtlsRole::Server => (&keys.server, &keys.client),
        };
        self.srtp_profile = Some(profile);
        self.keys = Some((Opener::new(profile, theirs, 64).unwrap(), Sealer::new(profile, ours).unwrap()));
    }

    fn receive_media(&mut self, now: Instant, datagram: &[u8]) {
        let Some((opener, _)) = &mut self.keys else { return };
        let mut packet = datagram.to_vec();
        if (192..=223).contains(&packet[1]) {
            let len = opener.open_rtcp(&mut packet).expect("authentic report");
            packet.truncate(len);
            return self.rtcp.push(packet);
        }
        if self.behaviour.keeps_datagrams {
            self.datagrams.push(datagram.to_vec());
        }
        if self.behaviour.hears_nothing {
            return;
        }
        let header = RtpHeader::parse(&packet).unwrap();
        let Ok(opened) = opener.open_rtp(&mut packet, &header) else {
            self.unopened += 1;
            return;
        };
        packet.truncate(opened.len);
        let payload = header.payload(&packet).unwrap();
        let level = self.profile.audio_level.and_then(|id| header.extension_value(&packet, id));
        self.received.push(Received {
            at: now,
            ssrc: header.ssrc,
            payload_type: header.payload_type,
            marker: header.marker,
            timestamp: header.timestamp,
            index: opened.index,
            csrcs: header.csrcs(&packet).collect(),
            level: level.map(|value| value[0]),
            payload: packet[payload].to_vec(),
        });
    }
}

impl Endpoint for Client {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn receive(&mut self, now: Instant, datagram: &[u8]) {
        match datagram[0] {
            0..=3 => self.receive_stun(datagram),
            20..=63 => {
                let fed = self.dtls.handle_timeout(now).and_then(|()| self.dtls.handle_packet(datagram));
                self.failed |= fed.is_err();
                self.poll_dtls();
            }
            _ => self.receive_media(now, datagram),
        }
    }

    fn timeout(&mut self, now: Instant) {
        if self.dtls_wake.is_some_and(|at| at <= now) && !self.failed {
            self.failed |= self.dtls.handle_timeout(now).is_err();
            self.poll_dtls();
        }
    }

    fn transmit(&mut self, now: Instant) -> Option<(SocketAddr, Vec<u8>)> {
        if now >= self.next_check && !self.behaviour.no_checks {
            self.next_check = now + Duration::from_secs(1);
            if self.dtls_wake.is_none() {
                self.dtls.handle_timeout(now).unwrap();
            }
            let check = self.check();
            self.out.push_back((self.address, check));
        }
        self.out.pop_front()
    }
}
