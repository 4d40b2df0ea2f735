//! What of a file is read at all: by late materialisation, in the order filters come to run, and of nested columns.

use super::columns::check;
use super::files::{Memory, every_type, write};
use super::scans::Fixture;
use crate::data::{DataType, DictionaryIds, Scalar, Values, Vector};
use crate::error::Result;
use crate::exec::{OpenCx, QueryCx, Source};
use crate::expr::{CompareOp, Expr};
use crate::io::ReadAt;
use crate::mem::{Account, Knobs, Pool};
use crate::metrics::OperatorMetrics;
use crate::parquet::fallback::{CrateMetadata, FallbackColumn};
use crate::parquet::file::ParquetFile;
use crate::parquet::page_places::PagePlaces;
use crate::parquet::scan::ParquetScan;
use crate::parquet::table::ParquetTable;
use arrow::array::{self as arrays, ArrayRef, RecordBatch};
use parking_lot::Mutex;
use parquet::basic::Encoding;
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

const ROWS: u64 = 100_000;
const PAGE_ROWS: u64 = 500;

type Reads = Arc<Mutex<Vec<Range<u64>>>>;

/// A file in memory that notes what is read of it.
struct Watched(Memory, Reads);

impl ReadAt for Watched {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.1.lock().push(offset..offset + out.len() as u64);
        self.0.read_exact_at(offset, out)
    }

    fn prefetch(&self, _range: Range<u64>) {}
}

/// Pages of `PAGE_ROWS` rows, about which nothing is known but where they lie.
fn properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_data_page_row_count_limit(PAGE_ROWS as usize)
        .set_write_batch_size(PAGE_ROWS as usize)
}

fn watched(batch: RecordBatch, properties: WriterPropertiesBuilder) -> (Fixture, Reads) {
    let pool = Pool::new("test", 256 << 20);
    let reads = Reads::default();
    let memory = Memory(write(&batch, properties.build()));
    let file = ParquetFile::new(0, Box::new(Watched(memory, Arc::clone(&reads))), &pool).expect("valid");
    let table = ParquetTable::from_files(vec![Arc::new(file)]).expect("one file");
    reads.lock().clear();
    (Fixture { batch, pool, table }, reads)
}

/// The pages of a leaf whose last byte has been read, each by its first row.
fn pages_read(fixture: &Fixture, leaf: usize, reads: &Reads) -> Vec<u64> {
    let file = &fixture.table.files[0].file;
    let noted = reads.lock().clone();
    let places = PagePlaces::read(file, 0, leaf, &fixture.pool).expect("an offset index");
    let mut row = 0;
    let mut pages = Vec::new();
    for page in 0.. {
        let (Some(end), Some(rows)) = (places.end(page), places.page_rows(page)) else { break };
        if noted.iter().any(|range| range.contains(&(end - 1))) {
            pages.push(row);
        }
        row += rows;
    }
    pages
}

fn numbers(value: impl Fn(u64) -> i64) -> ArrayRef {
    Arc::new(arrays::Int64Array::from_iter_values((0..ROWS).map(value)))
}

fn passing(fixture: &Fixture, name: &str, op: CompareOp, value: i64) -> Expr {
    let left = fixture.column(name);
    let right = Expr::Literal(Scalar::int(DataType::Int64, value.into()));
    Expr::Compare { op, left: Box::new(left), right: Box::new(right) }
}

