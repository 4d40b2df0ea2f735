//! Append-only files of blocks.

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
const ROTATE_BYTES: u64 = 64 << 20;
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
    /// Bytes of what is complete; what lies beyond is the debris of a failed append.
    committed_bytes: u64,
    /// Bytes reserved from the quota: the committed ones and those being written.
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
    #[cfg(test)]
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// Notes that a block was written (or read back, if not `is_write`), and how long that took.
    pub(super) fn note_block(&self, started: Instant, is_write: bool) {
        let meter = self.directory.meter();
        let (blocks, nanos) = match is_write {
            true => (&meter.blocks_written, &meter.write_nanos),
            false => (&meter.blocks_read, &meter.read_nanos),
        };
        blocks.fetch_add(1, Relaxed);
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

    /// Everything appended so far is complete.
    fn commit(&mut self) {
        let meter = self.directory.meter();
        meter.bytes_written.fetch_add(self.reserved_bytes - self.committed_bytes, Relaxed);
        self.committed_bytes = self.reserved_bytes;
    }

    /// Forgets what was appended since the last commit and returns it to the quota.
    fn roll_back(&mut self) {
        self.directory.release(self.reserved_bytes - self.committed_bytes);
        self.reserved_bytes = self.committed_bytes;
        // If the system refuses, the debris stays until the file is closed; the next block overwrites it.
        let _ = self.file.set_len(self.committed_bytes);
    }

    /// Writes over what was appended and committed at `offset`.
    pub(super) fn overwrite(&self, bytes: &[u8], offset: u64) -> Result<()> {
        debug_assert!(offset + bytes.len() as u64 <= self.committed_bytes, "of what is there");
        let written = match self.directory.injected().and_then(|fault| fault.of_write(bytes.len())) {
            None => self.file.write_all_at(bytes, offset),
            Some((error, _)) => Err(error),
        };
        written.map_err(|e| Error::io("cannot write spill file", &*self.path, e))
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
        self.directory.meter().bytes_read.fetch_add(to.len() as u64, Relaxed);
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

/// The files of one writer, of which it appends to the last.
#[derive(Debug)]
pub(super) struct Segments {
    directory: SpillDirectory,
    all: Vec<Segment>,
}

/// Where something was appended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Appended {
    pub(super) segment: u32,
    pub(super) start: u64,
}

impl Segments {
    /// None yet.
    pub(super) fn new(directory: SpillDirectory) -> Self {
        Self { directory, all: Vec::new() }
    }

    /// Calls `append` with a segment and its number, as a whole or not at all: in the next place if it fails in one.
    pub(super) fn append(
        &mut self,
        mut append: impl FnMut(u32, &mut Segment) -> Result<()>,
    ) -> Result<Appended> {
        if self.all.last().is_none_or(|segment| segment.len() >= ROTATE_BYTES) {
            self.all.push(self.directory.segment(None)?);
        }
        let mut places_left = self.directory.places().len();
        loop {
            let number = self.all.len() - 1;
            let segment = &mut self.all[number];
            let start = segment.len();
            let Err(error) = append(number as u32, segment) else {
                segment.commit();
                return Ok(Appended { segment: number as u32, start });
            };
            segment.roll_back();
            places_left -= 1;
            // A disk that is full or broken may not be the only one.
            if places_left == 0 || !matches!(error, Error::Io { .. }) {
                return Err(error);
            }
            let full = segment.place;
            self.all.push(self.directory.segment(Some(full))?);
        }
    }

    /// Number `number`.
    pub(super) fn of(&self, number: u32) -> &Segment {
        &self.all[number as usize]
    }

    /// All of them, for reading.
    pub(super) fn into_all(self) -> Vec<Segment> {
        self.all
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
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
