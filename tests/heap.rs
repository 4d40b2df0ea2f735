//! The heap outside slabs stays within what floors account for.
//!
//! A counting allocator watches every heap allocation of the process while queries run: the peak above the level at
//! rest must stay within 1 MiB plus 128 KiB for each lane, whatever the query holds in slabs.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering::SeqCst};

struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

fn add(bytes: isize) {
    let live = LIVE.fetch_add(bytes, SeqCst) + bytes;
    PEAK.fetch_max(live, SeqCst);
}

// SAFETY: every call is passed to the system allocator unchanged; counting has no other effect.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        add(new_size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Beside those of TPC-H: large states of every kind.
const QUERIES: &[&str] = &[
    "select l_orderkey, sum(l_quantity) from lineitem group by l_orderkey",
    "select l_comment, count(*), max(l_shipmode) from lineitem group by l_comment",
    "select l_orderkey, l_comment from lineitem where l_quantity < 2 order by l_extendedprice, l_comment",
    "select count(*), max(a.l_comment), max(b.l_comment) from lineitem a join lineitem b \
     on a.l_orderkey = b.l_orderkey and a.l_linenumber = b.l_linenumber",
    "select count(*), count(a.l_comment) from lineitem a full join lineitem b on a.l_orderkey = b.l_suppkey",
    "select count(*) from (select l_comment from lineitem where l_linenumber < 4 except \
     select l_comment from lineitem where l_linenumber > 2)",
];

/// All queries, the one that makes what a process makes lazily first.
fn queries() -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/runner/tpch/queries");
    let tpch = (1..=22).map(|number| {
        let file = folder.join(format!("q{number:02}.sql"));
        // Query 11 asks for a share that falls with the scale (TPC-H 2.4.11.3).
        std::fs::read_to_string(file).expect("a query").replace("0.0001000000", "0.0100000000")
    });
    tpch.chain(QUERIES.iter().map(|sql| (*sql).to_owned())).collect()
}

#[test]
fn live_heap_stays_within_what_floors_account_for() {
    let (tables, queries) = (support::tables::all(), queries());
    for threads in [1, 2, 4] {
        for limit in [10_000_000, 256 << 20] {
            let engine =
                gristmill::Engine::builder().threads(threads).memory_limit(limit).build().expect("starts");
            let session = engine.session();
            for (name, path) in &tables {
                session.register_parquet(name, path).expect("registers");
            }
            let run = |sql: &str| {
                let mut rows = 0;
                for batch in session.query(sql).and_then(gristmill::Query::stream).expect("plans") {
                    rows += batch.expect(sql).num_rows();
                }
                rows
            };
            // Lazily made things of the process are no query's.
            run(&queries[0]);
            for sql in &queries {
                let before = LIVE.load(SeqCst);
                PEAK.store(before, SeqCst);
                run(sql);
                let above = PEAK.load(SeqCst) - before;
                let allowed = (1 << 20) + (128 << 10) * threads as isize;
                assert!(
                    above <= allowed,
                    "{above} bytes of heap, {allowed} allowed: {threads} threads, {limit}, {sql}"
                );
            }
        }
    }
}
