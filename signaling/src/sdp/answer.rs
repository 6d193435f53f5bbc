//! Writes the answer to a checked offer.

use std::fmt::Write as _;

use sfu_control::{Candidate, DtlsRole, Fingerprint, HeaderProfile, IceParameters, Protocol, SlotInfo, TrackKind};

use super::offer::{Offer, Section, Service, Track};
use super::{URI_AUDIO_LEVEL, URI_MID};

/// The node's side of the transport.
#[derive(Clone, Debug, PartialEq)]
pub struct Transport {
    pub ice: IceParameters,
    pub fingerprint: Fingerprint,
    pub dtls_role: DtlsRole,
    /// Best first.
    pub candidates: Vec<Candidate>,
}

/// `o=`: stays the same through a connection, the version counts its answers (RFC 8829 section 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub session_id: u64,
    pub version: u64,
}

/// Music through Opus at this rate loses nothing that the measurements could show; browsers would take 32 kbit/s.
const PROGRAM_BITRATE: u32 = 128_000;

/// One answer line for each offer line, all accepted ones in one bundle.
#[must_use]
pub fn write_answer(offer: &Offer, transport: &Transport, slots: &[SlotInfo], origin: Origin) -> String {
    let mut writer =
        Writer { offer, transport, slots, sdp: String::with_capacity(1024 + 512 * offer.sections.len()) };
    writer.session(origin);
    for section in &offer.sections {
        writer.section(section);
    }
    writer.sdp
}

struct Writer<'a> {
    offer: &'a Offer,
    transport: &'a Transport,
    slots: &'a [SlotInfo],
    sdp: String,
}

