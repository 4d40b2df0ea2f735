//! Build rows in chunks.
//!
//! Invariants:
//! 1. A row is known by the number of its chunk above its place in it, 16 bits; [`NO_ROW`] is never a row.
//! 2. Chunks double from [`FIRST_CHUNK_ROWS`] to [`CHUNK_ROWS`] rows, so that small builds stay small; after chunks were
//!    taken the first is as large as all of those.
//! 3. The columns of a chunk share nothing with batches; strings that are gathered point into the chunks.

use super::pairs::Pairs;
use crate::data::key_bits::KeyBits;
use crate::data::{
    Batch, Bitmap, BitmapMut, Bounds, Buf, BufMut, DataType, FlatVector, MAX_INLINE_BYTES, Plain, Scalar,
    StringViews, Values, Vector, view_bytes, view_len,
};
use crate::error::{Error, Result};
use crate::mem::{Account, Denied, refused};
use crate::operators::rows::RowsBuilder;
use arrow::array::{Array, ArrayRef};
use std::sync::Arc;

/// Rows of a lane's first chunk.
pub(super) const FIRST_CHUNK_ROWS: usize = 512;
/// The most rows of a chunk.
pub(super) const CHUNK_ROWS: usize = 1 << CHUNK_BITS;
const CHUNK_BITS: u32 = 16;
/// Stands for a build row where there is none.
pub(super) const NO_ROW: u32 = u32::MAX;
/// Chunk numbers leave out the one of [`NO_ROW`].
const MOST_CHUNKS: usize = (NO_ROW >> CHUNK_BITS) as usize;

/// The number of a row.
#[inline(always)]
pub(super) fn row_id(chunk: usize, place: usize) -> u32 {
    (chunk << CHUNK_BITS | place) as u32
}

#[inline(always)]
pub(super) fn chunk_of(row: u32) -> usize {
    (row >> CHUNK_BITS) as usize
}

#[inline(always)]
pub(super) fn place_of(row: u32) -> usize {
    row as usize & (CHUNK_ROWS - 1)
}

/// Rows that stay where they are.
pub(super) struct Chunk {
    pub(super) columns: Vec<FlatVector>,
    /// The words of the rows' keys; none if the rows are not looked up.
    pub(super) words: Option<Buf<u64>>,
    pub(super) rows: usize,
}

/// Chunks of one lane.
pub(super) struct ChunkBuilder {
    columns: usize,
    has_words: bool,
    rows: RowsBuilder,
    words: BufMut<u64>,
    len: usize,
    capacity: usize,
    full: Vec<Chunk>,
    full_rows: usize,
    full_bytes: usize,
}

impl ChunkBuilder {
    /// No rows of `columns` columns.
    pub(super) fn new(columns: usize, has_words: bool) -> Self {
        Self {
            columns,
            has_words,
            rows: RowsBuilder::with_room(columns, FIRST_CHUNK_ROWS),
            words: BufMut::empty(),
            len: 0,
            capacity: FIRST_CHUNK_ROWS,
            full: Vec::new(),
            full_rows: 0,
            full_bytes: 0,
        }
    }

