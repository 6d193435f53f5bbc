//! Picks the ports: the usual ones where they are free, others where not.
//!
//! A port that is free now may be taken before a process of ours listens at it, and again while that process is being
//! restarted. Against other runs of this program a lock file for each port helps, held as long as the run; the kernel
//! frees it when the run dies. A run that ends well removes its files.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::process::getuid;

use super::secrets::random;

/// Tries to find free ports before giving up.
const ATTEMPTS_MAX: u32 = 64;

/// Keeps other runs away from the ports of this one.
#[derive(Debug)]
pub(super) struct PortLocks {
    _locks: Vec<PortLock>,
}

/// The lock of one port. The file goes away with it, while it is still held: a file that is not locked is nobody's.
#[derive(Debug)]
struct PortLock {
    path: PathBuf,
    _file: File,
}

impl PortLock {
    /// `None` when another run holds it, or just let go of it.
    fn take(path: PathBuf) -> Option<Self> {
        let file = File::options().create(true).write(true).truncate(false).open(&path).ok()?;
        file.try_lock().ok()?;
        // Between the two its holder may have removed it: then this lock is one that nobody else will meet.
        is_file_at(&file, &path).then_some(Self { path, _file: file })
    }
}

impl Drop for PortLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn is_file_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (file.metadata(), path.symlink_metadata()) else { return false };
    (held.dev(), held.ino()) == (there.dev(), there.ino())
}

#[derive(Debug)]
pub(super) struct PortFinder {
    folder: PathBuf,
    locks: Vec<PortLock>,
    notes: Vec<String>,
}

impl PortFinder {
    pub(super) fn new() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("carillon-ports-{}", getuid().as_raw()));
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder, locks: Vec::new(), notes: Vec::new() })
    }

    /// A TCP port at `address`; `usual` if it is free.
    pub(super) fn tcp(&mut self, what: &str, address: IpAddr, usual: u16) -> anyhow::Result<u16> {
        self.find(what, usual, 1, |port| TcpListener::bind((address, port)).is_ok())
    }

    /// The first of `count` ports in a row, free for UDP and TCP at all addresses.
    pub(super) fn media(&mut self, usual: u16, count: u16) -> anyhow::Result<u16> {
        self.find("media", usual, count, is_free_everywhere)
    }

    /// One port, free for UDP and TCP at all addresses.
    pub(super) fn udp_and_tcp(&mut self, what: &str, usual: u16) -> anyhow::Result<u16> {
        self.find(what, usual, 1, is_free_everywhere)
    }

    /// The locks, to be held as long as the ports are wanted, and what a person should know about the choice.
    pub(super) fn finish(self) -> (PortLocks, Vec<String>) {
        (PortLocks { _locks: self.locks }, self.notes)
    }

    fn find(&mut self, what: &str, usual: u16, count: u16, free: impl Fn(u16) -> bool) -> anyhow::Result<u16> {
        let mut first = usual;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(locks) = self.lock_row(first, count, &free) {
                self.locks.extend(locks);
                if usual != 0 && first != usual {
                    self.notes.push(format!("Port {usual} ({what}) is taken: using {first}."));
                }
                return Ok(first);
            }
            first = any_port()?;
        }
        bail!("no free port for {what}");
    }

    fn lock_row(&self, first: u16, count: u16, free: impl Fn(u16) -> bool) -> Option<Vec<PortLock>> {
        let row = first..first.checked_add(count)?;
        let lock = |port: u16| {
            let lock = PortLock::take(self.folder.join(port.to_string()))?;
            free(port).then_some(lock)
        };
        if first == 0 { None } else { row.map(lock).collect() }
    }
}

/// Not among those that the kernel gives to whoever asks for any (32768 and on, ip_local_port_range): a connection of
/// some other program would take it before a process of ours listens.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

fn any_port() -> anyhow::Result<u16> {
    let number = u32::from_ne_bytes(random()?);
    Ok(PORTS.start + (number % u32::from(PORTS.end - PORTS.start)) as u16)
}

fn is_free_everywhere(port: u16) -> bool {
    let everywhere = (Ipv4Addr::UNSPECIFIED, port);
    UdpSocket::bind(everywhere).is_ok() && TcpListener::bind(everywhere).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn a_taken_port_is_replaced_and_said() {
        let taken = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let usual = taken.local_addr().unwrap().port();
        let mut finder = PortFinder::new().unwrap();
        let port = finder.tcp("page", LOOPBACK, usual).unwrap();
        assert_ne!(port, usual);
        assert_eq!(finder.finish().1, [format!("Port {usual} (page) is taken: using {port}.")]);
    }

    #[test]
    fn no_port_is_given_twice_even_while_nobody_listens_there() {
        let (mut one, mut other) = (PortFinder::new().unwrap(), PortFinder::new().unwrap());
        let mut ports: Vec<u16> = (0..4).map(|_| one.tcp("admin", LOOPBACK, 0).unwrap()).collect();
        let first = ports[0];
        ports.extend((0..4).map(|_| other.tcp("admin", LOOPBACK, first).unwrap()));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 8);
    }

    #[test]
    fn a_port_can_be_had_again_after_its_run() {
        let had_again = || {
            let mut finder = PortFinder::new().unwrap();
            let port = finder.tcp("page", LOOPBACK, 0).unwrap();
            drop(finder.finish());
            let mut next = PortFinder::new().unwrap();
            next.tcp("page", LOOPBACK, port).unwrap() == port
        };
        // Another program may have taken it in between; hardly one after the other.
        assert!(std::iter::repeat_with(had_again).take(5).any(|again| again));
    }

    #[test]
    fn a_lock_leaves_no_file_and_a_removed_file_locks_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("40000");
        let held = PortLock::take(path.clone()).unwrap();
        assert!(PortLock::take(path.clone()).is_none());
        let opened_before = File::open(&path).unwrap();
        assert!(is_file_at(&opened_before, &path));
        drop(held);
        assert!(!path.exists());
        assert!(!is_file_at(&opened_before, &path));
        let next = PortLock::take(path.clone()).unwrap();
        assert!(!is_file_at(&opened_before, &path));
        drop(next);
    }

    #[test]
    fn media_ports_are_a_row() {
        let mut finder = PortFinder::new().unwrap();
        let first = finder.media(0, 3).unwrap();
        assert!((first..first + 3).all(|port| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()));
        assert_eq!(finder.locks.len(), 3);
    }

    #[test]
    fn a_row_that_ends_beyond_the_last_port_is_not_a_row() {
        assert!(PortFinder::new().unwrap().lock_row(65535, 2, |_| true).is_none());
    }
}
