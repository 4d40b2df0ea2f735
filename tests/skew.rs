//! Keys and rows that no partitioning helps with: one key on both sides, nulls only, nothing but duplicates, rows of a
//! mebibyte; every kind of join, groups, sets and sorts over them in memory that holds neither side. Answers are compared
//! with the definition, worked out here row by row.

mod support;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use gristmill::{Engine, Session, TestKnobs};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use support::{rows, tables};
use tempfile::TempDir;

#[derive(Clone)]
struct Row {
    key: Option<i64>,
    number: i64,
    text: String,
}

/// Rows with texts of `width` bytes that differ from the first byte on, and no two alike. The texts are noise, so that
/// what is spilled of them is as large as they are.
fn table(count: i64, width: usize, key: impl Fn(i64) -> Option<i64>) -> Vec<Row> {
    let text = |row: i64| {
        let mut noise = row as u64 + 1;
        let mut letter = || {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'0' + (noise >> 57) as u8 % 75)
        };
        let start = format!("{:03}-{row}-", row * 7919 % 1000);
        start.chars().chain(std::iter::repeat_with(&mut letter)).take(width).collect()
    };
    (0..count).map(|row| Row { key: key(row), number: row, text: text(row) }).collect()
}

fn write(folder: &Path, name: &str, table: &[Row]) {
    let batch = |rows: &[Row]| {
        let keys: ArrayRef = Arc::new(rows.iter().map(|row| row.key).collect::<Int64Array>());
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.number)));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.text)));
        RecordBatch::try_from_iter([("k", keys), ("n", numbers), ("t", texts)]).expect("columns alike")
    };
    // A page ends where a batch does, so that pages are about a mebibyte.
    let rows = ((1 << 20) / table[0].text.len()).max(1);
    tables::write(&folder.join(format!("{name}.parquet")), table.chunks(rows).map(batch), 1 << 10);
}

/// A pair of tables, neither of which fits the memory, and that memory.
struct Case {
    name: &'static str,
    left: Vec<Row>,
    right: Vec<Row>,
    memory_bytes: usize,
}

const MEBIBYTES: &str = "a mebibyte a row";

fn cases() -> Vec<Case> {
    const MEMORY_BYTES: usize = 16_000_000;
    let case = |name, left, right| Case { name, left, right, memory_bytes: MEMORY_BYTES };
    vec![
        case("one key", table(2000, 12_000, |_| Some(7)), table(400, 50_000, |_| Some(7))),
        case("nulls", table(2000, 12_000, |_| None), table(2000, 12_000, |_| None)),
        case(
            "duplicates",
            table(4000, 6000, |row| Some(row % 100)),
            table(2000, 12_000, |row| Some(row % 100 * 2)),
        ),
        case(
            "mostly one key",
            table(3000, 8000, |row| (row % 50 != 0).then_some(if row % 10 == 0 { row } else { 0 })),
            table(500, 40_000, |row| (row % 50 != 0).then_some(if row % 3 == 0 { 0 } else { row })),
        ),
        Case {
            name: MEBIBYTES,
            left: table(140, 1 << 20, |row| (row % 9 != 0).then_some(row % 40)),
            right: table(120, 1 << 20, |row| (row % 7 != 0).then_some(row % 50)),
            memory_bytes: 96_000_000,
        },
    ]
}

/// How engines differ that must agree.
#[derive(Clone, Copy, Debug)]
struct Setting {
    threads: usize,
    merge_joins: bool,
    refuse_grant: u16,
    refuse_charge: u16,
}

const PLAIN: Setting = Setting { threads: 2, merge_joins: false, refuse_grant: 0, refuse_charge: 0 };

const SETTINGS: [Setting; 6] = [
    Setting { threads: 1, ..PLAIN },
    PLAIN,
    Setting { refuse_grant: u16::MAX, ..PLAIN },
    Setting { refuse_charge: u16::MAX / 4, ..PLAIN },
    Setting { merge_joins: true, ..PLAIN },
    Setting { merge_joins: true, refuse_charge: u16::MAX / 10, ..PLAIN },
];

/// Sessions with the tables `a` and `b`.
fn sessions(case: &Case, folder: &Path) -> Vec<(Setting, Engine, Session)> {
    write_both(case, folder);
    let session = |setting| {
        let (engine, session) = open(folder, case.memory_bytes, setting);
        (setting, engine, session)
    };
    SETTINGS.map(session).into()
}

