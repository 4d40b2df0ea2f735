//! Where breakers put what does not fit: blocks of rows in unlinked files, within a quota.
//!
//! Owns: [`SpillDirectory`] (where, how much), segments (the files), blocks (the format), [`SpillWriter`],
//! [`SpillFile`] and its reader.
//!
//! Invariants:
//! 1. A file has no name, or loses it as soon as it is open: whatever ends the process, the directory holds no data
//!    afterwards.
//! 2. Bytes are reserved from the quota before they are written, returned if the write fails, and returned when
//!    their segment is dropped: without segments the directory's use is zero.
//! 3. A block comes back exactly as written or as an error that names the file; never as other rows.
//! 4. Blocks of one partition are read in the order in which they were written.
//! 5. Large bytes live in slabs of the account passed along: a writer holds [`SpillWriter::staging_bytes`], which stand
//!    for the compressor's table as well, a reader the block it read last, and only as long as its batch lives. Neither
//!    they nor what was written need memory for each block.
//! 6. File handles grow with writers and written bytes (one per writer and 64 MiB), not with partitions.
//!
//! A block is an uncompressed Arrow IPC record-batch message (every part aligned to 64 bytes) and a trailer of 64 bytes
//! that says what it is and carries the checksum of it all. Where that saves a quarter, the message's columns are packed
//! ([`pack`]); else, where that saves a tenth, it is one LZ4 block; else it is as it is. The message is compressed as a whole and not by Arrow, whose codec allocates per buffer and misaligns what it leaves
//! raw. Reads and writes are positional; nothing is mapped,
//! so that a disk error is an error and not a signal.
//!
//! Must not know: operators, what partitions mean, who decides to spill.

mod block;
mod checksum;
mod directory;
mod fault;
mod file;
mod index;
mod pack;
mod segment;
mod writer;

pub(crate) use directory::SpillDirectory;
pub(crate) use fault::{DiskFault, FaultHook};
pub(crate) use file::{ReadBehind, SpillFile, SpillReader};
pub(crate) use writer::SpillWriter;

#[cfg(test)]
mod tests;
