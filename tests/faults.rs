//! Disks that fail while queries spill: the query ends with an error of its own or with the right rows, the engine lives
//! on, and nothing is left behind, not even by a process that is killed.

mod support;

use gristmill::{Engine, EngineBuilder, Error, Query, Session, TestKnobs};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::{rows, tables};
use tempfile::TempDir;

/// Each spills in another breaker.
const QUERIES: [&str; 5] = [
    "select count(*), sum(l_quantity), max(o_comment) from lineitem join orders on l_orderkey = o_orderkey",
    "select count(*), sum(n), max(c) from (select l_orderkey, count(*) n, max(l_comment) c from lineitem group by 1)",
    "select * from (select l_comment, l_orderkey from lineitem order by l_comment, l_orderkey, l_linenumber) limit 3",
    "with x as (select o_custkey, count(*) n from orders group by 1) select count(*) from x a join x b on a.n = b.n",
    "select count(distinct l_comment), count(distinct l_partkey) from lineitem",
];
/// A chance that a few reads and writes of each query fail.
const SOMETIMES: u16 = 600;
const PATIENCE: Duration = Duration::from_secs(60);

type Rows = Vec<Vec<String>>;

/// Everything is spilled that can be.
fn spilling(folder: &Path) -> EngineBuilder {
    builder(folder, TestKnobs::default())
}

fn builder(folder: &Path, knobs: TestKnobs) -> EngineBuilder {
    let knobs = TestKnobs { refuse_grant: u16::MAX, ..knobs };
    Engine::builder().threads(2).memory_limit(32 << 20).temp_directory(folder).testing(knobs)
}

fn session(engine: &Engine) -> Session {
    let session = engine.session();
    for (name, file) in tables::all() {
        session.register_parquet(&name, file).expect("a good file");
    }
    session
}

fn answer(session: &Session, sql: &str) -> Result<Rows, Error> {
    session.query(sql).and_then(Query::collect).map(|batches| rows::texts(&batches))
}

fn expected() -> Vec<Rows> {
    let engine = Engine::builder().threads(2).memory_limit(1 << 30).build().expect("starts");
    let session = session(&engine);
    let expected: Vec<Rows> = QUERIES.map(|sql| answer(&session, sql).expect("no faults")).into();
    assert_eq!(engine.temp_directory_used(), 0);
    expected
}

/// Runs all queries once, each either rightly or with an error that `is_own`; how many went which way.
fn run_all(session: &Session, expected: &[Rows], is_own: impl Fn(&Error) -> bool) -> (usize, usize) {
    let (mut right, mut failed) = (0, 0);
    for (sql, expected) in QUERIES.iter().zip(expected) {
        match answer(session, sql) {
            Ok(rows) => {
                assert!(rows == *expected, "{sql}");
                right += 1;
            }
            Err(error) if is_own(&error) => failed += 1,
            Err(error) => panic!("{sql}: {error}"),
        }
    }
    (right, failed)
}

