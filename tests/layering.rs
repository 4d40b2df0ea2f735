//! Rooms depend in one direction only: reads the `crate::` paths of every source file and fails on a wrong one.
//!
//! The table below is the architecture. A room may use itself, the foundation, and what is listed for it. Unit tests may
//! use what they like: `#[cfg(test)] mod tests` at the end of a file, and files of tests.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// What everybody may use, and these each other.
const FOUNDATION: &[&str] = &["error", "config", "metrics", "sync"];

/// Room and the rooms it may use besides the foundation.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("config", &[]),
    ("metrics", &[]),
    ("sync", &[]),
    ("mem", &[]),
    ("data", &["mem"]),
    ("io", &["data", "mem"]),
    ("spill", &["io", "data", "mem"]),
    ("sched", &[]),
    ("expr", &["data", "mem"]),
    ("functions", &["expr", "data", "mem"]),
    ("catalog", &["expr", "data"]),
    ("logical", &["expr", "functions", "catalog", "data"]),
    ("sql", &["logical", "expr", "functions", "catalog", "data"]),
    ("optimizer", &["logical", "expr", "functions", "catalog", "data"]),
    ("exec", &["sched", "spill", "io", "data", "mem"]),
    ("scan", &["catalog", "exec", "expr", "data", "mem"]),
    ("operators", OVER_EXEC),
    ("parquet", OVER_EXEC),
    ("batches", OVER_EXEC),
    ("provider", OVER_EXEC),
    (
        "physical",
        &[
            "operators",
            "parquet",
            "batches",
            "scan",
            "logical",
            "exec",
            "expr",
            "functions",
            "catalog",
            "spill",
            "io",
            "data",
            "mem",
        ],
    ),
];

/// What operators and sources may use.
const OVER_EXEC: &[&str] = &["exec", "expr", "functions", "scan", "catalog", "spill", "io", "data", "mem"];

/// The façade: joins front and back, and is used by no room.
const FACADE: &[&str] = &["lib", "session", "fuzzing"];

/// Files and folders that are compiled for tests only, besides those called `…_tests`.
const TEST_FILES: &[&str] = &["tests", "testing"];

#[test]
fn rooms_depend_in_one_direction() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 10, "only {} source files found in {}", files.len(), src.display());
    let wrong: Vec<String> = files.iter().flat_map(|file| wrong_edges(&src, file)).collect();
    assert!(wrong.is_empty(), "\n{}\nsee tests/layering.rs", wrong.join("\n"));
}

#[test]
fn the_table_has_no_cycles() {
    let uses: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    for (room, _) in ROOMS {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> = uses[room].to_vec();
        while let Some(next) = open.pop() {
            assert_ne!(next, *room, "{room} reaches itself");
            if seen.insert(next) {
                open.extend(
                    uses.get(next)
                        .unwrap_or_else(|| panic!("{room} may use {next}, which has no line"))
                        .iter(),
                );
            }
        }
    }
}

#[test]
fn every_form_of_path_is_seen() {
    let rooms = |text: &str| crate_paths(text).into_iter().map(|(_, room)| room).collect::<Vec<_>>();
    assert_eq!(rooms("use crate::data::Batch;"), ["data"]);
    assert_eq!(rooms("use crate::{data::Batch, mem::{Pool, Account}, sql};"), ["data", "mem", "sql"]);
    assert_eq!(rooms("use crate::{\n    optimizer, physical,\n};"), ["optimizer", "physical"]);
    assert_eq!(rooms("let x = crate::mem::Pool::new();"), ["mem"]);
    assert_eq!(rooms("$crate::data::Values"), ["data"]);
    assert_eq!(
        rooms("// crate::sql\n/// [`crate::sql::bind`]\nlet s = \"x\"; // crate::sql"),
        Vec::<String>::new()
    );
    assert_eq!(rooms("pub(in crate::sched) fn f() {}"), ["sched"]);
    assert_eq!(rooms("my_crate::sql::f()"), Vec::<String>::new());
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

fn wrong_edges(src: &Path, file: &Path) -> Vec<String> {
    let relative = file.strip_prefix(src).expect("invariant: files are inside src");
    let first = relative.iter().next().and_then(|n| n.to_str()).expect("names are UTF-8");
    let room = first.trim_end_matches(".rs");
    if FACADE.contains(&room) {
        return Vec::new();
    }
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!("{}: room '{room}' has no line in the table", relative.display())];
    };
    // The scheduler is told nothing, not even settings.
    let foundation: &[&str] = if room == "sched" { &["error", "metrics", "sync"] } else { FOUNDATION };
    let is_for_tests = |part: &OsStr| {
        let stem = Path::new(part).file_stem().and_then(OsStr::to_str).unwrap_or_default();
        TEST_FILES.contains(&stem) || stem.ends_with("_tests")
    };
    if relative.iter().any(is_for_tests) {
        return Vec::new();
    }
    let text = fs::read_to_string(file).expect("readable");
    let production = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    crate_paths(production)
        .into_iter()
        .filter(|(_, used)| {
            let used = used.as_str();
            used != room && !allowed.contains(&used) && !foundation.contains(&used)
        })
        .map(|(line, used)| format!("{}:{line}: '{room}' must not use '{used}'", relative.display()))
        .collect()
}

/// Line and room of every path that starts at the crate's root, comments left out. A name with a capital is an item of
/// the root: room `lib`.
fn crate_paths(text: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    let mut code = String::with_capacity(text.len());
    for line in text.lines() {
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => paths.extend(group_heads(group).into_iter().map(|head| (line, head))),
            None => paths.extend(head(rest).map(|head| (line, head))),
        }
    }
    paths
}

/// The first name of a path.
fn head(path: &str) -> Option<String> {
    let path = path.trim_start();
    let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() || path[name.len()..].starts_with('!') {
        return None;
    }
    let is_item = name.starts_with(char::is_uppercase);
    Some(if is_item { String::from("lib") } else { name })
}

/// The first names of the paths of a `{…}` group whose brace is already read.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut start) = (1, 0);
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            heads.extend(head(&group[start..i]));
            start = i + 1;
        }
        if depth == 0 {
            break;
        }
    }
    heads
}