#[test]
fn pages_of_which_no_row_survives_are_not_read() {
    // Two runs of survivors, and a single one.
    let survives =
        |row: u64| (20_100..20_900).contains(&row) || (70_000..70_500).contains(&row) || row == 99_999;
    let batch = RecordBatch::try_from_iter([
        ("k", numbers(|row| row as i64 % 100 + if survives(row) { 1000 } else { 0 })),
        ("plain", numbers(|row| row as i64)),
        ("text", Arc::new(arrays::StringArray::from_iter_values((0..ROWS).map(|r| format!("{r:040}"))))),
    ])
    .expect("equally long");
    let (fixture, reads) = watched(batch, properties());
    let filter = vec![passing(&fixture, "k", CompareOp::GtEq, 1000)];
    let rows = fixture.scan(&["plain", "text"], filter, 1, 1000);
    assert_eq!(rows.len(), 1301);
    assert_eq!(pages_read(&fixture, 0, &reads).len() as u64, ROWS / PAGE_ROWS, "the filter's are");
    for leaf in [1, 2] {
        let expected = [20_000, 20_500, 70_000, 99_500];
        assert_eq!(pages_read(&fixture, leaf, &reads), expected, "leaf {leaf}");
    }
}

#[test]
fn filters_that_drop_more_come_to_run_first() {
    // `keeps` comes first and drops nothing; `drops` drops nearly all.
    let batch = RecordBatch::try_from_iter([
        ("keeps", numbers(|row| row as i64 % 1000)),
        ("drops", numbers(|row| if row % 20_000 == 7 { 1 } else { 0 })),
    ])
    .expect("equally long");
    let (fixture, reads) = watched(batch, properties());
    let filters =
        vec![passing(&fixture, "keeps", CompareOp::GtEq, 0), passing(&fixture, "drops", CompareOp::Eq, 1)];
    let rows = fixture.scan(&["drops"], filters, 1, PAGE_ROWS as usize);
    assert_eq!(rows.len(), 5);
    let read = pages_read(&fixture, 0, &reads);
    assert_eq!(read[..16], (0..16).map(|page| page * PAGE_ROWS).collect::<Vec<_>>(), "before it is known");
    let late: Vec<u64> = read.into_iter().filter(|row| *row >= 16 * 4 * PAGE_ROWS).collect();
    assert_eq!(late, [40_000, 60_000, 80_000], "where `drops` has left rows");
}

fn lists() -> ArrayRef {
    let mut list = arrays::ListBuilder::new(arrays::Int64Builder::new());
    for row in 0..ROWS as i64 {
        (0..row % 4).for_each(|item| list.values().append_value(row * 3 + item));
        list.append(row % 9 != 5);
    }
    Arc::new(list.finish())
}

#[test]
fn nested_pages_before_the_wanted_rows_are_not_read() {
    let batch = RecordBatch::try_from_iter([("l", lists())]).expect("one column");
    let v2 = || properties().set_writer_version(WriterVersion::PARQUET_2_0).set_encoding(Encoding::PLAIN);
    for (properties, has_index) in
        [(properties(), true), (v2(), true), (v2().set_offset_index_disabled(true), false)]
    {
        let pool = Pool::new("test", 64 << 20);
        let account = Account::open(&pool, 0, 64 << 10, 4 << 20).expect("fits");
        let (fixture, reads) = watched(batch.clone(), properties);
        let file = &fixture.table.files[0].file;
        let metadata = Arc::new(CrateMetadata::read(file, &pool).expect("valid"));
        let mut column = FallbackColumn::new(file, &metadata, 0, 0, 1000, &pool).expect("valid");
        reads.lock().clear();
        // Without an index only the first row is gone to.
        let wanted =
            if has_index { &[(30_200, 100), (30_400, 50), (80_000, 1000)][..] } else { &[(80_000, 1000)] };
        for &(row, rows) in wanted {
            column.seek(row);
            let vector = column.read(rows, None, &DictionaryIds::default(), &account).expect("valid");
            let Vector::Flat(flat) = &vector else { panic!("nested vectors are flat") };
            let Values::Nested(array) = &flat.values else { panic!("nested stays nested") };
            assert_eq!(array, &batch.column(0).slice(row as usize, rows), "row {row}");
        }
        let read_bytes: u64 = reads.lock().iter().map(|range| range.end - range.start).sum();
        assert!(read_bytes < file.read.len() / 5, "{read_bytes} bytes were read");
        if has_index {
            let read = pages_read(&fixture, 0, &reads);
            // The writer cuts pages after about 600 of these rows, and a first read takes several.
            let is_near = |row: &u64| (29_200..35_000).contains(row) || (79_200..85_000).contains(row);
            assert!(read.len() >= 4 && read.iter().all(is_near), "{read:?}");
        }
    }
}

