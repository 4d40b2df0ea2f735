//! Where bytes of results go: standard output, a file that is replaced whole, or what cannot be replaced.
//!
//! Owns: [`Target`].
//!
//! Invariants:
//! 1. A regular file is replaced by a rename once everything is written; it keeps its mode, and a symbolic link to it
//!    stays one.
//! 2. Devices, pipes and what this process has open already (`/dev/stdout`) are written to as they are.
//!
//! Must not know: formats.

use crate::interrupt::{Interrupt, Temporary};
use anyhow::{Context, bail};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Links followed before they are taken for a circle, as Linux does.
const MOST_LINKS: usize = 40;

/// Where results go.
pub enum Target {
    Stdout(BufWriter<io::Stdout>),
    Direct { path: PathBuf, file: BufWriter<File> },
    Replaced { path: PathBuf, temporary: BufWriter<NamedTempFile>, _removed_on_signal: Temporary },
}

impl Target {
    /// Standard output.
    pub(super) fn stdout() -> Self {
        Self::Stdout(BufWriter::new(io::stdout()))
    }

    /// What `path` names. A file appears at [`Target::commit`].
    pub fn of(path: &Path, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let cannot = || format!("cannot write to '{}'", path.display());
        match Place::of(path).with_context(cannot)? {
            Place::Direct => {
                // A pipe opens when somebody reads it.
                let _waiting = interrupt.waiting()?;
                // What others write there too is not overwritten.
                let file = OpenOptions::new().append(true).open(path).with_context(cannot)?;
                Ok(Self::Direct { path: path.to_owned(), file: BufWriter::new(file) })
            }
            Place::Folder => bail!("cannot write to '{}': it is a folder; name a file in it", path.display()),
            Place::File(resolved) => {
                let folder =
                    resolved.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let temporary = tempfile::Builder::new()
                    .prefix(".gristmill-")
                    // As `File::create` would make it: the umask decides.
                    .permissions(Permissions::from_mode(0o666))
                    .tempfile_in(folder)
                    .map_err(without_path)
                    .with_context(cannot)?;
                let _removed_on_signal = interrupt.temporary(temporary.path());
                Ok(Self::Replaced {
                    path: resolved,
                    temporary: BufWriter::new(temporary),
                    _removed_on_signal,
                })
            }
        }
    }

    /// What takes the bytes.
    pub fn writer(&mut self) -> &mut (dyn Write + Send) {
        match self {
            Self::Stdout(stdout) => stdout,
            Self::Direct { file, .. } => file,
            Self::Replaced { temporary, .. } => temporary,
        }
    }

    /// Makes everything written visible.
    pub fn commit(self) -> anyhow::Result<()> {
        match self {
            Self::Stdout(mut stdout) => stdout.flush().context("cannot write to standard output"),
            Self::Direct { path, mut file } => {
                file.flush().with_context(|| format!("cannot write '{}'", path.display()))
            }
            Self::Replaced { path, temporary, _removed_on_signal } => {
                let cannot = || format!("cannot write '{}'", path.display());
                let temporary =
                    temporary.into_inner().map_err(io::IntoInnerError::into_error).with_context(cannot)?;
                if let Ok(old) = fs::metadata(&path) {
                    temporary.as_file().set_permissions(old.permissions()).with_context(cannot)?;
                }
                temporary.persist(&path).map_err(|e| e.error).with_context(cannot)?;
                Ok(())
            }
        }
    }
}

/// What the system said of a temporary file, whose name nobody knows.
fn without_path(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.source());
    let system = inner.and_then(|inner| inner.downcast_ref::<io::Error>());
    system.and_then(io::Error::raw_os_error).map_or(error, io::Error::from_raw_os_error)
}

/// What a path names.
enum Place {
    /// A regular file, or nothing yet, at this path without links.
    File(PathBuf),
    Folder,
    /// Anything else.
    Direct,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(there) if there.is_dir() => return Ok(Self::Folder),
            Ok(there) if !there.is_file() => return Ok(Self::Direct),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut resolved = path.to_owned();
        for _ in 0..MOST_LINKS {
            if !resolved.is_symlink() {
                return Ok(Self::File(resolved));
            }
            let folder = resolved.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            // Links of the process file system stand for open files, whose names are no paths.
            if folder.canonicalize()?.starts_with("/proc") {
                return Ok(Self::Direct);
            }
            resolved = folder.join(fs::read_link(&resolved)?);
        }
        Err(io::Error::other("too many symbolic links"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(path: &Path, text: &str) -> anyhow::Result<()> {
        let mut target = Target::of(path, &Interrupt::default())?;
        target.writer().write_all(text.as_bytes())?;
        target.commit()
    }

    #[test]
    fn links_stay_links_and_files_keep_their_mode() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::create_dir(dir.path().join("elsewhere")).expect("a folder");
        fs::write(&file, "old").expect("writable");
        fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("its mode changes");
        symlink("file", &link).expect("a link");
        write(&link, "new").expect("writes");
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&file).expect("readable"), "new");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o7777, 0o640);

        let dangling = dir.path().join("dangling");
        symlink("elsewhere/made", &dangling).expect("a link");
        write(&dangling, "made").expect("writes");
        assert_eq!(fs::read_to_string(dir.path().join("elsewhere/made")).expect("readable"), "made");
        let circle = dir.path().join("circle");
        symlink("circle", &circle).expect("a link");
        assert!(write(&circle, "").is_err());
        let error = write(dir.path(), "").expect_err("a folder").to_string();
        assert!(error.contains("is a folder"), "{error}");
    }

    #[test]
    fn what_a_signal_must_remove_is_known_until_it_is_in_place() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("file");
        let mut target = Target::of(&path, &Interrupt::default()).expect("writable");
        target.writer().write_all(b"text").expect("writes");
        assert!(!path.exists(), "nothing appears before commit");
        drop(target);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0, "no temporary file stays");
    }
}
