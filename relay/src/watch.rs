//! When the settings are due to be loaded again without a signal: a file has changed, or a name may have moved.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::config::{Config, Found};

/// How often a public host name is looked up again, or a STUN server asked.
const NAMES_INTERVAL: Duration = Duration::from_secs(60);

/// When to load the settings again without being asked.
#[derive(Debug)]
pub(crate) struct Watch {
    files: Vec<(PathBuf, Option<SystemTime>)>,
    names_at: Option<Instant>,
    pub(crate) external: Found,
}

impl Watch {
    pub(crate) fn new(config: &Config) -> Self {
        let files = config.files.iter().map(|path| (path.clone(), changed_at(path))).collect();
        let names_at = (!config.external.is_empty()).then(|| Instant::now() + NAMES_INTERVAL);
        Self { files, names_at, external: config.external.clone() }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.files.iter().any(|(path, seen)| changed_at(path) != *seen)
            || self.names_at.is_some_and(|at| at <= Instant::now())
    }

    /// What could not be loaded is tried again when it changes.
    pub(crate) fn postpone(&mut self) {
        for (path, seen) in &mut self.files {
            *seen = changed_at(path);
        }
        self.names_at = self.names_at.map(|_| Instant::now() + NAMES_INTERVAL);
    }
}

fn changed_at(path: &PathBuf) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|file| file.modified()).ok()
}
