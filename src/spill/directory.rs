//! The directories, their quota, and what was written to them.

use super::fault::{DiskFault, FaultHook};
use super::segment::Segment;
use super::writer::SpillWriter;
use crate::data::DataType;
use crate::error::{Error, Result};
use crate::mem::Account;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How often a folder that is not there is made for one file.
const MOST_TRIES: u32 = 4;

/// What was spilled and read back, by one query or by all of an engine.
#[derive(Debug, Default)]
pub(crate) struct SpillMeter {
    /// Files created.
    pub(crate) files: AtomicU64,
    /// Blocks written.
    pub(crate) blocks_written: AtomicU64,
    /// Bytes written.
    pub(crate) bytes_written: AtomicU64,
    /// Blocks read back; one read twice counts twice.
    pub(crate) blocks_read: AtomicU64,
    /// Bytes read back.
    pub(crate) bytes_read: AtomicU64,
    /// Nanoseconds of encoding, compressing and writing.
    pub(crate) write_nanos: AtomicU64,
    /// Nanoseconds of reading, decompressing and decoding.
    pub(crate) read_nanos: AtomicU64,
}

/// Where breakers spill: an engine has one, and each query a child that shares its places and quota and keeps its own
/// figures. Nothing is created before the first write. Cloning is cheap and shares everything.
///
/// Of several places segments take turns, so that disks share the work; one that is full or broken is passed over while
/// another is not.
#[derive(Clone)]
pub(crate) struct SpillDirectory {
    root: Arc<Root>,
    meter: Arc<SpillMeter>,
    fails: Option<FaultHook>,
}

#[derive(Debug)]
struct Root {
    /// None if nobody named one and every usual one is in memory.
    places: Vec<Arc<PathBuf>>,
    quota_bytes: u64,
    used_bytes: AtomicU64,
    next_file: AtomicU64,
}

impl SpillDirectory {
    /// Spills to `places`, which are created when first needed, or to [`default_path`] if there are none; at most
    /// `quota_bytes` are in use at any moment. A given path is taken as it is, in memory or not.
    pub(crate) fn new(places: impl IntoIterator<Item = PathBuf>, quota_bytes: u64) -> Self {
        let mut places: Vec<Arc<PathBuf>> = places.into_iter().map(Arc::new).collect();
        if places.is_empty() {
            places.extend(default_path().map(Arc::new));
        }
        let root = Root { places, quota_bytes, used_bytes: AtomicU64::new(0), next_file: AtomicU64::new(0) };
        Self { root: Arc::new(root), meter: Arc::default(), fails: None }
    }

    /// The same places and quota with figures of its own. Reads and writes fail when `fails` says so.
    #[must_use]
    pub(crate) fn for_query(&self, fails: Option<FaultHook>) -> Self {
        Self { root: Arc::clone(&self.root), meter: Arc::default(), fails }
    }

    /// Starts a set of spilled partitions of rows typed `schema`.
    ///
    /// `block_bytes` is the size blocks are kept to: batches that would make a larger one are written as several, so
    /// that a reader never needs much more (a single row may be larger). The staging buffer comes from `account`.
    ///
    /// # Errors
    /// Memory errors; [`Error::Unsupported`] for nested columns that contain dictionaries.
    pub(crate) fn writer(
        &self,
        schema: &[DataType],
        account: &Account,
        block_bytes: usize,
    ) -> Result<SpillWriter> {
        SpillWriter::new(self.clone(), schema, account, block_bytes)
    }

