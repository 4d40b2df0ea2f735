//! The queries of TPC-H through the public interface:
//! `cargo bench --bench tpch -- --path data/tpch-sf1 --json now.json --baseline before.json`.

mod support;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use support::{Case, Options};

const TABLES: [&str; 8] =
    ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"];

fn main() -> ExitCode {
    support::exit(Options::parse().and_then(|options| run(&options)))
}

fn run(options: &Options) -> Result<(), String> {
    let engine = options.engine()?;
    let session = engine.session();
    for table in TABLES {
        let one_file = options.path.join(format!("{table}.parquet"));
        let path = if one_file.exists() { one_file } else { options.path.join(table) };
        let remedy =
            "make the tables with `gristmill generate-parquet --sf 1 --output DIR`, name them with --path";
        session.register_parquet(table, &path).map_err(|e| format!("{e}\n{remedy}"))?;
    }
    support::measure("tpch", &session, queries()?, options)
}

/// The texts the command line ships.
fn queries() -> Result<Vec<Case>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/runner/tpch/queries");
    let text = |number: usize| {
        let name = format!("q{number:02}");
        let path = folder.join(&name).with_extension("sql");
        let sql = fs::read_to_string(&path).map_err(|e| format!("cannot read '{}': {e}", path.display()))?;
        Ok(Case { name, sql, input_rows: 0 })
    };
    (1..=22).map(text).collect()
}