impl Writer<'_> {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing into a string cannot fail.
        let _ = self.sdp.write_fmt(line);
        self.sdp.push_str("\r\n");
    }

    fn session(&mut self, origin: Origin) {
        self.line(format_args!("v=0"));
        self.line(format_args!("o=- {} {} IN IP4 127.0.0.1", origin.session_id, origin.version));
        self.line(format_args!("s=-"));
        self.line(format_args!("t=0 0"));
        let accepted = self.offer.sections.iter().filter(|section| section.service != Service::Rejected);
        let mids = accepted.filter_map(|section| section.mid.as_deref()).collect::<Vec<_>>().join(" ");
        if !mids.is_empty() {
            self.line(format_args!("a=group:BUNDLE {mids}"));
        }
        self.line(format_args!("a=ice-lite"));
        self.line(format_args!("a=msid-semantic: WMS *"));
    }

    fn section(&mut self, section: &Section) {
        match &section.service {
            Service::Rejected => {
                self.line(format_args!("m={} 0 {} {}", section.media, section.proto, section.format));
                self.line(format_args!("c=IN IP4 0.0.0.0"));
                self.mid(section);
                self.line(format_args!("a=inactive"));
            }
            Service::Inactive => {
                self.accepted(section, "inactive");
                self.codecs(None, None, false);
            }
            Service::Active { track, slot, dtx } => {
                // A slot that the node did not give stays silent.
                let place = slot.and_then(|_| self.slots.iter().find(|info| info.mid == section.name()));
                let direction = match (track, place) {
                    (Some(_), Some(_)) => "sendrecv",
                    (Some(_), None) => "recvonly",
                    (None, Some(_)) => "sendonly",
                    (None, None) => "inactive",
                };
                self.accepted(section, direction);
                self.codecs(track.as_ref(), place.map(|place| place.kind), *dtx);
                if let Some(place) = place {
                    self.source(place);
                }
            }
        }
    }

    fn mid(&mut self, section: &Section) {
        if let Some(mid) = &section.mid {
            self.line(format_args!("a=mid:{mid}"));
        }
    }

    fn accepted(&mut self, section: &Section, direction: &str) {
        let transport = self.transport;
        let HeaderProfile { opus, red, .. } = self.offer.profile;
        let red = red.map(|red| format!(" {red}")).unwrap_or_default();
        let udp = transport.candidates.iter().find(|candidate| candidate.protocol == Protocol::Udp);
        let port = udp.map_or(9, |candidate| candidate.port);
        self.line(format_args!("m={} {port} {} {opus}{red}", section.media, section.proto));
        match udp.map(|candidate| candidate.address) {
            Some(std::net::IpAddr::V6(address)) => self.line(format_args!("c=IN IP6 {address}")),
            Some(std::net::IpAddr::V4(address)) => self.line(format_args!("c=IN IP4 {address}")),
            None => self.line(format_args!("c=IN IP4 0.0.0.0")),
        }
        self.mid(section);
        self.line(format_args!("a={direction}"));
        self.line(format_args!("a=rtcp-mux"));
        self.line(format_args!("a=ice-ufrag:{}", transport.ice.ufrag));
        self.line(format_args!("a=ice-pwd:{}", transport.ice.pwd));
        self.line(format_args!("a=fingerprint:{} {}", transport.fingerprint.algorithm, transport.fingerprint.value));
        self.line(format_args!(
            "a=setup:{}",
            match transport.dtls_role {
                DtlsRole::Client => "active",
                DtlsRole::Server => "passive",
            }
        ));
        // The first accepted m-line would be enough (RFC 9143 section 7.1.3), but aiortc takes the candidates of a bundle
        // from its last one. Nobody minds them everywhere.
        self.candidates();
    }

    fn candidates(&mut self) {
        for (index, candidate) in self.transport.candidates.iter().enumerate() {
            let Candidate { address, port, protocol } = candidate;
            let number = index + 1;
            match protocol {
                Protocol::Udp => {
                    let priority = priority(126, index);
                    self.line(format_args!("a=candidate:{number} 1 udp {priority} {address} {port} typ host"));
                }
                Protocol::Tcp => {
                    let priority = priority(90, index);
                    self.line(format_args!(
                        "a=candidate:{number} 1 tcp {priority} {address} {port} typ host tcptype passive"
                    ));
                }
            }
        }
        self.line(format_args!("a=end-of-candidates"));
    }

    /// Codecs with OUR wishes as a receiver (RFC 7587 section 7.1), and what we send.
    fn codecs(&mut self, track: Option<&Track>, slot: Option<TrackKind>, dtx: bool) {
        let HeaderProfile { opus, red, audio_level, mid, nack } = self.offer.profile;
        let kind = track.map(|track| track.kind).or(slot).unwrap_or(TrackKind::Mic);
        self.line(format_args!("a=rtpmap:{opus} opus/48000/2"));
        match kind {
            TrackKind::Mic => {
                let dtx = if dtx { ";usedtx=1" } else { "" };
                self.line(format_args!("a=fmtp:{opus} minptime=10;useinbandfec=1{dtx}"));
            }
            // No in-band FEC: it would take the encoder out of its music mode.
            TrackKind::Program => self.line(format_args!(
                "a=fmtp:{opus} minptime=10;stereo=1;sprop-stereo=1;maxaveragebitrate={PROGRAM_BITRATE}"
            )),
        }
        if nack && slot.is_some() {
            self.line(format_args!("a=rtcp-fb:{opus} nack"));
        }
        if let Some(red) = red {
            self.line(format_args!("a=rtpmap:{red} red/48000/2"));
            self.line(format_args!("a=fmtp:{red} {opus}/{opus}"));
        }
        if kind == TrackKind::Program {
            self.line(format_args!("a=ptime:10"));
        }
        if let Some(id) = audio_level {
            self.line(format_args!("a=extmap:{id} {URI_AUDIO_LEVEL}"));
        }
        if let Some(id) = mid {
            self.line(format_args!("a=extmap:{id} {URI_MID}"));
        }
    }

    /// Each slot is a stream of its own, so that no player tries to keep two of them in step.
    fn source(&mut self, slot: &SlotInfo) {
        let name = match slot.kind {
            TrackKind::Mic => "speech",
            TrackKind::Program => "program",
        };
        let SlotInfo { index, ssrc, .. } = slot;
        self.line(format_args!("a=msid:{name}-{index} {name}-{index}"));
        self.line(format_args!("a=ssrc:{ssrc} cname:carillon"));
        self.line(format_args!("a=ssrc:{ssrc} msid:{name}-{index} {name}-{index}"));
    }
}

/// RFC 8445 section 5.1.2.1, component 1.
fn priority(type_preference: u32, index: usize) -> u32 {
    let local_preference = 65_535 - u32::try_from(index).unwrap_or(65_535).min(65_535);
    (type_preference << 24) | (local_preference << 8) | 255
}
