//! How many files of a set are open at a time.
//!
//! Owns: [`OpenFiles`], [`Handle`].
//!
//! Invariants:
//! 1. No more than the set's limit stay open, but for those being read at the moment: a process may have few descriptors,
//!    and a table many files. Those opened first are closed first.
//! 2. A file that is opened again is the one it was, unchanged, or that is an error: what is known of it would not be true
//!    of another one.
//! 3. Nobody waits for a reader in order to close a file.

use crate::error::{Error, Origin, Result};
use parking_lot::{Mutex, RwLock, RwLockWriteGuard};
use std::collections::VecDeque;
use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

/// Files of which only so many are open.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    most: usize,
    open: Mutex<VecDeque<Weak<Handle>>>,
}

/// A file, open or not.
#[derive(Debug)]
pub(super) struct Handle {
    file: RwLock<Option<File>>,
    /// Where it is found again, wherever the process is by then.
    path: PathBuf,
    identity: Identity,
}

/// What tells whether a file is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    len: u64,
    modified: Option<SystemTime>,
    /// Device and number, where files have them.
    inode: Option<(u64, u64)>,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        #[cfg(unix)]
        let inode = {
            use std::os::unix::fs::MetadataExt;
            Some((metadata.dev(), metadata.ino()))
        };
        #[cfg(not(unix))]
        let inode = None;
        Self { len: metadata.len(), modified: metadata.modified().ok(), inode }
    }
}

impl OpenFiles {
    /// No files, of which at most `most` will stay open.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, open: Mutex::new(VecDeque::new()) })
    }

    /// The handle of the file at `path`, which is open, and its length.
    pub(super) fn open(&self, path: &Path) -> Result<(Arc<Handle>, u64)> {
        let (file, metadata) = open(path)?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let identity = Identity::of(&metadata);
        let handle = Arc::new(Handle { file: RwLock::new(Some(file)), path, identity });
        self.note(&handle);
        Ok((handle, metadata.len()))
    }

    /// Calls `read` with the file of `handle`, opened again if it was closed.
    pub(super) fn with_file<T>(&self, handle: &Arc<Handle>, read: impl FnOnce(&File) -> T) -> Result<T> {
        if let Some(file) = &*handle.file.read() {
            return Ok(read(file));
        }
        let mut slot = handle.file.write();
        let file = match slot.take() {
            // Somebody else was faster.
            Some(file) => file,
            None => {
                let path = &handle.path;
                let (file, metadata) = open(path)?;
                if Identity::of(&metadata) != handle.identity {
                    let what = "it has changed since its table was registered; register the table again";
                    return Err(Error::data(
                        what.to_owned(),
                        Origin { file: path.clone(), row_group: None, column: None },
                    ));
                }
                self.note(handle);
                file
            }
        };
        *slot = Some(file);
        // Others read meanwhile.
        let slot = RwLockWriteGuard::downgrade(slot);
        slot.as_ref().map(read).ok_or_else(|| Error::internal("a file is closed while it is locked"))
    }

    /// Counts one more open file, and closes the oldest if they are too many.
    fn note(&self, handle: &Arc<Handle>) {
        let mut open = self.open.lock();
        open.push_back(Arc::downgrade(handle));
        let mut looked_at = 0;
        while open.len() > self.most && looked_at < open.len() {
            let Some(oldest) = open.pop_front() else { break };
            let Some(handle) = oldest.upgrade() else { continue };
            match handle.file.try_write() {
                Some(mut file) => *file = None,
                // It is being read: another one's turn.
                None => open.push_back(oldest),
            }
            looked_at += 1;
        }
    }
}

fn open(path: &Path) -> Result<(File, Metadata)> {
    let file = File::open(path).map_err(|e| Error::io("cannot open", path, e))?;
    let metadata = file.metadata().map_err(|e| Error::io("cannot get the size of", path, e))?;
    if metadata.is_dir() {
        let error = std::io::Error::from(std::io::ErrorKind::IsADirectory);
        return Err(Error::io("cannot read", path, error));
    }
    Ok((file, metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;

    fn is_open(handle: &Handle) -> bool {
        handle.file.read().is_some()
    }

    fn text(files: &OpenFiles, handle: &Arc<Handle>) -> Result<String> {
        files.with_file(handle, |mut file| {
            let mut text = String::new();
            file.read_to_string(&mut text).expect("readable");
            text
        })
    }

    #[test]
    fn only_so_many_stay_open_and_all_can_be_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths: Vec<_> = (0..5).map(|i| folder.path().join(i.to_string())).collect();
        paths.iter().for_each(|path| fs::write(path, path.display().to_string()).expect("writable"));
        let files = OpenFiles::new(2);
        let handles: Vec<_> = paths.iter().map(|path| files.open(path).expect("a file").0).collect();
        assert_eq!(handles.iter().map(|h| is_open(h)).collect::<Vec<_>>(), [false, false, false, true, true]);
        for (handle, path) in handles.iter().zip(&paths) {
            assert_eq!(text(&files, handle).expect("the same file"), path.display().to_string());
            assert!(handles.iter().filter(|h| is_open(h)).count() <= 2);
        }
        assert!(files.open(folder.path()).is_err(), "a folder");
    }

    fn two_files(folder: &Path) -> [PathBuf; 2] {
        let paths = ["a", "b"].map(|name| folder.join(name));
        paths.iter().for_each(|path| fs::write(path, "text").expect("writable"));
        paths
    }

    #[test]
    fn a_file_that_has_changed_is_another_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = two_files(folder.path());
        let files = OpenFiles::new(1);
        let [a, _b] = paths.each_ref().map(|path| files.open(path).expect("a file").0);
        fs::write(&paths[0], "afterwards").expect("writable");
        let error = text(&files, &a).expect_err("changed").to_string();
        assert!(error.contains("register the table again"), "{error}");
        fs::remove_file(&paths[0]).expect("own file");
        assert!(matches!(text(&files, &a), Err(Error::Io { .. })));
    }

    #[test]
    fn a_file_in_use_is_not_closed() {
        let folder = tempfile::tempdir().expect("a folder");
        let paths = two_files(folder.path());
        let files = OpenFiles::new(1);
        let (a, _) = files.open(&paths[0]).expect("a file");
        let b = files.with_file(&a, |_| files.open(&paths[1]).expect("a file").0).expect("open");
        assert!(is_open(&a) && !is_open(&b), "the other one's turn");
        assert_eq!(text(&files, &b).expect("the same file"), "text");
        assert!(!is_open(&a) && is_open(&b));
    }
}
