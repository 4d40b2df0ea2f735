//! Failures of a disk, on demand.
//!
//! Owns: [`DiskFault`], [`FaultHook`].
//!
//! Must not know: who injects them, and how often.

use std::io::{Error, ErrorKind};
use std::sync::Arc;

/// A way in which a read or a write goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DiskFault {
    /// There is no room to write (ENOSPC); a read fails as if broken.
    Full,
    /// The device fails (EIO).
    Broken,
    /// Only a part of the bytes is written, or read.
    Short,
    /// It goes well, but one bit is not what it was.
    Corrupt,
}

/// Answers whether and how the next read or write is to fail.
pub(crate) type FaultHook = Arc<dyn Fn() -> Option<DiskFault> + Send + Sync>;

/// The operating system's number for a failing device; the same on every Linux.
const EIO: i32 = 5;

impl DiskFault {
    /// What the operating system would say to a write that fails in this way, and how many of `len` bytes it would have
    /// written by then; `None` if it would not notice.
    pub(super) fn of_write(self, len: usize) -> Option<(Error, usize)> {
        match self {
            Self::Full => Some((Error::from(ErrorKind::StorageFull), 0)),
            Self::Broken => Some((Error::from_raw_os_error(EIO), 0)),
            Self::Short => Some((Error::from(ErrorKind::WriteZero), len / 2)),
            Self::Corrupt => None,
        }
    }

    /// What it would say to a read.
    pub(super) fn of_read(self) -> Option<Error> {
        match self {
            Self::Full | Self::Broken => Some(Error::from_raw_os_error(EIO)),
            Self::Short => Some(Error::from(ErrorKind::UnexpectedEof)),
            Self::Corrupt => None,
        }
    }
}