/// Waits until the engine holds `held_bytes` and no file in `folder` is open, which of a failed query is so once its last
/// task is gone.
fn wait_for_baseline(engine: &Engine, folder: &Path, held_bytes: usize) {
    let held = || (engine.memory_used(), engine.temp_directory_used(), open_files("self", folder));
    let start = Instant::now();
    while held() != (held_bytes, 0, 0) {
        assert!(start.elapsed() < PATIENCE, "{:?} are left of {held_bytes}", held());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Bytes the engine holds once no query runs any more: those of its tables.
fn settled(engine: &Engine) -> usize {
    let start = Instant::now();
    while engine.running_queries() > 0 {
        assert!(start.elapsed() < PATIENCE, "a failed query goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
    engine.memory_used()
}

/// Files below `folder` that a process has open, with and without names.
fn open_files(process: &str, folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(format!("/proc/{process}/fd")) else { return 0 };
    let targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.starts_with(folder)).count()
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

fn is_io_in(folder: &Path) -> impl Fn(&Error) -> bool {
    move |error| matches!(error, Error::Io { path, .. } if path.starts_with(folder))
}

// Tests of this file look at the process's open files, so they are one test.
#[test]
fn failing_disks_fail_their_query_and_leave_nothing() {
    let expected = expected();
    no_room_broken_or_short(&expected);
    other_bytes_than_were_written(&expected);
    quotas(&expected);
    folders_that_cannot_be_written(&expected);
    a_folder_that_goes_away(&expected);
    a_process_that_is_killed();
    two_processes_in_one_folder();
}

fn no_room_broken_or_short(expected: &[Rows]) {
    let folder = TempDir::new().expect("temporary folder");
    let (mut right, mut failed) = (0, 0);
    for seed in 0..8 {
        let knobs = TestKnobs { spill_error: SOMETIMES, seed, ..TestKnobs::default() };
        let engine = builder(folder.path(), knobs).build().expect("starts");
        let session = session(&engine);
        let _ = run_all(&session, expected, is_io_in(folder.path()));
        let held = settled(&engine);
        for _ in 0..3 {
            let (r, f) = run_all(&session, expected, is_io_in(folder.path()));
            (right, failed) = (right + r, failed + f);
            wait_for_baseline(&engine, folder.path(), held);
        }
    }
    assert!(right > 5 && failed > 5, "{right} right, {failed} failed");
    assert_eq!(entries(folder.path()), 0);
}

fn other_bytes_than_were_written(expected: &[Rows]) {
    let folder = TempDir::new().expect("temporary folder");
    let names_the_file = |error: &Error| {
        let Error::Data(data) = error else { return false };
        data.origin.as_ref().is_some_and(|origin| origin.file.starts_with(folder.path()))
            && error.to_string().contains("damaged spill block")
    };
    let (mut right, mut failed) = (0, 0);
    for seed in 0..8 {
        let knobs = TestKnobs { spill_corruption: SOMETIMES, seed, ..TestKnobs::default() };
        let engine = builder(folder.path(), knobs).build().expect("starts");
        let session = session(&engine);
        let _ = run_all(&session, expected, names_the_file);
        let held = settled(&engine);
        let (r, f) = run_all(&session, expected, names_the_file);
        (right, failed) = (right + r, failed + f);
        wait_for_baseline(&engine, folder.path(), held);
    }
    assert!(right > 3 && failed > 3, "{right} right, {failed} failed");
}

fn quotas(expected: &[Rows]) {
    let folder = TempDir::new().expect("temporary folder");
    let (mut right, mut failed) = (0, 0);
    for quota_bytes in [0, 1, 4096, 60_000, 300_001, 700_000, 1_500_000, 4_000_000, 1 << 30] {
        let engine = spilling(folder.path()).max_temp_directory_size(quota_bytes).build().expect("starts");
        let session = session(&engine);
        let own = |error: &Error| {
            matches!(error, Error::SpillQuota { limit_bytes, used_bytes, required_bytes }
                if *limit_bytes == quota_bytes && used_bytes + required_bytes > quota_bytes)
        };
        let _ = run_all(&session, expected, own);
        let held = settled(&engine);
        let (r, f) = run_all(&session, expected, own);
        assert!(quota_bytes > 4096 || r == 0, "{r} queries are right without a place to spill to");
        assert!(quota_bytes < 1 << 30 || f == 0, "all fits");
        (right, failed) = (right + r, failed + f);
        wait_for_baseline(&engine, folder.path(), held);
    }
    assert!(right > 5 && failed > 5, "{right} right, {failed} failed");
}

fn folders_that_cannot_be_written(expected: &[Rows]) {
    let folder = TempDir::new().expect("temporary folder");
    let file = folder.path().join("file");
    fs::write(&file, "no folder").expect("writable");
    let read_only = folder.path().join("read-only");
    fs::create_dir(&read_only).expect("writable");
    fs::set_permissions(&read_only, fs::Permissions::from_mode(0o500)).expect("ours");
    // For root every folder can be written; the kernel's are not even for root.
    let can_write = fs::write(read_only.join("probe"), "").is_ok();
    let read_only = if can_write { Path::new("/proc/self") } else { &read_only };
    for bad in [&*file, &*file.join("below"), read_only] {
        let engine = spilling(bad).build().expect("starts");
        let session = session(&engine);
        let (right, failed) = run_all(&session, expected, is_io_in(bad));
        assert_eq!((right, failed), (0, QUERIES.len()), "{}", bad.display());
        let fine = answer(&session, "select count(*) from region").expect("spills nothing");
        assert_eq!(fine, [["5"]]);
        wait_for_baseline(&engine, bad, settled(&engine));
        // One place that works is enough.
        let good = folder.path().join("good");
        let engine = spilling(bad).temp_directories([bad, &good, bad]).build().expect("starts");
        let (right, _) = run_all(&self::session(&engine), expected, |_| false);
        assert_eq!(right, QUERIES.len(), "{} beside a good one", bad.display());
        assert_eq!(entries(&good), 0);
    }
}

fn a_folder_that_goes_away(expected: &[Rows]) {
    let parent = TempDir::new().expect("temporary folder");
    let folder = parent.path().join("spill");
    let engine = spilling(&folder).build().expect("starts");
    let session = session(&engine);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let removals = scope.spawn(|| {
            let mut removals = 0;
            while !is_over.load(Relaxed) {
                removals += u32::from(fs::remove_dir(&folder).is_ok());
                std::thread::sleep(Duration::from_millis(2));
            }
            removals
        });
        let _ = run_all(&session, expected, is_io_in(&folder));
        let held = settled(&engine);
        let mut right = 0;
        for _ in 0..5 {
            right += run_all(&session, expected, is_io_in(&folder)).0;
            wait_for_baseline(&engine, &folder, held);
        }
        is_over.store(true, Relaxed);
        assert!(right > 0, "the folder is made again");
        assert!(removals.join().expect("removes") > 0, "it was removed");
    });
}

/// A process of its own that spills in `folder` until it is killed, or a few times if `times` says how often.
fn child(folder: &Path, times: Option<usize>) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "spills_in_a_process_of_its_own", "--ignored"])
        .env("GRISTMILL_SPILLING_CHILD", folder)
        .env("GRISTMILL_SPILLING_TIMES", times.unwrap_or(usize::MAX).to_string())
        .stdout(Stdio::null())
        .spawn()
        .expect("starts")
}

