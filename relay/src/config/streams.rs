//! TCP and TLS: ports, certificate, balancers, and how many connections there may be.

use std::path::Path;
use std::sync::Arc;

use relay_core::AddressRange;
use rustls::sign::CertifiedKey;

use super::coturn::Note;
use super::settings::Settings;
use super::{ConfigError, out_of_range};
use crate::streams::private_networks;
use crate::tls::{self, TlsError};

#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) tcp: bool,
    pub(crate) tls: Option<Tls>,
    /// One more port, for balancers only.
    pub(crate) proxy_port: Option<u16>,
    pub(crate) balancers: Vec<AddressRange>,
    pub(crate) connections: usize,
    pub(crate) source_connections: usize,
}

#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) port: u16,
    pub(crate) pair: Arc<CertifiedKey>,
    pub(crate) newest_only: bool,
}

const TLS_PORT: u16 = 5_349;
const CONNECTIONS: u32 = 16_384;
const SOURCE_CONNECTIONS: u32 = 256;

pub(super) fn streams(settings: &Settings) -> Result<Streams, ConfigError> {
    let tcp = !settings.no_tcp;
    let tls = match (&settings.tls_cert, &settings.tls_key) {
        _ if settings.no_tls || !tcp => None,
        (None, None) => None,
        (Some(certificate), Some(key)) => Some(Tls {
            port: settings.tls_port.unwrap_or(TLS_PORT),
            pair: tls::load(certificate, key)?,
            newest_only: settings.tls13_only,
        }),
        _ => return Err(TlsError::Half.into()),
    };
    if settings.no_udp && !tcp {
        return Err(out_of_range("no_udp", true, "off, or no_tcp off: nothing is served"));
    }
    let balancers = settings.proxy_from.iter().map(|text| text.parse::<AddressRange>());
    let mut balancers = balancers
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| ConfigError::Range { key: "proxy_from", source })?;
    if balancers.is_empty() && settings.proxy_port.is_some() {
        balancers = private_networks();
    }
    Ok(Streams {
        tcp,
        tls,
        proxy_port: settings.proxy_port.filter(|_| tcp),
        balancers,
        connections: settings.connections.unwrap_or(CONNECTIONS) as usize,
        source_connections: settings.source_connections.unwrap_or(SOURCE_CONNECTIONS) as usize,
    })
}

/// coturn serves without TLS when the certificate is missing, and files of the field name one that is not there yet.
pub(super) fn forgive_missing_certificate(settings: &mut Settings, notes: &mut [Note]) {
    let is_there = |path: &Option<std::path::PathBuf>| path.as_deref().is_none_or(Path::exists);
    let is_usable = is_there(&settings.tls_cert)
        && is_there(&settings.tls_key)
        && settings.tls_cert.is_some() == settings.tls_key.is_some();
    if is_usable {
        return;
    }
    (settings.tls_cert, settings.tls_key) = (None, None);
    for note in notes.iter_mut().filter(|note| matches!(&*note.key, "cert" | "pkey")) {
        note.remark = Some("there is no TLS: the file is not there, or its other half is not".to_owned());
    }
}
