//! An append-only file of blocks.

use super::directory::SpillDirectory;
use crate::error::{Error, Result};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// A writer starts a new segment once one has this many bytes.
pub(super) const ROTATE_BYTES: u64 = 64 << 20;

/// A file that has no name any more. Its bytes return to the quota when it is dropped.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    /// The name it was created under, for errors.
    path: Arc<PathBuf>,
    directory: SpillDirectory,
    /// Bytes of complete blocks; what lies beyond is the debris of a failed append.
    committed_bytes: u64,
    /// Bytes reserved from the quota: the committed ones and those of a block being written.
    reserved_bytes: u64,
}

impl Segment {
    pub(super) fn new(file: File, path: Arc<PathBuf>, directory: SpillDirectory) -> Self {
        Self { file, path, directory, committed_bytes: 0, reserved_bytes: 0 }
    }

    /// Notes how long a block took to write (or read back, if not `is_write`).
    pub(super) fn note_time(&self, started: Instant, is_write: bool) {
        let meter = self.directory.meter();
        let nanos = if is_write { &meter.write_nanos } else { &meter.read_nanos };
        nanos.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
    }

    /// The name it was created under.
    pub(super) fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Bytes of complete blocks: where the next one begins.
    pub(super) fn len(&self) -> u64 {
        self.committed_bytes
    }

    /// Writes after what is written already, reserving the bytes first.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let len = bytes.len() as u64;
        self.directory.reserve(len)?;
        let at = self.reserved_bytes;
        self.reserved_bytes += len;
        self.directory
            .injected(ErrorKind::StorageFull)
            .and_then(|()| self.file.write_all_at(bytes, at))
            .map_err(|e| Error::io("cannot write spill file", &*self.path, e))
    }

    /// Everything appended so far is a complete block.
    pub(super) fn commit(&mut self) {
        let meter = self.directory.meter();
        meter.blocks_written.fetch_add(1, Relaxed);
        meter.bytes_written.fetch_add(self.reserved_bytes - self.committed_bytes, Relaxed);
        self.committed_bytes = self.reserved_bytes;
    }

    /// Forgets what was appended since the last commit and returns it to the quota.
    pub(super) fn roll_back(&mut self) {
        self.directory.release(self.reserved_bytes - self.committed_bytes);
        self.reserved_bytes = self.committed_bytes;
        // If the system refuses, the debris stays until the file is closed; the next block overwrites it.
        let _ = self.file.set_len(self.committed_bytes);
    }

    /// Fills `to` from `offset`.
    pub(super) fn read(&self, to: &mut [u8], offset: u64) -> Result<()> {
        self.directory
            .injected(ErrorKind::Other)
            .and_then(|()| self.file.read_exact_at(to, offset))
            .map_err(|e| Error::io("cannot read spill file", &*self.path, e))?;
        let meter = self.directory.meter();
        meter.blocks_read.fetch_add(1, Relaxed);
        meter.bytes_read.fetch_add(to.len() as u64, Relaxed);
        Ok(())
    }

    /// Overwrites a byte, as a failing disk would.
    #[cfg(test)]
    pub(super) fn damage(&self, offset: u64, xor: u8) {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, offset).expect("within the file");
        self.file.write_all_at(&[byte[0] ^ xor], offset).expect("writable");
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.directory.release(self.reserved_bytes);
    }
}
