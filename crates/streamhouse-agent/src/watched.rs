//! What is made of files, and made anew when they change.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{convert::Infallible as Never, fmt, fs, io};
use tokio::time::{MissedTickBehavior, interval};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong and what to do. Nothing of what is in the file.
    pub problem: String,
}

impl FileError {
    pub(crate) fn new(path: &Path, problem: impl fmt::Display) -> FileError {
        FileError { path: path.to_owned(), problem: problem.to_string() }
    }
}

/// A file's content.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let unreadable = |error: io::Error| FileError::new(path, format_args!("it cannot be read: {error}"));
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(FileError::new(path, "it is not a file"));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(FileError::new(path, format_args!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    fs::read(path).map_err(unreadable)
}

/// A value that was made of files. When what they hold becomes wrong, the last good value stays.
pub(crate) struct Watched<T> {
    files: Vec<PathBuf>,
    make: fn(&[PathBuf]) -> Result<T, FileError>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamps: Vec<Option<Stamp>>,
}

/// What changes when a file does: device, inode, size, time of the last change in nanoseconds.
type Stamp = (u64, u64, u64, i128);

impl<T> Watched<T> {
    /// Makes the value.
    pub(crate) fn open(
        files: Vec<PathBuf>,
        make: fn(&[PathBuf]) -> Result<T, FileError>,
    ) -> Result<Watched<T>, FileError> {
        // Before the files are read, so that no change is missed.
        let stamps = stamps(&files);
        let value = Arc::new(make(&files)?);
        Ok(Watched { files, make, state: Mutex::new(State { value, stamps }) })
    }

    /// The value now.
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.lock().value)
    }

    /// Makes the value anew if the files have changed.
    pub(crate) fn look(&self) {
        let stamps = stamps(&self.files);
        if self.lock().stamps == stamps {
            return;
        }
        let made = (self.make)(&self.files);
        let mut state = self.lock();
        state.stamps = stamps;
        match made {
            Ok(value) => {
                state.value = Arc::new(value);
                tracing::info!(files = ?self.files, "read again, since it changed");
            }
            Err(error) => tracing::error!("{error}; what was read before it changed stays in force"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Looks at the files each second. Never ends.
    pub(crate) async fn watch(self: Arc<Self>) -> Never {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let this = Arc::clone(&self);
            // A network's file system may keep one waiting.
            if let Err(error) = tokio::task::spawn_blocking(move || this.look()).await {
                tracing::error!(%error, "files could not be looked at");
            }
        }
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.files).finish()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        Some((metadata.dev(), metadata.ino(), metadata.size(), changed))
    };
    files.iter().map(stamp).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(files: &[PathBuf]) -> Result<u32, FileError> {
        let text = String::from_utf8(read(&files[0])?).unwrap();
        text.trim().parse().map_err(|error| FileError::new(&files[0], error))
    }

    #[test]
    fn a_change_is_taken_and_a_bad_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("number");
        let replace = |text: &str| {
            fs::write(dir.path().join("new"), text).unwrap();
            fs::rename(dir.path().join("new"), &path).unwrap();
        };
        assert!(Watched::open(vec![path.clone()], number).is_err());
        replace("7");
        let watched = Watched::open(vec![path.clone()], number).unwrap();
        assert_eq!(*watched.get(), 7);
        for (text, value) in [("8", 8), ("not a number", 8), ("9", 9)] {
            replace(text);
            watched.look();
            assert_eq!(*watched.get(), value, "{text}");
        }
        fs::remove_file(&path).unwrap();
        watched.look();
        assert_eq!(*watched.get(), 9);
        replace("10");
        watched.look();
        assert_eq!(*watched.get(), 10);
    }

    #[test]
    fn what_is_no_file_or_too_large_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let problem = |path: &Path| read(path).unwrap_err().to_string();
        assert!(problem(dir.path()).contains("it is not a file"));
        assert!(problem(&dir.path().join("none")).contains("cannot be read: No such file"));
        let large = dir.path().join("large");
        fs::File::create(&large).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(problem(&large).contains("more than 1048576 bytes"));
    }
}
