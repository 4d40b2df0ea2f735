//! The tables the tests query, written once as Parquet: TPC-H at scale factor 0.01, and small tables with nulls and
//! extreme values of every type. All values follow from row numbers, so that every machine has the same tables.

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, RecordBatch, StringArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};
use tpchgen_arrow::{
    CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow,
    SupplierArrow,
};

/// Raise it when a table changes: folders of other versions are not used.
const VERSION: u32 = 1;

/// Scale factor of the TPC-H tables.
const SCALE: f64 = 0.01;

/// Small, so that small tables have many morsels.
const ROW_GROUP_ROWS: usize = 8192;
const PAGE_ROWS: usize = 1024;

/// Folder of `NAME.parquet` files; made on first use and kept between runs.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = parent.join(format!("tables-{VERSION}"));
        if !folder.is_dir() {
            let fresh = tempfile::tempdir_in(parent).expect("temporary folder");
            write_all(fresh.path());
            // Another test process may have won the race; its tables are the same.
            if fs::rename(fresh.path(), &folder).is_ok() {
                let _ = fresh.keep();
            }
        }
        folder
    })
}

/// Names and files of the tables.
pub fn all() -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder()).expect("tables are readable");
    let mut tables: Vec<(String, PathBuf)> = entries
        .map(|entry| {
            let path = entry.expect("tables are readable").path();
            let name = path.file_stem().and_then(|n| n.to_str()).expect("names are UTF-8").to_owned();
            (name, path)
        })
        .collect();
    tables.sort();
    tables
}

fn write_all(folder: &Path) {
    macro_rules! tpch {
        ($($name:literal: $arrow:ident of $generator:ident;)*) => {
            $(
                let batches = $arrow::new($generator::new(SCALE, 1, 1)).map(|batch| batch.expect("generated"));
                write(&folder.join(concat!($name, ".parquet")), batches, ROW_GROUP_ROWS);
            )*
        };
    }
    tpch! {
        "nation": NationArrow of NationGenerator;
        "region": RegionArrow of RegionGenerator;
        "part": PartArrow of PartGenerator;
        "supplier": SupplierArrow of SupplierGenerator;
        "partsupp": PartSuppArrow of PartSuppGenerator;
        "customer": CustomerArrow of CustomerGenerator;
        "orders": OrderArrow of OrderGenerator;
        "lineitem": LineItemArrow of LineItemGenerator;
    }
    write(&folder.join("all_types.parquet"), [all_types()], 16);
    write(&folder.join("many.parquet"), [many()], 2048);
    write(&folder.join("empty.parquet"), [all_types().slice(0, 0)], 16);
}

/// Writes uncompressed Parquet: codecs have tests of their own.
pub fn write(path: &Path, batches: impl IntoIterator<Item = RecordBatch>, row_group_rows: usize) {
    let mut batches = batches.into_iter().peekable();
    let schema = batches.peek().expect("at least one batch").schema();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(row_group_rows))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .build();
    let file = File::create(path).expect("writable");
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).expect("a schema Parquet knows");
    for batch in batches {
        writer.write(&batch).expect("encodes");
    }
    writer.close().expect("written");
}

const WORDS: [&str; 8] =
    ["alpha", "Beta", "gamma ray burst", "", "žluťoučký kůň", "alphabet soup", "100%", "under_score"];

