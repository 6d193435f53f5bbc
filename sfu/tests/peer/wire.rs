//! What a participant sends through: a UDP socket, or a TCP connection to the node with a length before each datagram.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use sfu_control::Joined;
use str0m::net::Protocol;

pub(crate) enum Wire {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, inbox: Vec<u8> },
}

impl Wire {
    pub(crate) fn connect(joined: &Joined) -> Self {
        let tcp = |candidate: &&sfu_control::Candidate| candidate.protocol == sfu_control::Protocol::Tcp;
        let candidate = joined.candidates.iter().find(tcp).expect("a TCP candidate");
        let stream = TcpStream::connect((candidate.address, candidate.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::Tcp { stream, inbox: Vec::new() }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self {
            Self::Udp(_) => Protocol::Udp,
            Self::Tcp { .. } => Protocol::Tcp,
        }
    }

    pub(crate) fn speaks(&self, protocol: sfu_control::Protocol) -> bool {
        matches!(
            (self, protocol),
            (Self::Udp(_), sfu_control::Protocol::Udp) | (Self::Tcp { .. }, sfu_control::Protocol::Tcp)
        )
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        match self {
            Self::Udp(socket) => socket.local_addr().unwrap(),
            Self::Tcp { stream, .. } => stream.local_addr().unwrap(),
        }
    }

    pub(crate) fn set_read_timeout(&self, time: Duration) {
        match self {
            Self::Udp(socket) => socket.set_read_timeout(Some(time)).unwrap(),
            Self::Tcp { stream, .. } => stream.set_read_timeout(Some(time)).unwrap(),
        }
    }

    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::Udp(socket) => socket.recv_from(buffer),
            Self::Tcp { stream, inbox } => loop {
                if let Some(length) = take_frame(inbox, buffer) {
                    return Ok((length, stream.peer_addr()?));
                }
                let mut piece = [0; 4_096];
                match stream.read(&mut piece)? {
                    0 => return Err(ErrorKind::TimedOut.into()),
                    read => inbox.extend_from_slice(&piece[..read]),
                }
            },
        }
    }

    pub(crate) fn send(&mut self, datagram: &[u8], to: SocketAddr) {
        // What cannot be sent is lost, as on a network.
        match self {
            Self::Udp(socket) => _ = socket.send_to(datagram, to),
            Self::Tcp { stream, .. } => {
                let length = u16::try_from(datagram.len()).unwrap().to_be_bytes();
                _ = stream.write_all(&[&length[..], datagram].concat());
            }
        }
    }
}

fn take_frame(inbox: &mut Vec<u8>, buffer: &mut [u8]) -> Option<usize> {
    let (length, rest) = inbox.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    buffer[..length].copy_from_slice(rest.get(..length)?);
    inbox.drain(..2 + length);
    Some(length)
}