#[test]
#[ignore = "the other process of the test above"]
fn spills_in_a_process_of_its_own() {
    let Some(folder) = std::env::var_os("GRISTMILL_SPILLING_CHILD") else { return };
    let times: usize = std::env::var("GRISTMILL_SPILLING_TIMES").expect("given").parse().expect("a number");
    let expected = expected();
    let engine = spilling(Path::new(&folder)).build().expect("starts");
    let session = session(&engine);
    for _ in 0..times {
        assert_eq!(run_all(&session, &expected, |_| false).0, QUERIES.len());
    }
}

fn a_process_that_is_killed() {
    let folder = TempDir::new().expect("temporary folder");
    for wait in [0, 3, 17, 40] {
        let mut child = child(folder.path(), None);
        let (start, process) = (Instant::now(), child.id().to_string());
        while open_files(&process, folder.path()) == 0 {
            assert!(start.elapsed() < PATIENCE, "it never spills");
            assert_eq!(child.try_wait().expect("a child"), None, "it ended by itself");
        }
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().expect("running");
        let status = child.wait().expect("a child");
        assert!(!status.success());
        assert_eq!(entries(folder.path()), 0, "files are left");
    }
}

fn two_processes_in_one_folder() {
    let folder = TempDir::new().expect("temporary folder");
    let children = [(); 2].map(|()| child(folder.path(), Some(3)));
    for mut child in children {
        assert!(child.wait().expect("a child").success());
    }
    assert_eq!(entries(folder.path()), 0);
}
