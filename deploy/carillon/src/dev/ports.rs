//! Picks the ports: the usual ones where they are free, others where not. Every port found is held open until all are
//! found, so that no two are the same. Between finding a port and its use by a process another run could take it, so runs
//! that start at the same time do so one after the other: see [`StartLock`].

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::getuid;
use tokio::time::{Instant, sleep};

/// Tries to find that many free ports in a row before giving up.
const ATTEMPTS_MAX: u32 = 64;

/// Longer than any start takes: whoever holds the lock then is stuck.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Held while a run picks its ports and until its processes listen at them; the kernel frees it when the run dies.
#[derive(Debug)]
pub(super) struct StartLock {
    _file: File,
}

impl StartLock {
    pub(super) async fn take() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("carillon-start-{}.lock", getuid().as_raw()));
        let file = File::options().create(true).write(true).truncate(false).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let deadline = Instant::now() + LOCK_TIMEOUT;
        while file.try_lock().is_err() {
            if Instant::now() >= deadline {
                bail!("another carillon has been starting for a minute (it holds {})", path.display());
            }
            sleep(LOCK_POLL).await;
        }
        Ok(Self { _file: file })
    }
}

#[derive(Debug, Default)]
pub(super) struct PortFinder {
    held: Vec<(TcpListener, Option<UdpSocket>)>,
    notes: Vec<String>,
}

impl PortFinder {
    /// A TCP port at `address`; `usual` if it is free.
    pub(super) fn tcp(&mut self, what: &str, address: IpAddr, usual: u16) -> anyhow::Result<u16> {
        let listener = match TcpListener::bind((address, usual)) {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind((address, 0)).with_context(|| format!("no free port for {what}"))?,
        };
        let port = listener.local_addr().context("no port")?.port();
        self.note(what, usual, port);
        self.held.push((listener, None));
        Ok(port)
    }

    /// The first of `count` ports in a row, free for UDP and TCP at all addresses.
    pub(super) fn media(&mut self, usual: u16, count: u16) -> anyhow::Result<u16> {
        let mut first = usual;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(row) = hold_row(first, count) {
                self.note("media", usual, first);
                self.held.extend(row.into_iter().map(|(tcp, udp)| (tcp, Some(udp))));
                return Ok(first);
            }
            let probe = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("no free port for media")?;
            first = probe.local_addr().context("no port")?.port();
        }
        bail!("found no {count} free ports in a row for media");
    }

    /// Lets the ports go, for the processes to take, and says which are not the usual ones.
    pub(super) fn release(self) -> Vec<String> {
        self.notes
    }

    fn note(&mut self, what: &str, usual: u16, port: u16) {
        if usual != 0 && port != usual {
            self.notes.push(format!("Port {usual} ({what}) is taken: using {port}."));
        }
    }
}

fn hold_row(first: u16, count: u16) -> Option<Vec<(TcpListener, UdpSocket)>> {
    let ports = first..first.checked_add(count)?;
    let hold = |port| {
        let tcp = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).ok()?;
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).ok()?;
        Some((tcp, udp))
    };
    if first == 0 {
        return None;
    }
    ports.map(hold).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_taken_port_is_replaced_and_said() {
        let taken = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let usual = taken.local_addr().unwrap().port();
        let mut finder = PortFinder::default();
        let port = finder.tcp("page", LOOPBACK, usual).unwrap();
        assert_ne!(port, usual);
        assert_eq!(finder.release(), [format!("Port {usual} (page) is taken: using {port}.")]);
    }

    #[test]
    fn no_port_is_given_twice() {
        let mut finder = PortFinder::default();
        let ports: Vec<u16> = (0..4).map(|_| finder.tcp("admin", LOOPBACK, 0).unwrap()).collect();
        let mut distinct = ports.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), ports.len());
        assert!(finder.release().is_empty());
    }

    #[test]
    fn media_ports_are_a_row_that_is_free() {
        let mut finder = PortFinder::default();
        let first = finder.media(0, 3).unwrap();
        assert!((first..first + 3).all(|port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_err()));
        drop(finder);
        assert!((first..first + 3).all(|port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()));
    }

    #[test]
    fn a_row_that_ends_beyond_the_last_port_is_not_a_row() {
        assert!(hold_row(65535, 2).is_none());
    }
}