#[test]
fn nested_columns_with_leaves_of_different_pages() {
    let part = every_type(3000, 5, 400);
    let column = |name: &str| Arc::clone(part.column_by_name(name).expect("exists"));
    let field = |name: &str| arrow::datatypes::Field::new(name, column(name).data_type().clone(), true);
    let names = ["i32", "text", "list"];
    let fields: arrow::datatypes::Fields = names.iter().map(|n| field(n)).collect::<Vec<_>>().into();
    let arrays = names.iter().map(|n| column(n)).collect();
    let validity = (0..3000).map(|row| row % 8 != 6).collect::<Vec<bool>>();
    let structs = arrays::StructArray::new(fields, arrays, Some(validity.into()));
    let flat = arrow::datatypes::Fields::from(vec![field("i32"), field("text")]);
    let flat = arrays::StructArray::new(flat, vec![column("i32"), column("text")], None);
    let batch =
        RecordBatch::try_from_iter([("deep", Arc::new(structs) as ArrayRef), ("flat", Arc::new(flat))])
            .expect("equally long");
    // Pages are cut by bytes, so at other rows in each leaf.
    let base = || {
        WriterProperties::builder()
            .set_data_page_size_limit(500)
            .set_write_batch_size(20)
            .set_dictionary_page_size_limit(2000)
    };
    for (name, properties) in [
        ("version 1", base()),
        ("no index", base().set_offset_index_disabled(true)),
        ("version 2", base().set_writer_version(WriterVersion::PARQUET_2_0)),
        ("no dictionary", base().set_dictionary_enabled(false)),
        ("row groups", base().set_max_row_group_row_count(Some(700))),
    ] {
        let statistics = properties.set_statistics_enabled(EnabledStatistics::None);
        check(write(&batch, statistics.build()), &batch, name);
    }
}

#[test]
fn row_groups_read_from_their_start_are_not_cut() {
    let batch =
        RecordBatch::try_from_iter([("l", lists()), ("k", numbers(|row| row as i64))]).expect("equal");
    let morsels = |properties: WriterPropertiesBuilder, outputs: &[&str]| {
        let (fixture, _) = watched(batch.clone(), properties.set_statistics_enabled(EnabledStatistics::None));
        let schema = crate::catalog::TableProvider::schema(&fixture.table);
        let request = fixture.request(outputs, Vec::new());
        let scan = ParquetScan::new(Arc::clone(&fixture.table.files), &schema, request).expect("valid");
        let knobs = Knobs { lanes: 2, batch_rows: 1000, block_bytes: 64 << 10, fan_out: 4 };
        let spill = Arc::new(crate::spill::SpillDirectory::new(None, 1 << 20));
        let query = Arc::new(QueryCx::new(fixture.pool.child("query", usize::MAX), knobs, spill, None, None));
        let metrics = OperatorMetrics::new("scan");
        let run = scan.open(&OpenCx::granted(&query, 2, &metrics, 0).expect("fits")).expect("opens");
        std::iter::from_fn(|| run.claim()).map(|(morsel, _)| morsel.start..morsel.end).collect::<Vec<_>>()
    };
    let halves = [0..ROWS / 2, ROWS / 2..ROWS];
    assert_eq!(morsels(properties(), &["l", "k"]), halves, "pages are found by their index");
    let blind = || properties().set_offset_index_disabled(true);
    assert_eq!(morsels(blind(), &["l", "k"]), std::slice::from_ref(&(0..ROWS)));
    assert_eq!(morsels(blind(), &["k"]), halves, "a flat column");
}