/// 60 rows, every type, a null in every seventh place, extremes in the first rows.
pub fn all_types() -> RecordBatch {
    let rows = 0..60_i64;
    // `Some` but for every seventh row, another row in every column.
    fn column<T>(rows: &std::ops::Range<i64>, place: i64, value: impl Fn(i64) -> T) -> Vec<Option<T>> {
        rows.clone().map(|row| ((row + place) % 7 != 3).then(|| value(row))).collect()
    }
    macro_rules! integers {
        ($array:ident, $type:ty, $place:literal) => {
            Arc::new($array::from(column(&rows, $place, |row| match row {
                0 => <$type>::MIN,
                1 => <$type>::MAX,
                _ => ((row * 37 + $place * 11) % 101) as $type,
            }))) as ArrayRef
        };
    }
    let decimal = |place, precision, scale, value: fn(i64) -> i128| {
        let array = Decimal128Array::from(column(&rows, place, value));
        Arc::new(array.with_precision_and_scale(precision, scale).expect("fits")) as ArrayRef
    };
    let doubles = column(&rows, 9, |row| match row {
        2 => f64::NAN,
        4 => f64::INFINITY,
        5 => f64::NEG_INFINITY,
        6 => -0.0,
        7 => 0.0,
        _ => (row - 30) as f64 / 8.0,
    });
    let wide = |row: i64| match row {
        0 => 10_i128.pow(37) + 1,
        1 => -(10_i128.pow(37)) - 1,
        _ => i128::from(row - 30) * 10_i128.pow(20) + 7,
    };
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int32Array::from_iter_values(0..60)) as ArrayRef, false),
        ("b", Arc::new(BooleanArray::from(column(&rows, 1, |row| row % 3 == 0))), true),
        ("i8", integers!(Int8Array, i8, 8), true),
        ("i16", integers!(Int16Array, i16, 7), true),
        ("i32", integers!(Int32Array, i32, 4), true),
        ("i64", integers!(Int64Array, i64, 5), true),
        ("u8", integers!(UInt8Array, u8, 6), true),
        ("u16", integers!(UInt16Array, u16, 7), true),
        ("u32", integers!(UInt32Array, u32, 8), true),
        ("u64", integers!(UInt64Array, u64, 11), true),
        ("f32", Arc::new(Float32Array::from(column(&rows, 10, |row| (row - 30) as f32 / 4.0))), true),
        ("f64", Arc::new(Float64Array::from(doubles)), true),
        ("d", decimal(12, 10, 2, |row| i128::from(row * 1234 - 20_000)), true),
        ("wide", decimal(13, 38, 4, wide), true),
        ("s", Arc::new(StringArray::from(column(&rows, 14, |row| WORDS[row as usize % WORDS.len()]))), true),
        (
            "bin",
            Arc::new(BinaryArray::from(column(&rows, 15, |row| BYTES[row as usize % BYTES.len()]))),
            true,
        ),
        ("day", Arc::new(Date32Array::from(column(&rows, 16, |row| (row as i32 - 10) * 337))), true),
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from(column(&rows, 17, |row| {
                (row - 10) * 86_400_000_000 * 41 + row * 3_723_000_000
            }))),
            true,
        ),
        ("tod", Arc::new(Time64MicrosecondArray::from(column(&rows, 18, |row| row * 1_234_000_000))), true),
        ("nothing", Arc::new(Int64Array::from(vec![None; 60])), true),
    ])
    .expect("columns of one length")
}

const BYTES: [&[u8]; 4] = [b"", b"\x00\xff", b"bytes", b"a long value of more than twelve bytes"];

/// 20000 rows: keys of every cardinality, nulls, values that sum beyond 32 bits.
pub fn many() -> RecordBatch {
    let rows = 0..20_000_i64;
    let spread = |row: i64| (row * 2_654_435_761) % 7_919;
    let keys: Int64Array = rows.clone().map(|row| (row % 97 != 0).then(|| spread(row))).collect();
    let names: StringArray =
        rows.clone().map(|row| (row % 89 != 0).then(|| format!("name of key {}", row % 1_009))).collect();
    let amounts =
        Decimal128Array::from_iter_values(rows.clone().map(|row| i128::from(spread(row) * 131 - 300_000)))
            .with_precision_and_scale(12, 2)
            .expect("fits");
    let days: Date32Array =
        rows.clone().map(|row| (row % 13 != 0).then_some(9_000 + (row % 700) as i32)).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from_iter_values(rows.clone())) as ArrayRef, false),
        ("k", Arc::new(keys), true),
        ("name", Arc::new(names), true),
        ("small", Arc::new(Int32Array::from_iter_values(rows.clone().map(|row| (row % 10) as i32))), false),
        (
            "flag",
            Arc::new(StringArray::from_iter_values(
                rows.clone().map(|row| ["A", "N", "R"][row as usize % 3]),
            )),
            false,
        ),
        ("amount", Arc::new(amounts), false),
        (
            "ratio",
            Arc::new(Float64Array::from_iter_values(rows.clone().map(|row| spread(row) as f64 / 64.0))),
            false,
        ),
        ("day", Arc::new(days), true),
        ("same", Arc::new(Int32Array::from_iter_values(rows.map(|_| 7))), false),
    ])
    .expect("columns of one length")
}
