//! When the settings are due to be loaded again without a signal: a file has changed, or a name may have moved.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::config::{Config, Found};

/// How often a public host name is looked up again, or a STUN server asked.
const NAMES_INTERVAL: Duration = Duration::from_secs(60);

/// Files by what changes when they are written or replaced. Look before they are read: what is written while they are read
/// is then a change, not the state that was loaded. Which files there are is known only once settings are read: at the start,
/// and for a file that a reload names first, the look comes after.
#[derive(Clone, Debug)]
pub(crate) struct Files(Vec<(PathBuf, Option<Seen>)>);

type Seen = (SystemTime, u64);

impl Files {
    pub(crate) fn look(paths: &[PathBuf]) -> Self {
        Self(paths.iter().map(|path| (path.clone(), seen(path))).collect())
    }

    /// The same files as they are now.
    pub(crate) fn look_again(&self) -> Self {
        Self(self.0.iter().map(|(path, _)| (path.clone(), seen(path))).collect())
    }

    pub(crate) fn has_changed(&self) -> bool {
        self.0.iter().any(|(path, before)| seen(path) != *before)
    }

    /// `paths` as they were seen here; those that were not, as they are now.
    pub(crate) fn choose(&self, paths: &[PathBuf]) -> Self {
        let state = |path: &PathBuf| self.0.iter().find(|(known, _)| known == path).map(|(_, state)| *state);
        Self(paths.iter().map(|path| (path.clone(), state(path).unwrap_or_else(|| seen(path)))).collect())
    }
}

fn seen(path: &Path) -> Option<Seen> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len()))
}

/// When to load the settings of a relay again without being asked.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) files: Files,
    names_at: Option<Instant>,
    pub(crate) external: Found,
}

impl Watch {
    pub(crate) fn new(config: &Config, files: Files) -> Self {
        let names_at = (!config.external.is_empty()).then(|| Instant::now() + NAMES_INTERVAL);
        Self { files, names_at, external: config.external.clone() }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.files.has_changed() || self.names_at.is_some_and(|at| at <= Instant::now())
    }

    /// What could not be loaded is tried again when it changes from `files`.
    pub(crate) fn postpone(&mut self, files: Files) {
        self.files = files;
        self.names_at = self.names_at.map(|_| Instant::now() + NAMES_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_while_it_is_read_is_a_change() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let paths = [file.path().to_owned()];
        let started = Files::look(&paths);
        std::fs::write(file.path(), "first").unwrap();
        assert!(started.has_changed());

        let before = started.look_again();
        std::fs::write(file.path(), "second, after the first was read").unwrap();
        assert!(before.choose(&paths).has_changed());
        assert!(!before.look_again().choose(&paths).has_changed());
    }

    #[test]
    fn a_file_named_by_the_new_settings_is_watched_from_then_on() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let files = Files::look(&[]).choose(&[file.path().to_owned()]);
        assert!(!files.has_changed());
        std::fs::write(file.path(), "more").unwrap();
        assert!(files.has_changed());
    }
}