fn write_both(case: &Case, folder: &Path) {
    write(folder, "a", &case.left);
    write(folder, "b", &case.right);
}

/// A session with the tables written to `folder`.
fn open(folder: &Path, memory_bytes: usize, setting: Setting) -> (Engine, Session) {
    let Setting { threads, merge_joins, refuse_grant, refuse_charge } = setting;
    let engine = Engine::builder()
        .threads(threads)
        .memory_limit(memory_bytes)
        .temp_directory(folder.join("spill"))
        .testing(TestKnobs { merge_joins, refuse_grant, refuse_charge, seed: 1, ..TestKnobs::default() })
        .build()
        .expect("starts");
    let session = engine.session();
    for name in ["a", "b"] {
        session.register_parquet(name, folder.join(format!("{name}.parquet"))).expect("a good file");
    }
    (engine, session)
}

/// The rows of `sql` and the bytes spilled for them.
fn run(session: &Session, sql: &str, what: &str) -> (Vec<Vec<String>>, u64) {
    let mut stream = session.query(sql).and_then(gristmill::Query::stream).expect("plans and starts");
    let batches: Vec<_> = stream.by_ref().collect::<Result<_, _>>().unwrap_or_else(|e| panic!("{what}: {e}"));
    (rows::texts(&batches), stream.metrics().spilled_bytes)
}

/// What is asked of joined rows: how many, sums of their numbers, and how often the left text is less.
#[derive(Default)]
struct Joined {
    count: u64,
    left: Option<i64>,
    right: Option<i64>,
    less: u64,
}

const JOINED: &str = "count(*), sum(a.n), sum(b.n), sum(case when a.t < b.t then 1 else 0 end)";

impl Joined {
    fn add(&mut self, left: Option<&Row>, right: Option<&Row>) {
        let sum = |to: &mut Option<i64>, row: &Row| *to = Some(to.unwrap_or(0) + row.number);
        self.count += 1;
        left.into_iter().for_each(|row| sum(&mut self.left, row));
        right.into_iter().for_each(|row| sum(&mut self.right, row));
        self.less += u64::from(left.zip(right).is_some_and(|(left, right)| left.text < right.text));
    }

    fn texts(&self) -> Vec<String> {
        let number = |number: Option<i64>| number.map_or_else(|| "NULL".into(), |n| n.to_string());
        let less = if self.count == 0 { "NULL".into() } else { self.less.to_string() };
        vec![self.count.to_string(), number(self.left), number(self.right), less]
    }
}

/// Joined rows, with those of either side that match nothing where they are asked for.
fn join(case: &Case, keeps_left: bool, keeps_right: bool) -> Joined {
    let mut joined = Joined::default();
    let mut matched = BTreeSet::new();
    for left in &case.left {
        let matches = case.right.iter().filter(|right| left.key.is_some() && left.key == right.key);
        let mut count = 0;
        for right in matches {
            joined.add(Some(left), Some(right));
            matched.insert(right.number);
            count += 1;
        }
        if count == 0 && keeps_left {
            joined.add(Some(left), None);
        }
    }
    for right in case.right.iter().filter(|right| keeps_right && !matched.contains(&right.number)) {
        joined.add(None, Some(right));
    }
    joined
}

/// Count, sum of numbers, least and greatest text of the left rows that `keeps` says.
fn left_rows(case: &Case, keeps: impl Fn(&Row) -> bool) -> Vec<String> {
    let kept: Vec<&Row> = case.left.iter().filter(|row| keeps(row)).collect();
    let text = |row: Option<&&Row>| row.map_or_else(|| "NULL".into(), |row| row.text.clone());
    let sum =
        if kept.is_empty() { "NULL".into() } else { kept.iter().map(|r| r.number).sum::<i64>().to_string() };
    vec![
        kept.len().to_string(),
        sum,
        text(kept.iter().min_by(|a, b| a.text.cmp(&b.text))),
        text(kept.iter().max_by(|a, b| a.text.cmp(&b.text))),
    ]
}

/// Panics without printing mebibytes.
fn compare(found: &[Vec<String>], expected: &[Vec<String>], what: &str) {
    let short = |rows: &[Vec<String>]| -> Vec<Vec<String>> {
        let cell = |cell: &String| cell.chars().take(30).collect();
        rows.iter().take(20).map(|row| row.iter().map(cell).collect()).collect()
    };
    assert!(found == expected, "{what}\nfound {:?}\nexpected {:?}", short(found), short(expected));
}

