//! The folder of one run: certificate, cookie, sockets, logs. Readable by its owner only. One that this program made
//! itself goes away with the run; where the run was killed, with the next one.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use rustix::process::getuid;
use tempfile::TempDir;

/// Names of our folders in the folder for temporary files begin so; six letters and digits follow.
const PREFIX: &str = "carillon-";
const RANDOM_CHARS: usize = 6;
/// Locked by the run that has the folder, for as long as it lives: the kernel lets go of the lock however the run ends.
const OWNER: &str = "owner";
/// Logs of a run that went wrong stay this long for someone to look at.
const LOGS_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug)]
pub(super) struct StateFolder {
    path: PathBuf,
    /// Removes the folder when dropped.
    temporary: Option<Temporary>,
}

#[derive(Debug)]
struct Temporary {
    folder: TempDir,
    _owner: File,
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
            None => Self::temporary(&std::env::temp_dir())?,
        };
        std::fs::create_dir_all(state.logs()).context("cannot make the folder for logs")?;
        Ok(state)
    }

    fn temporary(place: &Path) -> anyhow::Result<Self> {
        remove_abandoned(place);
        let private = std::fs::Permissions::from_mode(0o700);
        let mut builder = tempfile::Builder::new();
        let folder = builder.prefix(PREFIX).rand_bytes(RANDOM_CHARS).permissions(private).tempdir_in(place);
        let folder = folder.with_context(|| format!("no temporary folder in {}", place.display()))?;
        let owner = own(folder.path()).with_context(|| format!("cannot lock {}", folder.path().display()))?;
        Ok(Self { path: folder.path().to_owned(), temporary: Some(Temporary { folder, _owner: owner }) })
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

    /// Leaves the logs there for someone to look at. Keys, cookies and sockets go.
    pub(super) fn keep_logs(&mut self) {
        let Some(temporary) = self.temporary.take() else { return };
        self.path = temporary.folder.keep();
        // The time for which they are kept begins now.
        let _ = File::open(self.path.join(OWNER)).and_then(|owner| owner.set_modified(SystemTime::now()));
        let others = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        for entry in others.filter(|entry| entry.file_name() != "logs" && entry.file_name() != OWNER) {
            let path = entry.path();
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
        }
    }
}

/// The lock is taken before the file has its name: whoever finds it finds it locked.
fn own(folder: &Path) -> std::io::Result<File> {
    let unnamed = folder.join("owner.new");
    let file = File::create_new(&unnamed)?;
    file.try_lock()?;
    std::fs::rename(&unnamed, folder.join(OWNER))?;
    Ok(file)
}

/// Removes what runs left that were killed, with the keys inside, and logs that were kept long enough. Only folders that
/// are ours by name, owner and the file in them, and whose run has ended.
fn remove_abandoned(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_our_name) && is_abandoned(&entry.path()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn is_our_name(name: &str) -> bool {
    let random = name.strip_prefix(PREFIX);
    random.is_some_and(|random| random.len() == RANDOM_CHARS && random.bytes().all(|b| b.is_ascii_alphanumeric()))
}

fn is_abandoned(folder: &Path) -> bool {
    let ours = folder.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == getuid().as_raw());
    // Before anything in it is opened: in a folder of somebody else that name may be anything, such as a pipe.
    if !ours {
        return false;
    }
    let Ok(owner) = File::open(folder.join(OWNER)) else { return false };
    if owner.try_lock().is_err() {
        return false;
    }
    let holds_more = std::fs::read_dir(folder).into_iter().flatten().flatten().count() > 2;
    let age = owner.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
    holds_more || age.is_some_and(|age| age > LOGS_KEPT)
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

    fn temporary(place: &Path) -> StateFolder {
        let state = StateFolder::temporary(place).unwrap();
        std::fs::create_dir(state.logs()).unwrap();
        write_private(&state.path().join("key.pem"), b"key").unwrap();
        state
    }

    #[test]
    fn a_temporary_folder_goes_away() {
        let place = tempfile::tempdir().unwrap();
        let state = temporary(place.path());
        assert_eq!(std::fs::metadata(state.path()).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(!state.has_logs());
        std::fs::write(state.logs().join("sfu.log"), "").unwrap();
        assert!(state.has_logs());
        drop(state);
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn of_a_run_that_went_wrong_the_logs_are_kept_and_no_key() {
        let place = tempfile::tempdir().unwrap();
        let mut state = temporary(place.path());
        std::fs::create_dir(state.path().join("pulse")).unwrap();
        state.keep_logs();
        let kept = state.path().to_owned();
        drop(state);
        assert!(kept.join("logs").is_dir() && !kept.join("key.pem").exists() && !kept.join("pulse").exists());
        remove_abandoned(place.path());
        assert!(kept.exists(), "they are new");
        let long_ago = SystemTime::now() - LOGS_KEPT - Duration::from_secs(60);
        File::options().write(true).open(kept.join(OWNER)).unwrap().set_modified(long_ago).unwrap();
        remove_abandoned(place.path());
        assert!(!kept.exists());
    }

    #[test]
    fn the_next_run_removes_what_a_killed_one_left_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let running = temporary(place.path());
        let killed = place.path().join("carillon-abc123");
        let others = ["carillon-ports-0", "carillon-noowner", "carillon-xyz789", "other-abc123"]
            .map(|name| place.path().join(name));
        for folder in std::iter::once(&killed).chain(&others) {
            std::fs::create_dir_all(folder.join("logs")).unwrap();
            std::fs::write(folder.join("key.pem"), "key").unwrap();
        }
        for folder in [&killed, &others[0], &others[1], &others[3]] {
            std::fs::write(folder.join(OWNER), "").unwrap();
        }
        remove_abandoned(place.path());
        assert!(!killed.exists());
        assert!(running.path().join("key.pem").exists());
        assert!(others.iter().all(|folder| folder.join("key.pem").exists()));
    }

    /// Only root can make such a folder; for others the test shows nothing.
    #[test]
    fn what_others_left_is_not_even_opened() {
        let place = tempfile::tempdir().unwrap();
        let foreign = place.path().join("carillon-abc123");
        std::fs::create_dir(&foreign).unwrap();
        // Opening this would wait for a writer, for ever.
        let made = std::process::Command::new("mkfifo").arg(foreign.join(OWNER)).status().unwrap();
        assert!(made.success());
        if std::os::unix::fs::chown(&foreign, Some(65_534), None).is_ok() {
            remove_abandoned(place.path());
            assert!(foreign.exists());
        }
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
