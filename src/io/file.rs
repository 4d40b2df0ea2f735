//! Local files.

use super::open_files::{Handle, OpenFiles};
use crate::error::{Error, Result};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that can be read at any position, by any number of threads.
pub(crate) trait ReadAt: Send + Sync + 'static {
    /// Length in bytes when it was opened.
    fn len(&self) -> u64;
    /// Where it lies, for messages.
    fn path(&self) -> &Path;
    /// Fills `out` from `offset`.
    ///
    /// # Errors
    /// [`Error::Io`] with the path, also when the file ends before `out` is full.
    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> Result<()>;
    /// Says that `range` will be read soon, so that reading and computing overlap. A hint: it returns at once and
    /// cannot fail.
    fn prefetch(&self, range: Range<u64>);
}

/// A local file. Warm pages are copied out of the page cache on the calling thread.
#[derive(Debug)]
pub(crate) struct ReadFile {
    handle: Arc<Handle>,
    among: Arc<OpenFiles>,
    path: PathBuf,
    len: u64,
}

impl ReadFile {
    /// Opens `path` for reading, as one of `among`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened or is not a regular file's worth of bytes.
    pub(crate) fn open(path: &Path, among: &Arc<OpenFiles>) -> Result<Self> {
        let (handle, len) = among.open(path)?;
        Ok(Self { handle, among: Arc::clone(among), path: path.to_owned(), len })
    }
}

impl ReadAt for ReadFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// Asks the system to read the range into its page cache.
    fn prefetch(&self, range: Range<u64>) {
        #[cfg(target_os = "linux")]
        {
            let len = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
            // Whatever is not read ahead is read when it is needed; a real fault shows there.
            let advise = |file: &File| {
                let _ = rustix::fs::fadvise(file, range.start, len, rustix::fs::Advice::WillNeed);
            };
            let _ = self.among.with_file(&self.handle, advise);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let read = self.among.with_file(&self.handle, |file| read_exact_at(file, offset, out))?;
        read.map_err(|e| Error::io("cannot read", &self.path, e))
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> std::io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !out.is_empty() {
        let read = file.seek_read(out, offset)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        offset += read as u64;
        out = &mut out[read..];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_by_position_and_names_the_file_that_ends_early() {
        let path = std::env::temp_dir().join(format!("gristmill-io-{}", std::process::id()));
        std::fs::write(&path, b"0123456789").expect("writable");
        let file = ReadFile::open(&path, &OpenFiles::new(1)).expect("exists");
        let mut out = [0; 4];
        file.read_exact_at(3, &mut out).expect("inside");
        assert_eq!((&out, file.len()), (b"3456", 10));
        let error = file.read_exact_at(8, &mut out).expect_err("past the end").to_string();
        assert!(error.contains("gristmill-io-"), "{error}");
        std::fs::remove_file(&path).expect("own file");
        assert!(matches!(ReadFile::open(&path, &OpenFiles::new(1)), Err(Error::Io { .. })));
    }
}