    /// Bytes this query has written so far.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.meter.bytes_written.load(Relaxed)
    }

    /// Bytes of the quota that nobody uses.
    pub(crate) fn available_bytes(&self) -> u64 {
        self.root.quota_bytes.saturating_sub(self.root.used_bytes.load(Relaxed))
    }

    /// Where it is; nowhere if nobody said and there is no disk.
    pub(crate) fn places(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.root.places.iter().map(|place| place.as_path())
    }

    /// The most bytes that may be in use.
    pub(crate) fn quota_bytes(&self) -> u64 {
        self.root.quota_bytes
    }

    /// Bytes of the quota in use, by all queries.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.root.used_bytes.load(Relaxed)
    }

    /// What this query has written and read.
    pub(crate) fn meter(&self) -> &SpillMeter {
        &self.meter
    }

    /// Takes `bytes` of the quota, or fails and takes nothing.
    pub(super) fn reserve(&self, bytes: u64) -> Result<()> {
        let limit_bytes = self.root.quota_bytes;
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= limit_bytes);
        match self.root.used_bytes.fetch_update(Relaxed, Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(used_bytes) => Err(Error::SpillQuota { required_bytes: bytes, used_bytes, limit_bytes }),
        }
    }

    /// Returns bytes to the quota.
    pub(super) fn release(&self, bytes: u64) {
        self.root.used_bytes.fetch_sub(bytes, Relaxed);
    }

    /// How the next read or write is to fail, if it is.
    pub(super) fn injected(&self) -> Option<DiskFault> {
        self.fails.as_ref().and_then(|fails| fails())
    }

    /// A new, empty segment, in another place than that of `full`, if there is another.
    ///
    /// # Errors
    /// What the last place said, if none takes a segment.
    pub(super) fn segment(&self, full: Option<usize>) -> Result<Segment> {
        let number = self.root.next_file.fetch_add(1, Relaxed);
        let places = self.root.places.len();
        if places == 0 {
            let why = "the temporary directory, /var/tmp and the current directory are all in memory; set temp_directory";
            return Err(Error::io("cannot choose a place to spill to", ".", io::Error::other(why)));
        }
        let mut turn = (number % places as u64) as usize;
        if Some(turn) == full {
            turn += 1;
        }
        let mut answer = None;
        for place in (turn..turn + places).map(|place| place % places) {
            match self.segment_at(place, number) {
                Ok(segment) => return Ok(segment),
                Err(error) => answer = Some(error),
            }
        }
        Err(answer.unwrap_or_else(|| Error::internal("there is no spill directory")))
    }

    fn segment_at(&self, place: usize, number: u64) -> Result<Segment> {
        let folder = &self.root.places[place];
        let mut name = format!("gristmill-{}-{number}.spill", std::process::id());
        let mut tries = 0;
        loop {
            let path = folder.join(&name);
            match create_unnamed(folder, &path) {
                Ok(file) => {
                    self.meter.files.fetch_add(1, Relaxed);
                    return Ok(Segment::new(file, place, Arc::new(path), self.clone()));
                }
                // Another engine of this process, or one whose process id came round again, was faster.
                Err((_, e)) if e.kind() == ErrorKind::AlreadyExists => name.insert(0, '_'),
                // Somebody may take the folder away again.
                Err((_, e)) if e.kind() == ErrorKind::NotFound && tries < MOST_TRIES => {
                    fs::create_dir_all(&**folder)
                        .map_err(|e| Error::io("cannot create spill directory", &**folder, e))?;
                    tries += 1;
                }
                Err((operation, e)) => return Err(Error::io(operation, path, e)),
            }
        }
    }
}

impl fmt::Debug for SpillDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillDirectory").field("root", &self.root).field("meter", &self.meter).finish()
    }
}

/// A file in `folder` that never has a name, so that whatever ends the process leaves nothing. Where the file system has
/// no such files it is one whose name `path` is taken away at once: a process killed in between leaves an empty file.
#[cfg(target_os = "linux")]
fn create_unnamed(folder: &Path, path: &Path) -> Result<File, (&'static str, io::Error)> {
    use rustix::fs::{Mode, OFlags};
    use rustix::io::Errno;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(folder, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(File::from(file)),
        // What kernels and file systems without them answer.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => create_unlinked(path),
        Err(errno) => Err(("cannot create spill file", errno.into())),
    }
}

#[cfg(not(target_os = "linux"))]
fn create_unnamed(_folder: &Path, path: &Path) -> Result<File, (&'static str, io::Error)> {
    create_unlinked(path)
}

