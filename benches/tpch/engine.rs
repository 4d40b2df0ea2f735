//! The engines that are compared, and the Python environment of those that are not ours.
//!
//! Owns: [`Engine`], where the environment is and how it comes to be. The driver that runs in it is
//! `benches/support/peers.py`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Gristmill,
    DuckDb,
    Polars,
    DataFusion,
    /// No engine: see `floor`.
    Floor,
}

impl Engine {
    /// Those measured beside ours.
    pub const PEERS: [Self; 3] = [Self::DuckDb, Self::Polars, Self::DataFusion];

    /// As flags, modules of Python and reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gristmill => crate::support::report::OURS,
            Self::DuckDb => "duckdb",
            Self::Polars => "polars",
            Self::DataFusion => "datafusion",
            Self::Floor => "floor",
        }
    }

    /// As people write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Gristmill => "Gristmill",
            Self::DuckDb => "DuckDB",
            Self::Polars => "Polars",
            Self::DataFusion => "DataFusion",
            Self::Floor => "decode floor",
        }
    }

    /// Whether it answers queries as we do.
    pub fn is_peer(self) -> bool {
        Self::PEERS.contains(&self)
    }
}

/// The peers of a list of names; all of them without one.
pub fn peers(names: Option<&str>) -> Result<Vec<Engine>, String> {
    let Some(names) = names else { return Ok(Engine::PEERS.to_vec()) };
    let peer = |name: &str| {
        let known = Engine::PEERS.into_iter().find(|peer| peer.name() == name);
        known.ok_or_else(|| format!("--peers: '{name}' is none of duckdb, polars, datafusion"))
    };
    names.split(',').map(peer).collect()
}

/// The program that answers for a peer; `python` is its environment's.
pub fn driver(python: &Path, peer: Engine) -> Command {
    let mut command = Command::new(python);
    command.arg(driver_path()).arg(peer.name());
    command
}

/// The Python of an environment somebody made, which must have the peers, at whatever version.
pub fn existing_venv(folder: &Path, peers: &[Engine]) -> Result<PathBuf, String> {
    let python = folder.join("bin/python");
    let modules: Vec<&str> = peers.iter().map(|peer| peer.name()).collect();
    // The answers of DuckDB and DataFusion are taken through it.
    let import = format!("import pyarrow, {}", modules.join(", "));
    run(Command::new(&python).args(["-c", &import])).map_err(|e| {
        format!(
            "--peers-venv: '{}' lacks something: {e}\ninstall it with `{}/bin/pip install -r {}`, or leave the flag out",
            folder.display(),
            folder.display(),
            requirements().display()
        )
    })?;
    Ok(python)
}

/// The Python of the benchmark's own environment, made if it is missing, at the pinned versions.
pub fn own_venv() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers");
    let python = folder.join("bin/python");
    let remedy = |e: String| format!("{e}\nname an environment that has the peers with --peers-venv");
    if !python.exists() {
        eprintln!("making a Python environment in '{}'", folder.display());
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder)).map_err(remedy)?;
    }
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(&python).args(pip).arg(requirements())).map_err(remedy)?;
    Ok(python)
}

/// Runs a command to its end; its last words if it fails. The table has standard output for itself.
fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().display().to_string();
    let output = command.output().map_err(|e| format!("cannot start '{program}': {e}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("'{program}' failed: {}", errors.trim_end())) }
}

/// The script that answers for a peer.
pub fn driver_path() -> PathBuf {
    support_folder().join("peers.py")
}

/// What the environment is made of, at pinned versions.
pub fn requirements() -> PathBuf {
    support_folder().join("peers-requirements.txt")
}

fn support_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/support")
}