#[test]
fn every_kind_of_join_is_right_whatever_the_keys() {
    for case in cases() {
        let folder = TempDir::new().expect("temporary folder");
        let right_keys: BTreeSet<i64> = case.right.iter().filter_map(|row| row.key).collect();
        let has_null = case.right.iter().any(|row| row.key.is_none());
        let exists = |row: &Row| row.key.is_some_and(|key| right_keys.contains(&key));
        let left =
            |condition: &str| format!("select count(*), sum(n), min(t), max(t) from a where {condition}");
        let both = |kind: &str| format!("select {JOINED} from a {kind} join b on a.k = b.k");
        let inside = "exists (select 1 from b where b.k = a.k and b.t <> '')";
        let queries = [
            (both("inner"), join(&case, false, false).texts()),
            (both("left"), join(&case, true, false).texts()),
            (both("right"), join(&case, false, true).texts()),
            (both("full"), join(&case, true, true).texts()),
            (left(inside), left_rows(&case, exists)),
            (left(&format!("not {inside}")), left_rows(&case, |row| !exists(row))),
            (
                left(&format!("{inside} or n % 3 = 0")),
                left_rows(&case, |row| exists(row) || row.number % 3 == 0),
            ),
            (left("k in (select k from b where t <> '')"), left_rows(&case, exists)),
            (
                left("k not in (select k from b where t <> '')"),
                left_rows(&case, |row| !has_null && row.key.is_some() && !exists(row)),
            ),
        ];
        for (setting, engine, session) in sessions(&case, folder.path()) {
            let mut most_spilled = 0;
            for (sql, expected) in &queries {
                let what = format!("{}, {setting:?}: {sql}", case.name);
                let (found, spilled_bytes) = run(&session, sql, &what);
                compare(&found, std::slice::from_ref(expected), &what);
                most_spilled = spilled_bytes.max(most_spilled);
            }
            assert!(most_spilled > 1 << 20, "{}, {setting:?} spilled {most_spilled}", case.name);
            assert!(engine.memory_peak() <= case.memory_bytes);
            assert_eq!(engine.temp_directory_used(), 0, "{}, {setting:?}", case.name);
        }
    }
}