fn create_unlinked(path: &Path) -> Result<File, (&'static str, io::Error)> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| ("cannot create spill file", e))?;
    fs::remove_file(path).map_err(|e| ("cannot unlink spill file", e))?;
    Ok(file)
}

/// Where to spill if nobody says: the first of the system's temporary directory, `/var/tmp` and the current directory
/// that does not lie in memory, where spilling would move bytes from one ledger to none. `None` if all do.
fn default_path() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = [std::env::temp_dir(), PathBuf::from("/var/tmp"), PathBuf::from(".")];
    first_on_disk(places.into_iter().filter_map(|path| path.canonicalize().ok()), &mounts)
}

/// The first folder among `places` that is not in memory.
fn first_on_disk(mut places: impl Iterator<Item = PathBuf>, mounts: &str) -> Option<PathBuf> {
    places.find(|path| path.is_dir() && !is_in_memory(path, mounts))
}

/// Whether `path`, absolute and without links, lies on a file system in memory, according to the system's table of
/// `mounts`: the deepest mount point above the path decides, and of several mounted there the last.
fn is_in_memory(path: &Path, mounts: &str) -> bool {
    let mut deepest: Option<(usize, bool)> = None;
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(point), Some(kind)) = (words.next(), words.next()) else { continue };
        let point = unescape(point);
        let depth = Path::new(&point).components().count();
        if path.starts_with(&point) && deepest.is_none_or(|(d, _)| depth >= d) {
            deepest = Some((depth, matches!(kind, "tmpfs" | "ramfs" | "devtmpfs")));
        }
    }
    deepest.is_some_and(|(_, in_memory)| in_memory)
}

/// Mount points have blanks and backslashes as three octal digits after a backslash.
fn unescape(point: &str) -> String {
    let blanks = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    blanks.iter().fold(point.to_owned(), |text, (code, blank)| text.replace(code, blank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_last_mount_decides_what_is_in_memory() {
        let mounts = "/dev/sda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/sdb /tmp/real\\040disk ext4 rw 0 0\n\
                      tmpfs /mnt tmpfs rw 0 0\n/dev/sdc /mnt xfs rw 0 0\n";
        for (path, expected) in [
            ("/var/tmp", false),
            ("/tmp", true),
            ("/tmp/x/y", true),
            ("/tmpfile", false),
            ("/tmp/real disk/x", false),
            ("/mnt/x", false),
        ] {
            assert_eq!(is_in_memory(Path::new(path), mounts), expected, "{path}");
        }
        assert!(!is_in_memory(Path::new("/tmp"), ""));
    }

    #[test]
    fn nothing_is_spilled_into_memory_unless_somebody_says_so() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().canonicalize().expect("it is there");
        let in_memory = format!("tmpfs {} tmpfs rw 0 0\n", path.display());
        let places = || [path.join("missing"), path.clone()].into_iter();
        assert_eq!(first_on_disk(places(), ""), Some(path.clone()));
        assert_eq!(first_on_disk(places(), &in_memory), None);
        let nowhere = SpillDirectory {
            root: Arc::new(Root {
                places: Vec::new(),
                quota_bytes: 100,
                used_bytes: AtomicU64::new(0),
                next_file: AtomicU64::new(0),
            }),
            meter: Arc::default(),
            fails: None,
        };
        let error = nowhere.segment(None).map(|_| ()).expect_err("there is no place").to_string();
        assert!(error.contains("temp_directory"), "{error}");
    }

    #[test]
    fn the_quota_is_shared_and_figures_are_not() {
        let root = SpillDirectory::new(Some(PathBuf::from("unused")), 100);
        let (a, b) = (root.for_query(None), root.for_query(None));
        a.reserve(60).expect("fits");
        let refused = b.reserve(41).expect_err("too much");
        assert!(matches!(
            refused,
            Error::SpillQuota { required_bytes: 41, used_bytes: 60, limit_bytes: 100 }
        ));
        assert!(b.reserve(u64::MAX).is_err());
        b.reserve(40).expect("fits exactly");
        a.release(60);
        assert_eq!(root.used_bytes(), 40);
    }
}
