//! The room as others use it.

use super::fault::{DiskFault, FaultHook};
use super::segment::Segment;
use super::{SpillDirectory, SpillFile, SpillWriter};
use crate::data::{
    Batch, BitmapMut, BufMut, DataType, Dictionary, DictionaryIds, FlatVector, Scalar, Selection, Values,
    Vector, ViewBuilder,
};
use crate::error::{Error, MemoryError};
use crate::mem::{Account, Pool};
use arrow::array::{Array, ListArray};
use arrow::datatypes::{DataType as ArrowType, Field, Int32Type};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// A directory of its own for one test, removed at its end.
struct TestDirectory(PathBuf);

impl TestDirectory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gristmill-test-{}-{name}", std::process::id()));
        Self(path)
    }

    fn spill(&self, quota_bytes: u64) -> SpillDirectory {
        SpillDirectory::new(Some(self.0.join("made/when/needed")), quota_bytes)
    }

    fn entries(&self) -> usize {
        fs::read_dir(self.0.join("made/when/needed")).map_or(0, Iterator::count)
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn account() -> (Pool, Account) {
    let pool = Pool::new("test", 64 << 20);
    let account = Account::open(&pool, 0, 64 << 10, 1 << 20).expect("fits");
    (pool, account)
}

fn ints(account: &Account, values: impl IntoIterator<Item = i64>) -> Vector {
    let values: Vec<i64> = values.into_iter().collect();
    Vector::Flat(FlatVector::new(Values::I64(BufMut::copy_of(account, &values).expect("fits").freeze())))
}

/// Integers that do not compress.
fn noise(account: &Account, rows: u64) -> Vector {
    let mix = |i: u64| {
        let z = (i ^ (i >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB)) as i64
    };
    ints(account, (1..=rows).map(|i| mix(i.wrapping_mul(0x9E37_79B9_7F4A_7C15))))
}

fn with_nulls(account: &Account, values: Values) -> Vector {
    let mut bits = BitmapMut::with_len(account, values.len()).expect("fits");
    bits.fill_from(|i| i % 3 != 1);
    Vector::Flat(FlatVector { values, validity: Some(bits.freeze()), bounds: None })
}

fn text(row: usize) -> String {
    "x".repeat(row % 30) + &row.to_string()
}

fn strings(account: &Account, rows: usize) -> Values {
    let mut builder = ViewBuilder::new(account, rows).expect("fits");
    for row in 0..rows {
        builder.push(account, text(row).as_bytes()).expect("fits");
    }
    Values::View(builder.freeze())
}

/// A column of every physical type with nulls, and one of every representation.
fn columns(account: &Account, ids: &DictionaryIds, rows: usize) -> (Vec<DataType>, Vec<Vector>) {
    macro_rules! numbers {
        ($variant:ident, $t:ty) => {{
            let values: Vec<$t> = (0..rows).map(|i| (i as f64 * 1.75 - 40.0) as $t).collect();
            with_nulls(account, Values::$variant(BufMut::copy_of(account, &values).expect("fits").freeze()))
        }};
    }
    let decimal = DataType::Decimal { precision: 30, scale: 2 };
    let mut bits = BitmapMut::with_len(account, rows).expect("fits");
    bits.fill_from(|i| i % 2 == 0);
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(
        (0..rows).map(|i| (i % 4 != 0).then(|| (0..i % 5).map(|v| Some(v as i32)).collect::<Vec<_>>())),
    );
    let list = ArrowType::List(Arc::new(Field::new_list_field(ArrowType::Int32, true)));
    let codes: Vec<u32> = (0..rows).map(|i| (i % 40) as u32).collect();
    let dictionary = FlatVector::new(strings(account, 100));
    let dict = Vector::Dict {
        codes: BufMut::copy_of(account, &codes).expect("fits").freeze(),
        validity: None,
        dictionary: Arc::new(Dictionary::new(ids, dictionary)),
    };
    let constant = |value| Vector::Constant { value, len: rows };
    let long = Scalar::utf8("a constant of more than twelve bytes");
    vec![
        (DataType::Boolean, with_nulls(account, Values::Bool(bits.freeze()))),
        (DataType::Int8, numbers!(I8, i8)),
        (DataType::Int16, numbers!(I16, i16)),
        (DataType::Date, numbers!(I32, i32)),
        (DataType::Int64, numbers!(I64, i64)),
        (decimal.clone(), numbers!(I64, i64)),
        (decimal, numbers!(I128, i128)),
        (DataType::Interval, numbers!(I128, i128)),
        (DataType::UInt8, numbers!(U8, u8)),
        (DataType::UInt16, numbers!(U16, u16)),
        (DataType::UInt32, numbers!(U32, u32)),
        (DataType::UInt64, numbers!(U64, u64)),
        (DataType::Float32, numbers!(F32, f32)),
        (DataType::Float64, numbers!(F64, f64)),
        (DataType::Utf8, with_nulls(account, strings(account, rows))),
        (DataType::Binary, Vector::Flat(FlatVector::new(strings(account, rows)))),
        (DataType::Nested(Arc::new(list)), Vector::Flat(FlatVector::new(Values::Nested(Arc::new(lists))))),
        (DataType::Utf8, dict),
        (DataType::Utf8, constant(long)),
        (DataType::Null, constant(Scalar::null(DataType::Null))),
        (DataType::Int32, constant(Scalar::int(DataType::Int32, -7))),
    ]
    .into_iter()
    .unzip()
}

fn assert_same_rows(types: &[DataType], before: &Batch, after: &Batch) {
    assert_eq!(before.rows(), after.rows());
    for (column, data_type) in types.iter().enumerate() {
        for row in 0..before.rows() {
            let from = before.selection().map_or(row, |s| s.indices()[row] as usize);
            let (a, b) = (before.column(column), after.column(column));
            if let (Vector::Flat(a), Vector::Flat(b)) = (a, b)
                && let (Values::Nested(a), Values::Nested(b)) = (&a.values, &b.values)
            {
                assert_eq!(a.slice(from, 1).to_data(), b.slice(row, 1).to_data());
            }
            assert_eq!(a.scalar(from, data_type), b.scalar(row, data_type), "column {column}, row {row}");
        }
    }
}

fn read_all(file: &Arc<SpillFile>, partition: u32, account: &Account) -> Vec<Batch> {
    let mut reader = file.reader(partition);
    std::iter::from_fn(|| reader.next(account, &DictionaryIds::default()).expect("readable")).collect()
}

#[test]
fn every_type_and_representation_comes_back() {
    let home = TestDirectory::new("types");
    let directory = home.spill(1 << 30);
    let (pool, account) = account();
    let ids = DictionaryIds::default();
    let (types, columns) = columns(&account, &ids, 300);
    let whole = Batch::new(columns, 300);
    let picked: Vec<u32> = (0..300).filter(|i| i % 7 == 2 || i % 11 == 5).collect();
    let selection = Selection::new(BufMut::copy_of(&account, &picked).expect("fits").freeze());
    let part = whole.clone().with_selection(Some(selection));
    let middle = whole.slice(37, 190, &account).expect("fits");
    let mut writer = directory.writer(&types, &account, 1 << 20).expect("fits");
    for (partition, batch) in [(0, &whole), (5, &part), (0, &middle)] {
        writer.write(partition, batch, &account).expect("room");
    }
    assert_eq!(directory.written_bytes(), writer.written_bytes());
    let file = Arc::new(writer.finish().expect("written"));
    assert_eq!((file.blocks(0), file.blocks(1), file.blocks(5), file.blocks(9)), (2, 0, 1, 0));
    assert_eq!((file.rows(0), file.rows(5)), (490, picked.len() as u64));
    let index_bytes = directory.written_bytes() - file.bytes(0) - file.bytes(5);
    assert_eq!(index_bytes, 5 * 64, "three entries and a link for each partition");
    let blocks = read_all(&file, 0, &account);
    let [a, b] = &blocks[..] else { panic!("two blocks") };
    assert_same_rows(&types, &whole, a);
    assert_same_rows(&types, &middle, b);
    assert_same_rows(&types, &part, &read_all(&file, 5, &account)[0]);
    let Vector::Flat(narrow) = a.column(5) else { panic!("flat") };
    assert!(matches!(narrow.values, Values::I64(_)), "a narrow decimal stays narrow");
    // What was read outlives its file.
    drop(file);
    assert_eq!(directory.used_bytes(), 0);
    assert_same_rows(&types, &whole, a);
    drop((blocks, whole, part, middle, account));
    assert_eq!(pool.granted_bytes(), 0);
}

#[test]
fn a_decimal_column_may_change_its_width_and_rows_may_have_no_columns() {
    let home = TestDirectory::new("widths");
    let directory = home.spill(1 << 30);
    let (_pool, account) = account();
    let types = [DataType::Decimal { precision: 20, scale: 0 }];
    let wide = Values::I128(BufMut::copy_of(&account, &[i128::MAX, -1]).expect("fits").freeze());
    let wide = Batch::new(vec![Vector::Flat(FlatVector::new(wide))], 2);
    let narrow = Batch::new(vec![ints(&account, [1, 2, 3])], 3);
    let mut writer = directory.writer(&types, &account, 4096).expect("fits");
    for batch in [&narrow, &wide, &narrow] {
        writer.write(1, batch, &account).expect("room");
    }
    let file = Arc::new(writer.finish().expect("written"));
    for (before, after) in [&narrow, &wide, &narrow].into_iter().zip(read_all(&file, 1, &account)) {
        assert_same_rows(&types, before, &after);
    }
    let mut writer = directory.writer(&[], &account, 4096).expect("fits");
    writer.write(0, &Batch::new(vec![], 17), &account).expect("room");
    writer.write(0, &Batch::new(vec![], 0), &account).expect("nothing to write");
    let file = Arc::new(writer.finish().expect("written"));
    assert_eq!(read_all(&file, 0, &account).iter().map(Batch::rows).collect::<Vec<_>>(), [17]);
}

#[test]
fn blocks_keep_to_their_size_and_their_order() {
    let home = TestDirectory::new("sizes");
    let directory = home.spill(1 << 30);
    let (_pool, account) = account();
    let batch = Batch::new(
        vec![ints(&account, 0..20_000), Vector::Flat(FlatVector::new(strings(&account, 20_000)))],
        20_000,
    );
    let mut writer = directory.writer(&[DataType::Int64, DataType::Utf8], &account, 16 << 10).expect("fits");
    writer.write(3, &batch, &account).expect("room");
    let file = Arc::new(writer.finish().expect("written"));
    assert!(file.blocks(3) > 40);
    let mut reader = file.reader(3);
    let mut row = 0;
    while let Some(bytes) = reader.next_bytes() {
        assert!(bytes <= (16 << 10) + 2048, "{bytes}");
        let block = reader.next(&account, &DictionaryIds::default()).expect("readable").expect("not the end");
        for i in 0..block.rows() {
            assert_eq!(block.column(0).scalar(i, &DataType::Int64).as_int(), Some(row));
            assert_eq!(block.column(1).scalar(i, &DataType::Utf8), Scalar::utf8(text(row as usize)));
            row += 1;
        }
    }
    assert_eq!(row, 20_000);
}

#[test]
fn the_index_takes_no_more_memory_for_many_blocks_and_keeps_their_order() {
    let home = TestDirectory::new("index");
    let directory = home.spill(1 << 30);
    let (_pool, source) = account();
    let ids = DictionaryIds::default();
    for (partitions, blocks) in [(1, 3000), (7, 10_000), (300, 2000), (5000, 5000)] {
        let room = SpillWriter::staging_bytes(4096);
        let pool = Pool::new("writing", room);
        let writing = Account::open(&pool, room, 4096, 0).expect("fits");
        let mut writer = directory.writer(&[DataType::Int64], &writing, 4096).expect("fits");
        let of_block = |block: u64| (block * block / 3 % partitions) as u32;
        for block in 0..blocks {
            let rows = 1 + block as i64 % 3;
            let batch = Batch::new(vec![ints(&source, (0..rows).map(|_| block as i64))], rows as usize);
            writer.write(of_block(block), &batch, &writing).expect("the index is of one size");
        }
        let file = Arc::new(writer.finish().expect("written"));
        drop(writing);
        assert_eq!(pool.granted_bytes(), 0, "what is written needs no memory");
        for partition in 0..partitions as u32 + 1 {
            let expected: Vec<u64> = (0..blocks).filter(|&block| of_block(block) == partition).collect();
            let mut reader = file.reader(partition);
            for &block in &expected {
                // A clone goes on from the same place.
                let mut clone = reader.clone();
                for reader in [&mut clone, &mut reader] {
                    let rows = reader.next(&source, &ids).expect("readable").expect("another");
                    assert_eq!(rows.column(0).scalar(0, &DataType::Int64).as_int(), Some(block.into()));
                    assert_eq!(rows.rows() as u64, 1 + block % 3);
                }
            }
            assert!(reader.next(&source, &ids).expect("readable").is_none());
            assert_eq!(file.blocks(partition), expected.len());
            assert_eq!(file.rows(partition), expected.iter().map(|block| 1 + block % 3).sum::<u64>());
        }
    }
    assert_eq!(directory.used_bytes(), 0);
}

#[test]
fn strings_bring_only_their_own_bytes() {
    let home = TestDirectory::new("strings");
    let directory = home.spill(1 << 30);
    let (_pool, account) = account();
    let all = Batch::new(vec![Vector::Flat(FlatVector::new(strings(&account, 50_000)))], 50_000);
    let few = Selection::new(BufMut::copy_of(&account, &[29, 30_029]).expect("fits").freeze());
    let mut writer = directory.writer(&[DataType::Utf8], &account, 1 << 20).expect("fits");
    writer.write(0, &all.clone().with_selection(Some(few.clone())), &account).expect("room");
    assert!(writer.written_bytes() < 1024, "{}", writer.written_bytes());
    let file = Arc::new(writer.finish().expect("written"));
    let blocks = read_all(&file, 0, &account);
    assert_same_rows(&[DataType::Utf8], &all.with_selection(Some(few)), &blocks[0]);
}

#[test]
fn files_have_no_name_and_segments_rotate() {
    let home = TestDirectory::new("names");
    let directory = home.spill(1 << 30);
    let (_pool, account) = account();
    assert!(!home.0.exists(), "nothing is created before the first write");
    let batch = Batch::new(vec![ints(&account, 0..500_000)], 500_000);
    let mut writer = directory.writer(&[DataType::Int64], &account, 8 << 20).expect("fits");
    for partition in 0..20 {
        writer.write(partition, &batch, &account).expect("room");
        assert_eq!(home.entries(), 0, "unlinked while open");
    }
    let file = Arc::new(writer.finish().expect("written"));
    assert_eq!(file.segments().len(), 2);
    assert_eq!(directory.meter().files.load(Relaxed), 2);
    assert_eq!(directory.meter().blocks_written.load(Relaxed), 20);
    let last = read_all(&file, 19, &account);
    assert_eq!(last[0].column(0).scalar(499_999, &DataType::Int64).as_int(), Some(499_999));
    assert_eq!(directory.meter().bytes_read.load(Relaxed), file.bytes(19) + 2 * 64);
    assert!(directory.used_bytes() >= 80_000_000);
    drop(file);
    assert_eq!(directory.used_bytes(), 0);
}

#[test]
fn the_quota_refuses_a_block_and_keeps_the_others() {
    let home = TestDirectory::new("quota");
    let directory = home.spill(100_000);
    let query = directory.for_query(None);
    let (_pool, account) = account();
    let batch = Batch::new(vec![noise(&account, 5_000)], 5_000);
    let mut writer = query.writer(&[DataType::Int64], &account, 64 << 10).expect("fits");
    writer.write(0, &batch, &account).expect("fits");
    writer.write(0, &batch, &account).expect("fits");
    let used = directory.used_bytes();
    let refused = writer.write(0, &batch, &account).expect_err("120 KB do not fit");
    assert!(matches!(refused, Error::SpillQuota { limit_bytes: 100_000, .. }), "{refused}");
    assert_eq!((directory.used_bytes(), query.written_bytes()), (used, used));
    assert_eq!(directory.written_bytes(), 0, "the query counts for itself");
    let file = Arc::new(writer.finish().expect("written"));
    assert_eq!(file.rows(0), 10_000);
    assert_eq!(read_all(&file, 0, &account).len(), 2);
    drop(file);
    directory.reserve(100_000).expect("everything came back");
}

#[test]
fn failures_of_the_disk_are_errors_that_return_the_quota() {
    let home = TestDirectory::new("faults");
    let (armed, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    // Fails the second of the chunks a block is written in, so that there is debris.
    let hook: FaultHook = {
        let (armed, calls) = (Arc::clone(&armed), Arc::clone(&calls));
        let is_due = move || armed.load(Relaxed) && calls.fetch_add(1, Relaxed) % 2 == 1;
        Arc::new(move || is_due().then_some(DiskFault::Full))
    };
    let directory = home.spill(1 << 30).for_query(Some(hook));
    let (_pool, account) = account();
    let batch = Batch::new(vec![ints(&account, 0..150_000)], 150_000);
    let mut writer = directory.writer(&[DataType::Int64], &account, 2 << 20).expect("fits");
    writer.write(0, &batch, &account).expect("no fault yet");
    let used = directory.used_bytes();
    armed.store(true, Relaxed);
    let failed = writer.write(1, &batch, &account).expect_err("injected");
    let Error::Io { operation, path, .. } = &failed else { panic!("{failed}") };
    assert_eq!(*operation, "cannot write spill file");
    assert!(path.starts_with(&home.0));
    assert_eq!(directory.used_bytes(), used);
    armed.store(false, Relaxed);
    writer.write(2, &batch, &account).expect("the debris is overwritten");
    let file = Arc::new(writer.finish().expect("written"));
    assert_eq!((file.blocks(0), file.blocks(1), file.blocks(2)), (1, 0, 1));
    assert_same_rows(&[DataType::Int64], &batch, &read_all(&file, 2, &account)[0]);
    armed.store(true, Relaxed);
    calls.store(1, Relaxed);
    let failed = file.reader(0).next(&account, &DictionaryIds::default()).expect_err("injected");
    assert!(failed.to_string().starts_with("cannot read spill file"), "{failed}");
}

#[test]
fn places_take_turns_and_one_that_is_full_is_passed_over() {
    let homes = [TestDirectory::new("place-a"), TestDirectory::new("place-b"), TestDirectory::new("place-c")];
    // The second place is no folder.
    fs::create_dir_all(&homes[1].0).expect("writable");
    let places = [homes[0].0.clone(), homes[1].0.join("file"), homes[2].0.clone()];
    fs::write(&places[1], "in the way").expect("writable");
    let failures = Arc::new(AtomicU64::new(0));
    let hook: FaultHook = {
        let failures = Arc::clone(&failures);
        let is_due = move || failures.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        Arc::new(move || is_due().then_some(DiskFault::Full))
    };
    let directory = SpillDirectory::new(places.clone(), 1 << 30).for_query(Some(hook));
    let (_pool, account) = account();
    let batch = Batch::new(vec![ints(&account, 0..5_000)], 5_000);
    let mut writer = directory.writer(&[DataType::Int64], &account, 64 << 10).expect("fits");
    writer.write(0, &batch, &account).expect("room");
    failures.store(2, Relaxed);
    writer.write(0, &batch, &account).expect("the third place has room");
    failures.store(9, Relaxed);
    let error = writer.write(0, &batch, &account).expect_err("no place has room");
    assert!(matches!(&error, Error::Io { .. }), "{error}");
    failures.store(0, Relaxed);
    writer.write(0, &batch, &account).expect("the last segment has room again");
    let file = Arc::new(writer.finish().expect("written"));
    assert_eq!(file.rows(0), 15_000);
    let used: Vec<usize> = file.segments().iter().map(Segment::place).collect();
    assert!(used.contains(&0) && used.contains(&2) && !used.contains(&1), "{used:?}");
    for block in read_all(&file, 0, &account) {
        assert_eq!(block.rows(), 5_000);
    }
    drop(file);
    assert_eq!(directory.used_bytes(), 0);
    let bad = SpillDirectory::new([places[1].clone()], 1 << 30);
    let mut writer = bad.writer(&[DataType::Int64], &account, 64 << 10).expect("fits");
    let error = writer.write(0, &batch, &account).expect_err("no folder");
    assert!(error.to_string().contains("place-b"), "{error}");
}

#[test]
fn what_was_read_for_the_last_time_is_free_on_disk() {
    let home = TestDirectory::new("behind");
    let directory = home.spill(1 << 30);
    let (_pool, account) = account();
    let batch = Batch::new(vec![noise(&account, 5_000)], 5_000);
    let mut writer = directory.writer(&[DataType::Int64], &account, 64 << 10).expect("fits");
    for block in 0..200 {
        // Partition 1 lies between blocks of partition 0.
        writer.write(u32::from(block % 50 == 0), &batch, &account).expect("room");
    }
    let file = Arc::new(writer.finish().expect("written"));
    let (all, ids) = (directory.used_bytes(), DictionaryIds::default());
    let mut reader = file.reader(0);
    let mut behind = reader.behind();
    let mut least = all;
    while let Some(block) = reader.next(&account, &ids).expect("readable") {
        assert_same_rows(&[DataType::Int64], &batch, &block);
        behind.advance(&reader);
        assert!(directory.used_bytes() <= least);
        least = directory.used_bytes();
    }
    // Less than a mebibyte was not worth a call, and pages of two blocks are kept.
    let most_left = file.bytes(1) + (1 << 20) + 200 * 8192;
    assert!(least <= most_left, "{least} of {all} bytes are left, {most_left} may be");
    assert_eq!(read_all(&file, 1, &account).len(), 4, "other partitions are whole");
    drop((file, reader, behind));
    assert_eq!(directory.used_bytes(), 0);
}

#[test]
fn damage_anywhere_is_an_error_that_names_the_file() {
    let home = TestDirectory::new("damage");
    let directory = home.spill(1 << 30);
    let (_pool, account) = account();
    // One that is compressed and one that is not.
    for (column, rows, is_compressed) in
        [(ints(&account, (0..400).map(|i| i / 9)), 400, true), (noise(&account, 60), 60, false)]
    {
        let batch = Batch::new(vec![column], rows);
        let mut writer = directory.writer(&[DataType::Int64], &account, 4096).expect("fits");
        writer.write(0, &batch, &account).expect("room");
        writer.write(0, &batch, &account).expect("room");
        let file = Arc::new(writer.finish().expect("written"));
        let ids = DictionaryIds::default();
        let bytes = file.bytes(0) / 2;
        let message_bytes = file.reader(0).next_bytes().expect("a block") as u64;
        assert_eq!(bytes < message_bytes, is_compressed, "{bytes} of {message_bytes}");
        for at in 0..bytes {
            file.segments()[0].damage(bytes + at, 1 << (at % 8));
            let mut reader = file.reader(0);
            assert!(reader.next(&account, &ids).is_ok(), "the block before is whole");
            let error = reader.next(&account, &ids).expect_err("damaged");
            let Error::Data(data) = &error else { panic!("{error}") };
            assert!(data.origin.as_ref().is_some_and(|o| o.file.starts_with(&home.0)), "{error}");
            file.segments()[0].damage(bytes + at, 1 << (at % 8));
        }
        // Behind the blocks: two entries and a link.
        for at in 2 * bytes..2 * bytes + 3 * 64 {
            file.segments()[0].damage(at, 1 << (at % 8));
            let error = file.reader(0).next(&account, &ids).expect_err("damaged");
            assert!(matches!(&error, Error::Data(_)), "{error}");
            file.segments()[0].damage(at, 1 << (at % 8));
        }
        for block in read_all(&file, 0, &account) {
            assert_same_rows(&[DataType::Int64], &batch, &block);
        }
    }
}

#[test]
fn messages_are_compressed_where_that_saves_a_tenth_within_the_staging_bytes() {
    let home = TestDirectory::new("compressed");
    let directory = home.spill(1 << 30);
    let pool = Pool::new("test", 64 << 20);
    let source = Account::open(&pool, 0, 4096, 0).expect("fits");
    for block_bytes in [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20] {
        let room = SpillWriter::staging_bytes(block_bytes);
        for (column, least, most) in [
            (ints(&source, (0..200_000).map(|i| i / 100)), 0, 60),
            (ints(&source, 0..200_000), 0, 90),
            (noise(&source, 200_000), 99, 120),
        ] {
            let writing = Account::open(&Pool::new("writing", room), room, 4096, 0).expect("fits");
            let before = directory.written_bytes();
            let batch = Batch::new(vec![column], 200_000);
            let mut writer = directory.writer(&[DataType::Int64], &writing, block_bytes).expect("fits");
            // Slices of a flat column need no memory.
            for start in (0..200_000).step_by(400) {
                let part = batch.slice(start, 400, &source).expect("fits");
                writer.write(0, &part, &writing).expect("fits the staging buffer and the index");
            }
            drop(writer.finish().expect("written"));
            let percent = (directory.written_bytes() - before) * 100 / (200_000 * 8);
            let largest = if block_bytes == 4 << 10 { most + 10 } else { most };
            assert!((least..=largest).contains(&percent), "{percent} % in blocks of {block_bytes}");
        }
    }
}

/// Prints what compression costs and saves: `cargo test --lib spill_throughput -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn spill_throughput() {
    let home = TestDirectory::new("throughput");
    let directory = home.spill(8 << 30);
    let pool = Pool::new("test", 512 << 20);
    let account = Account::open(&pool, 0, 1 << 20, 64 << 20).expect("fits");
    let rows = 8192;
    let words =
        ["furiously", "carefully ironic", "deposits", "pending packages haggle", "regular", "accounts"];
    let mut comments = ViewBuilder::new(&account, rows).expect("fits");
    for row in 0..rows * 5 {
        let text: Vec<&str> = (0..4).map(|word| words[(row * 7 + word * row / 3) % words.len()]).collect();
        if row % 5 == 0 {
            comments.push(&account, text.join(" ").as_bytes()).expect("fits");
        }
    }
    let decimals = ints(&account, (0..rows as i64).map(|i| i * 7919 % 10_000_000));
    let cases = [
        ("sequence", DataType::Int64, ints(&account, 0..rows as i64)),
        ("decimals", DataType::Int64, decimals),
        ("comments", DataType::Utf8, Vector::Flat(FlatVector::new(Values::View(comments.freeze())))),
        ("noise", DataType::Int64, noise(&account, rows as u64)),
    ];
    for (name, data_type, column) in cases {
        let batch = Batch::new(vec![column], rows);
        for block_bytes in [64 << 10, 256 << 10] {
            let before = directory.written_bytes();
            let started = std::time::Instant::now();
            let mut writer =
                directory.writer(std::slice::from_ref(&data_type), &account, block_bytes).expect("fits");
            for _ in 0..500 {
                writer.write(0, &batch, &account).expect("room");
            }
            let wrote = started.elapsed().as_secs_f64();
            let file = Arc::new(writer.finish().expect("written"));
            let started = std::time::Instant::now();
            let mut reader = file.reader(0);
            let mut message_bytes = 0;
            while let Some(bytes) = reader.next_bytes() {
                message_bytes += bytes;
                reader.next(&account, &DictionaryIds::default()).expect("readable");
            }
            let read = started.elapsed().as_secs_f64();
            let megabytes = message_bytes as f64 / 1e6;
            println!(
                "{name:>10} {:>4} KiB: {:.2} of the bytes, write {:.0} MB/s, read {:.0} MB/s",
                block_bytes >> 10,
                (directory.written_bytes() - before) as f64 / message_bytes as f64,
                megabytes / wrote,
                megabytes / read,
            );
        }
    }
}

#[test]
fn a_reader_denied_memory_may_try_again() {
    let home = TestDirectory::new("denied");
    let directory = home.spill(1 << 30);
    let (_pool, account) = account();
    let batch = Batch::new(vec![ints(&account, 0..10_000)], 10_000);
    let mut writer = directory.writer(&[DataType::Int64], &account, 1 << 20).expect("fits");
    writer.write(0, &batch, &account).expect("room");
    let file = Arc::new(writer.finish().expect("written"));
    let small = Pool::new("small", 50_000);
    let poor = Account::open(&small, 0, 4096, 0).expect("fits");
    let mut reader = file.reader(0);
    let denied = reader.next(&poor, &DictionaryIds::default()).expect_err("80 KB do not fit");
    assert!(matches!(&denied, Error::Memory(m) if matches!(**m, MemoryError::Exceeded { .. })));
    let block = reader.next(&account, &DictionaryIds::default()).expect("fits").expect("still there");
    assert_same_rows(&[DataType::Int64], &batch, &block);
}

#[test]
fn nested_dictionaries_are_refused_before_anything_is_written() {
    let home = TestDirectory::new("nested");
    let (_pool, account) = account();
    let dictionary = ArrowType::Dictionary(Box::new(ArrowType::Int8), Box::new(ArrowType::Utf8));
    let list = ArrowType::List(Arc::new(Field::new_list_field(dictionary, true)));
    let refused = home.spill(0).writer(&[DataType::Nested(Arc::new(list))], &account, 4096);
    assert!(matches!(refused, Err(Error::Unsupported(_))));
}
