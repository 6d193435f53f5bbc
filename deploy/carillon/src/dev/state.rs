//! The folder of one run: certificate, cookie, sockets, logs. Readable by its owner only.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

#[derive(Debug)]
pub(super) struct StateFolder {
    path: PathBuf,
    /// Removes the folder when dropped.
    temporary: Option<TempDir>,
}

impl StateFolder {
    pub(super) fn open(named: Option<&Path>) -> anyhow::Result<Self> {
        let state = match named {
            Some(path) => {
                let mut builder = std::fs::DirBuilder::new();
                builder.recursive(true).mode(0o700);
                builder.create(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
                // Programs started from here have other working folders and other rules for relative paths.
                let path = path.canonicalize().with_context(|| format!("cannot find {}", path.display()))?;
                Self { path, temporary: None }
            }
            None => {
                let private = std::fs::Permissions::from_mode(0o700);
                let folder = tempfile::Builder::new().prefix("carillon-").permissions(private).tempdir();
                let folder = folder.context("no temporary folder")?;
                Self { path: folder.path().to_owned(), temporary: Some(folder) }
            }
        };
        std::fs::create_dir_all(state.logs()).context("cannot make the folder for logs")?;
        Ok(state)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// Whether a process has come far enough to have a log.
    pub(super) fn has_logs(&self) -> bool {
        std::fs::read_dir(self.logs()).is_ok_and(|mut logs| logs.next().is_some())
    }

    /// Leaves the folder there for someone to look at.
    pub(super) fn keep(&mut self) {
        if let Some(folder) = self.temporary.take() {
            self.path = folder.keep();
        }
    }
}

/// Writes a file that only its owner may read, replacing an old one.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    let cannot = || format!("cannot write {}", path.display());
    let _ = std::fs::remove_file(path);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).with_context(cannot)?;
    file.write_all(bytes).with_context(cannot)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_goes_away_unless_kept() {
        let gone = StateFolder::open(None).unwrap().path().to_owned();
        assert!(!gone.exists());
        let mut state = StateFolder::open(None).unwrap();
        assert!(!state.has_logs());
        std::fs::write(state.logs().join("sfu.log"), "").unwrap();
        assert!(state.has_logs());
        state.keep();
        let kept = state.path().to_owned();
        assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o700);
        drop(state);
        assert!(kept.join("logs").is_dir());
        std::fs::remove_dir_all(kept).unwrap();
    }

    #[test]
    fn secrets_are_for_their_owner_only_even_over_an_open_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        std::fs::write(&path, "old").unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