    /// Appends the rows of `batch`, whose columns are flat, at `positions`; `words` are by position. What is appended
    /// is taken off `positions`: all, or as many as fit before memory is refused.
    pub(super) fn append(
        &mut self,
        batch: &Batch,
        words: &[u64],
        positions: &mut &[u32],
        account: &Account,
    ) -> Result<Result<(), Denied>> {
        while !positions.is_empty() {
            if self.len == self.capacity {
                self.seal()?;
                self.start((self.capacity * 2).min(CHUNK_ROWS));
            }
            let (now, later) = positions.split_at(positions.len().min(self.capacity - self.len));
            match refused(self.fill(batch, words, now, account))? {
                Ok(()) => *positions = later,
                Err(denied) => {
                    if self.len == 0 {
                        let is_smallest = self.capacity <= FIRST_CHUNK_ROWS;
                        self.start((self.capacity / 2).max(FIRST_CHUNK_ROWS));
                        if !is_smallest {
                            continue;
                        }
                    }
                    return Ok(Err(denied));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Starts a chunk of `capacity` rows.
    fn start(&mut self, capacity: usize) {
        self.capacity = capacity;
        self.rows = RowsBuilder::with_room(self.columns, capacity);
        self.words = BufMut::empty();
    }

    /// Appends to the chunk all of the rows at `positions`, or none.
    fn fill(&mut self, batch: &Batch, words: &[u64], positions: &[u32], account: &Account) -> Result<()> {
        if self.has_words && self.words.capacity() == 0 {
            self.words = BufMut::with_capacity(account, self.capacity)?;
        }
        if let Err(error) = self.rows.append(batch, positions, account) {
            self.rows.truncate(self.len);
            return Err(error);
        }
        if self.has_words {
            self.words.set_len(self.len + positions.len());
            for (to, &row) in self.words[self.len..].iter_mut().zip(positions) {
                *to = words[row as usize];
            }
        }
        self.len += positions.len();
        Ok(())
    }

    fn seal(&mut self) -> Result<()> {
        if self.len == 0 {
            return Ok(());
        }
        self.full_bytes += self.rows.allocated_bytes() + self.words.allocated_bytes();
        self.full_rows += self.len;
        let words = std::mem::replace(&mut self.words, BufMut::empty());
        let words = self.has_words.then(|| words.freeze());
        let columns = self.rows.take()?;
        self.full.push(Chunk { columns, words, rows: self.len });
        self.len = 0;
        Ok(())
    }

    /// Bytes of memory behind the rows.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.full_bytes + self.rows.allocated_bytes() + self.words.allocated_bytes()
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.full_rows + self.len
    }

    /// Takes the chunks, and leaves none. What comes next is expected to be as much: who spills by the chunk wants few.
    pub(super) fn take(&mut self) -> Result<Vec<Chunk>> {
        let rows = self.rows();
        self.seal()?;
        self.start(rows.next_power_of_two().clamp(FIRST_CHUNK_ROWS, CHUNK_ROWS));
        (self.full_rows, self.full_bytes) = (0, 0);
        Ok(std::mem::take(&mut self.full))
    }
}

/// All chunks, column by column.
pub(super) struct Store {
    columns: Vec<StoredColumn>,
    /// Rows of each chunk.
    pub(super) chunk_rows: Vec<usize>,
    pub(super) rows: usize,
}

impl Store {
    /// Fails if the rows of `chunks` chunks cannot be told apart.
    pub(super) fn check_chunks(chunks: usize) -> Result<()> {
        if chunks > MOST_CHUNKS {
            return Err(Error::unsupported("joins with a build side of more than 4 billion rows", None));
        }
        Ok(())
    }

    /// The rows of `chunks`, whose columns have `types`.
    pub(super) fn new(chunks: Vec<Chunk>, types: &[DataType]) -> Result<Self> {
        let chunk_rows: Vec<usize> = chunks.iter().map(|chunk| chunk.rows).collect();
        let mut columns: Vec<Vec<FlatVector>> =
            types.iter().map(|_| Vec::with_capacity(chunks.len())).collect();
        for chunk in chunks {
            for (column, part) in columns.iter_mut().zip(chunk.columns) {
                column.push(part);
            }
        }
        let columns = types.iter().zip(columns).map(|(t, parts)| StoredColumn::new(t, parts));
        Ok(Self { columns: columns.collect::<Result<_>>()?, rows: chunk_rows.iter().sum(), chunk_rows })
    }

    /// Column `column` of `rows`; null where `has_missing` and a row is [`NO_ROW`].
    pub(super) fn gather(
        &self,
        column: usize,
        rows: &[u32],
        has_missing: bool,
        account: &Account,
    ) -> Result<Vector> {
        let column = &self.columns[column];
        if self.rows == 0 {
            return Ok(Vector::Constant { value: Scalar::null(column.data_type.clone()), len: rows.len() });
        }
        column.gather(rows, has_missing, account).map(Vector::Flat)
    }

    /// Keeps the pairs whose build row has in `column` what `probe` has in the probe row, two nulls being equal.
    pub(super) fn retain_equal(&self, column: usize, probe: &FlatVector, pairs: &mut Pairs) -> Result<()> {
        self.columns[column].retain_equal(probe, pairs)
    }
}

/// A column of all chunks.
struct StoredColumn {
    data_type: DataType,
    parts: Parts,
    /// Of each chunk; `None` if no value is null at all.
    validity: Option<Vec<Option<Bitmap>>>,
    bounds: Option<Bounds>,
}

/// The values of each chunk.
enum Parts {
    Bool(Vec<Bitmap>),
    I8(Vec<Buf<i8>>),
    I16(Vec<Buf<i16>>),
    I32(Vec<Buf<i32>>),
    I64(Vec<Buf<i64>>),
    I128(Vec<Buf<i128>>),
    /// Decimals, some of them wide.
    Mixed(Vec<Decimals>),
    U8(Vec<Buf<u8>>),
    U16(Vec<Buf<u16>>),
    U32(Vec<Buf<u32>>),
    U64(Vec<Buf<u64>>),
    F32(Vec<Buf<f32>>),
    F64(Vec<Buf<f64>>),
    View(Strings),
    Nested(Vec<ArrayRef>),
}

enum Decimals {
    Narrow(Buf<i64>),
    Wide(Buf<i128>),
}

/// Views of each chunk, and the buffers of all.
struct Strings {
    views: Vec<Buf<u128>>,
    /// Where each chunk's buffers begin among all, at the place of a view that holds the number of its buffer.
    bases: Vec<u128>,
    buffers: Arc<[Buf<u8>]>,
}

impl Strings {
    #[inline(always)]
    fn view(&self, row: u32) -> u128 {
        let view = self.views[chunk_of(row)][place_of(row)];
        if view_len(view) > MAX_INLINE_BYTES { view + self.bases[chunk_of(row)] } else { view }
    }
}

#[inline(always)]
fn value<T: Plain>(parts: &[Buf<T>], row: u32) -> T {
    parts[chunk_of(row)][place_of(row)]
}

#[inline(always)]
fn decimal(parts: &[Decimals], row: u32) -> i128 {
    match &parts[chunk_of(row)] {
        Decimals::Narrow(part) => part[place_of(row)].into(),
        Decimals::Wide(part) => part[place_of(row)],
    }
}

impl StoredColumn {
    fn new(data_type: &DataType, columns: Vec<FlatVector>) -> Result<Self> {
        let has_nulls = columns.iter().any(|part| part.validity.is_some());
        let validity = has_nulls.then(|| columns.iter().map(|part| part.validity.clone()).collect());
        let mut bounds = columns.first().and_then(|part| part.bounds);
        for part in &columns {
            bounds =
                bounds.zip(part.bounds).map(|(a, b)| Bounds { min: a.min.min(b.min), max: a.max.max(b.max) });
        }
        let parts = Parts::new(columns)?;
        Ok(Self { data_type: data_type.clone(), parts, validity, bounds })
    }

    #[inline(always)]
    fn is_null(&self, row: u32) -> bool {
        let of_chunk = |parts: &Vec<Option<Bitmap>>| {
            parts[chunk_of(row)].as_ref().is_some_and(|valid| !valid.get(place_of(row)))
        };
        self.validity.as_ref().is_some_and(of_chunk)
    }

    fn gather(&self, rows: &[u32], has_missing: bool, account: &Account) -> Result<FlatVector> {
        /// Values of `rows`, `f` of each that is there.
        fn fill<T: Plain>(
            rows: &[u32],
            has_missing: bool,
            account: &Account,
            f: impl Fn(u32) -> T,
        ) -> Result<Buf<T>, Denied> {
            let mut out = BufMut::with_len(account, rows.len())?;
            if has_missing {
                for (to, &row) in out.iter_mut().zip(rows) {
                    *to = if row == NO_ROW { T::default() } else { f(row) };
                }
            } else {
                for (to, &row) in out.iter_mut().zip(rows) {
                    *to = f(row);
                }
            }
            Ok(out.freeze())
        }
        macro_rules! fixed {
            ($variant:ident, $parts:expr) => {
                match &$parts[..] {
                    // A single chunk: places are rows.
                    [part] => Values::$variant(fill(rows, has_missing, account, |row| part[row as usize])?),
                    parts => Values::$variant(fill(rows, has_missing, account, |row| value(parts, row))?),
                }
            };
        }
        let values = match &self.parts {
            Parts::Bool(parts) => {
                let mut bits = BitmapMut::with_len(account, rows.len())?;
                bits.fill_from(|at| {
                    let row = rows[at];
                    row != NO_ROW && parts[chunk_of(row)].get(place_of(row))
                });
                Values::Bool(bits.freeze())
            }
            Parts::I8(parts) => fixed!(I8, parts),
            Parts::I16(parts) => fixed!(I16, parts),
            Parts::I32(parts) => fixed!(I32, parts),
            Parts::I64(parts) => fixed!(I64, parts),
            Parts::I128(parts) => fixed!(I128, parts),
            Parts::Mixed(parts) => Values::I128(fill(rows, has_missing, account, |row| decimal(parts, row))?),
            Parts::U8(parts) => fixed!(U8, parts),
            Parts::U16(parts) => fixed!(U16, parts),
            Parts::U32(parts) => fixed!(U32, parts),
            Parts::U64(parts) => fixed!(U64, parts),
            Parts::F32(parts) => fixed!(F32, parts),
            Parts::F64(parts) => fixed!(F64, parts),
            Parts::View(strings) => Values::View(StringViews {
                views: fill(rows, has_missing, account, |row| strings.view(row))?,
                buffers: Arc::clone(&strings.buffers),
            }),
            Parts::Nested(parts) => Values::Nested(gather_nested(parts, rows, &self.data_type)?),
        };
        let validity = if matches!(values, Values::Nested(_)) || !(has_missing || self.validity.is_some()) {
            None
        } else {
            let mut bits = BitmapMut::with_len(account, rows.len())?;
            bits.fill_from(|at| rows[at] != NO_ROW && !self.is_null(rows[at]));
            Some(bits.freeze())
        };
        Ok(FlatVector { values, validity, bounds: self.bounds })
    }

    fn retain_equal(&self, probe: &FlatVector, pairs: &mut Pairs) -> Result<()> {
        let has_nulls = probe.validity.is_some() || self.validity.is_some();
        macro_rules! retain {
            ($is_equal:expr) => {{
                let is_equal = $is_equal;
                if has_nulls {
                    pairs.retain(|position, row| match (probe.is_null(position), self.is_null(row)) {
                        (false, false) => is_equal(position, row),
                        (probe_is_null, build_is_null) => probe_is_null && build_is_null,
                    });
                } else {
                    pairs.retain(is_equal);
                }
            }};
        }
        macro_rules! fixed {
            ($values:expr, $parts:expr) => {
                retain!(
                    |position: usize, row: u32| $values[position].key_bits() == value($parts, row).key_bits()
                )
            };
        }
        match (&self.parts, &probe.values) {
            (Parts::Bool(parts), Values::Bool(v)) => {
                retain!(
                    |position: usize, row: u32| v.get(position) == parts[chunk_of(row)].get(place_of(row))
                );
            }
            (Parts::I8(parts), Values::I8(v)) => fixed!(v, parts),
            (Parts::I16(parts), Values::I16(v)) => fixed!(v, parts),
            (Parts::I32(parts), Values::I32(v)) => fixed!(v, parts),
            (Parts::I64(parts), Values::I64(v)) => fixed!(v, parts),
            (Parts::I128(parts), Values::I128(v)) => fixed!(v, parts),
            (Parts::I64(parts), Values::I128(v)) => fixed!(v, parts),
            (Parts::I128(parts), Values::I64(v)) => fixed!(v, parts),
            (Parts::Mixed(parts), Values::I64(v)) => {
                retain!(|position: usize, row: u32| i128::from(v[position]) == decimal(parts, row));
            }
            (Parts::Mixed(parts), Values::I128(v)) => {
                retain!(|position: usize, row: u32| v[position] == decimal(parts, row));
            }
            (Parts::U8(parts), Values::U8(v)) => fixed!(v, parts),
            (Parts::U16(parts), Values::U16(v)) => fixed!(v, parts),
            (Parts::U32(parts), Values::U32(v)) => fixed!(v, parts),
            (Parts::U64(parts), Values::U64(v)) => fixed!(v, parts),
            (Parts::F32(parts), Values::F32(v)) => fixed!(v, parts),
            (Parts::F64(parts), Values::F64(v)) => fixed!(v, parts),
            (Parts::View(strings), Values::View(v)) => {
                retain!(|position: usize, row: u32| {
                    let (probe, build) = (v.views[position], strings.view(row));
                    // Length and prefix first; short strings are all in the view.
                    probe as u64 == build as u64
                        && if view_len(probe) <= MAX_INLINE_BYTES {
                            probe == build
                        } else {
                            v.get(position) == view_bytes(&build, &strings.buffers)
                        }
                });
            }
            (_, values) => {
                let found = values.physical();
                return Err(Error::internal(format!("a join key of {} came as {found:?}", self.data_type)));
            }
        }
        Ok(())
    }
}

impl Parts {
    fn new(columns: Vec<FlatVector>) -> Result<Self> {
        let is_wide = |part: &FlatVector| matches!(part.values, Values::I128(_));
        let is_mixed = columns.iter().any(is_wide) && !columns.iter().all(is_wide);
        if is_mixed {
            let part = |part: FlatVector| match part.values {
                Values::I64(v) => Ok(Decimals::Narrow(v)),
                Values::I128(v) => Ok(Decimals::Wide(v)),
                other => Err(mixed_types(&other)),
            };
            return Ok(Self::Mixed(columns.into_iter().map(part).collect::<Result<_>>()?));
        }
        macro_rules! collect {
            ($variant:ident) => {{
                let part = |part: FlatVector| match part.values {
                    Values::$variant(v) => Ok(v),
                    other => Err(mixed_types(&other)),
                };
                Self::$variant(columns.into_iter().map(part).collect::<Result<_>>()?)
            }};
        }
        // Of a column without chunks nobody reads a value.
        let Some(first) = columns.first() else { return Ok(Self::Bool(Vec::new())) };
        Ok(match &first.values {
            Values::Bool(_) => collect!(Bool),
            Values::I8(_) => collect!(I8),
            Values::I16(_) => collect!(I16),
            Values::I32(_) => collect!(I32),
            Values::I64(_) => collect!(I64),
            Values::I128(_) => collect!(I128),
            Values::U8(_) => collect!(U8),
            Values::U16(_) => collect!(U16),
            Values::U32(_) => collect!(U32),
            Values::U64(_) => collect!(U64),
            Values::F32(_) => collect!(F32),
            Values::F64(_) => collect!(F64),
            Values::Nested(_) => collect!(Nested),
            Values::View(_) => {
                let (mut views, mut bases, mut buffers) = (Vec::new(), Vec::new(), Vec::new());
                for part in columns {
                    let Values::View(strings) = part.values else { return Err(mixed_types(&part.values)) };
                    bases.push((buffers.len() as u128) << 64);
                    views.push(strings.views);
                    buffers.extend(strings.buffers.iter().cloned());
                }
                Self::View(Strings { views, bases, buffers: buffers.into() })
            }
        })
    }
}

fn mixed_types(found: &Values) -> Error {
    Error::internal(format!("a build column changes its physical type to {:?}", found.physical()))
}

/// The rows of nested arrays; missing ones come from an array of one null.
fn gather_nested(parts: &[ArrayRef], rows: &[u32], data_type: &DataType) -> Result<ArrayRef> {
    let null = arrow::array::new_null_array(&data_type.to_arrow(), 1);
    let arrays: Vec<&dyn Array> = parts.iter().chain([&null]).map(AsRef::as_ref).collect();
    let place = |&row: &u32| match row {
        NO_ROW => (parts.len(), 0),
        row => (chunk_of(row), place_of(row)),
    };
    let places: Vec<(usize, usize)> = rows.iter().map(place).collect();
    arrow::compute::interleave(&arrays, &places).map_err(|e| Error::internal(format!("nested values: {e}")))
}
