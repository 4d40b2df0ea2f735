//! An append-only file of blocks.

use super::directory::SpillDirectory;
use super::fault::DiskFault;
use crate::error::{Error, Result};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// A writer starts a new segment once one has this many bytes.
pub(super) const ROTATE_BYTES: u64 = 64 << 20;
/// File systems give back whole blocks, which are at most this.
const PAGE_BYTES: u64 = 4096;

/// A file that has no name any more. Its bytes return to the quota when it is dropped.
#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    /// Which of the directory's places it is in.
    place: usize,
    /// The name it would have, for errors.
    path: Arc<PathBuf>,
    directory: SpillDirectory,
    /// Bytes of complete blocks; what lies beyond is the debris of a failed append.
    committed_bytes: u64,
    /// Bytes reserved from the quota: the committed ones and those of a block being written.
    reserved_bytes: u64,
    /// Of these, bytes given back to the file system and to the quota already.
    freed_bytes: AtomicU64,
}

impl Segment {
    pub(super) fn new(file: File, place: usize, path: Arc<PathBuf>, directory: SpillDirectory) -> Self {
        Self {
            file,
            place,
            path,
            directory,
            committed_bytes: 0,
            reserved_bytes: 0,
            freed_bytes: AtomicU64::new(0),
        }
    }

    /// Which of the directory's places it is in.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// Notes how long a block took to write (or read back, if not `is_write`).
    pub(super) fn note_time(&self, started: Instant, is_write: bool) {
        let meter = self.directory.meter();
        let nanos = if is_write { &meter.write_nanos } else { &meter.read_nanos };
        nanos.fetch_add(started.elapsed().as_nanos() as u64, Relaxed);
    }

    /// The name it would have.
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
        let written = match self.directory.injected() {
            None => self.file.write_all_at(bytes, at),
            Some(fault) => self.write_badly(bytes, at, fault),
        };
        written.map_err(|e| Error::io("cannot write spill file", &*self.path, e))
    }

    #[cold]
    fn write_badly(&self, bytes: &[u8], at: u64, fault: DiskFault) -> io::Result<()> {
        if let Some((error, written)) = fault.of_write(bytes.len()) {
            self.file.write_all_at(&bytes[..written], at)?;
            return Err(error);
        }
        self.file.write_all_at(bytes, at)?;
        let place = bytes.len() / 2;
        bytes.get(place).map_or(Ok(()), |byte| self.file.write_all_at(&[byte ^ 0x10], at + place as u64))
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
        let fault = self.directory.injected();
        let read = match fault.and_then(DiskFault::of_read) {
            None => self.file.read_exact_at(to, offset),
            Some(error) => Err(error),
        };
        read.map_err(|e| Error::io("cannot read spill file", &*self.path, e))?;
        if fault.is_some()
            && let Some(byte) = to.first_mut()
        {
            *byte ^= 0x10;
        }
        let meter = self.directory.meter();
        meter.blocks_read.fetch_add(1, Relaxed);
        meter.bytes_read.fetch_add(to.len() as u64, Relaxed);
        Ok(())
    }

    /// Gives whole pages of the range, which nobody will read again, back to the file system and to the quota. A file
    /// system that cannot do that keeps them until the segment is dropped.
    pub(super) fn free(&self, range: Range<u64>) {
        let start = range.start.next_multiple_of(PAGE_BYTES);
        let end = range.end / PAGE_BYTES * PAGE_BYTES;
        if start < end && punch_hole(&self.file, start, end - start).is_ok() {
            self.freed_bytes.fetch_add(end - start, Relaxed);
            self.directory.release(end - start);
        }
    }

    /// Overwrites a byte, as a failing disk would.
    #[cfg(test)]
    pub(super) fn damage(&self, offset: u64, xor: u8) {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, offset).expect("within the file");
        self.file.write_all_at(&[byte[0] ^ xor], offset).expect("writable");
    }
}

#[cfg(target_os = "linux")]
fn punch_hole(file: &File, offset: u64, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    Ok(fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)?)
}

#[cfg(not(target_os = "linux"))]
fn punch_hole(_file: &File, _offset: u64, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.directory.release(self.reserved_bytes - self.freed_bytes.load(Relaxed));
    }
}