/// Sums, greatest texts and numbers of distinct texts of each key; values in their middle and the most frequent; duplicates and
/// sets of rows; orders.
#[test]
fn groups_sets_and_orders_are_right_whatever_the_keys() {
    for case in cases() {
        let folder = TempDir::new().expect("temporary folder");
        let mut groups = BTreeMap::<(bool, Option<i64>), Vec<&Row>>::new();
        for row in &case.left {
            groups.entry((row.key.is_none(), row.key)).or_default().push(row);
        }
        let key = |key: Option<i64>| key.map_or_else(|| "NULL".into(), |key| key.to_string());
        let of_group = |((_, k), rows): (&(bool, Option<i64>), &Vec<&Row>)| {
            let greatest = rows.iter().map(|row| &row.text).max().expect("a row").clone();
            let distinct = rows.iter().map(|row| &row.text).collect::<BTreeSet<_>>().len();
            let sum = rows.iter().map(|row| row.number).sum::<i64>().to_string();
            vec![key(*k), rows.len().to_string(), sum, greatest, distinct.to_string(), key(*k)]
        };
        let by_key: Vec<_> = groups.iter().map(of_group).collect();
        // No text comes twice, so that the least is the most frequent.
        let ordered_of_group = |((_, k), rows): (&(bool, Option<i64>), &Vec<&Row>)| {
            let mut texts: Vec<&String> = rows.iter().map(|row| &row.text).collect();
            texts.sort_unstable();
            let numbers: Vec<i64> = rows.iter().map(|row| row.number).collect();
            let at = |rank: usize| texts[rank].clone();
            let middle = numbers[(numbers.len() - 1) / 2].midpoint(numbers[numbers.len() / 2]) as f64;
            let is_between = numbers.len().is_multiple_of(2)
                && (numbers[numbers.len() / 2] - numbers[numbers.len() / 2 - 1]) % 2 == 1;
            let median = if is_between { middle + 0.5 } else { middle };
            let last = at((texts.len() * 3).div_ceil(4) - 1);
            vec![key(*k), at(0), at((texts.len() - 1) / 2), last, median.to_string()]
        };
        let in_order: Vec<_> = groups.iter().map(ordered_of_group).collect();
        let middle_text = in_order.iter().map(|row| vec![row[0].clone(), row[2].clone()]).collect();
        let mut texts: Vec<_> = case.left.iter().map(|row| &row.text).collect();
        texts.sort_unstable();
        // Every text twice; the texts of `b` are the first ones of `a` wherever they are as wide.
        let distinct = |rows: &[Row]| rows.iter().map(|row| row.text.clone()).collect::<BTreeSet<_>>();
        let (a, b) = (distinct(&case.left), distinct(&case.right));
        let count = |count: usize| vec![vec![count.to_string()]];
        let mut ordered: Vec<&Row> = case.left.iter().collect();
        ordered.sort_by(|x, y| (x.key.is_none(), x.key, &y.text).cmp(&(y.key.is_none(), y.key, &x.text)));
        let ordered = ordered.iter().map(|row| vec![key(row.key), row.number.to_string(), row.text.clone()]);
        let queries = [
            (
                "select k, count(*), sum(n), max(t), count(distinct t), any_value(k) from a group by k order by k",
                by_key,
            ),
            (
                "select k, mode(t), quantile_disc(t, 0.5), quantile_disc(t, 0.75), median(n) from a group by k order by k",
                in_order,
            ),
            ("select k, quantile_disc(t, 0.5) from a group by k order by k", middle_text),
            (
                "select mode(t), quantile_disc(t, 0.5) from a",
                vec![vec![texts[0].clone(), texts[(texts.len() - 1) / 2].clone()]],
            ),
            (
                "select count(*), sum(m) from (select t, median(n) m from a group by t)",
                vec![vec![
                    a.len().to_string(),
                    case.left.iter().map(|row| row.number).sum::<i64>().to_string(),
                ]],
            ),
            (
                "select count(*) from (select distinct t from (select t from a union all select t from a))",
                count(a.len()),
            ),
            ("select count(*) from (select t from a union select t from b)", count(a.union(&b).count())),
            (
                "select count(*) from (select t from a intersect select t from b)",
                count(a.intersection(&b).count()),
            ),
            (
                "select count(*) from (select t from a union all select t from a except all select t from b)",
                count(2 * a.len() - a.intersection(&b).count()),
            ),
            ("select k, n, t from a order by k, t desc", ordered.collect()),
        ];
        for (setting, engine, session) in sessions(&case, folder.path()) {
            let mut most_spilled = 0;
            for (sql, expected) in &queries {
                let what = format!("{}, {setting:?}: {sql}", case.name);
                let (found, spilled_bytes) = run(&session, sql, &what);
                compare(&found, expected, &what);
                most_spilled = spilled_bytes.max(most_spilled);
            }
            assert!(most_spilled > 1 << 20, "{}, {setting:?} spilled {most_spilled}", case.name);
            assert!(engine.memory_peak() <= case.memory_bytes);
            assert_eq!(engine.temp_directory_used(), 0, "{}, {setting:?}", case.name);
        }
    }
}

/// What goes well in some memory does so in more, on any number of threads, however wide rows are.
#[test]
fn rows_of_a_mebibyte_that_fit_a_budget_fit_every_larger_one() {
    let case = cases().into_iter().find(|case| case.name == MEBIBYTES).expect("a case");
    let folder = TempDir::new().expect("temporary folder");
    write_both(&case, folder.path());
    let queries = [
        "select a.t, b.t from a join b on a.k = b.k order by a.n, b.n",
        "select k, n, t from a order by k, t desc",
        "select t from a except select t from b",
        "select k, mode(t), quantile_disc(t, 0.5) from a group by k order by k",
        "select k, count(*), max(t), count(distinct t) from a group by k order by k",
    ];
    for sql in queries {
        for threads in [1, 8] {
            let mut least = None;
            for megabytes in [16, 32, 56, 80, 112] {
                let setting = Setting { threads, ..PLAIN };
                let (_engine, session) = open(folder.path(), megabytes * 1_000_000, setting);
                let mut stream = session.query(sql).and_then(gristmill::Query::stream);
                let rows = stream.as_mut().map_err(|e| e.clone()).and_then(|stream| {
                    stream.try_fold(0, |rows, batch| batch.map(|batch| rows + batch.num_rows()))
                });
                let what = format!("{sql}, {threads} threads, {megabytes} MB");
                match (rows, least) {
                    (Ok(rows), None) => least = Some(rows),
                    (Ok(rows), Some(before)) => assert_eq!(rows, before, "{what}"),
                    (Err(error), None) => assert!(megabytes < 56, "{what}: {error}"),
                    (Err(error), Some(_)) => panic!("{what}, but not in less: {error}"),
                }
            }
        }
    }
}
