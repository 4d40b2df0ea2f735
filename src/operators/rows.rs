//! Columns being filled with rows of many batches, and rows gathered from many columns.
//!
//! Invariants:
//! 1. What is appended or gathered is copied: results share nothing with what they came from (nested arrays aside).
//! 2. A decimal column becomes 128 bits wide when the first wide value comes, and stays so until it is taken.
//! 3. After an error the columns of a builder may differ in length until it is truncated to what it had before.

use crate::data::{
    Batch, Bitmap, BitmapMut, Bounds, Buf, BufMut, FlatVector, Plain, StringViews, Values, Vector,
    ViewBuilder,
};
use crate::error::{Error, Result};
use crate::mem::{Account, Denied};
use arrow::array::{Array, ArrayRef};

/// The least a column grows to: a page of 64-bit values.
const FIRST_ROWS: usize = 512;

/// Columns that grow row by row, in slabs.
pub(super) struct RowsBuilder {
    columns: Vec<ColumnBuilder>,
    rows: usize,
}

impl RowsBuilder {
    /// No rows of `columns` columns.
    pub(super) fn new(columns: usize) -> Self {
        Self { columns: (0..columns).map(|_| ColumnBuilder::default()).collect(), rows: 0 }
    }

    /// The same with room for `rows` rows, taken when the first come.
    pub(super) fn with_room(columns: usize, rows: usize) -> Self {
        let column = || ColumnBuilder { room: rows, ..ColumnBuilder::default() };
        Self { columns: (0..columns).map(|_| column()).collect(), rows: 0 }
    }

    /// Appends `rows` (positions, alive or not) of `batch`.
    pub(super) fn append(&mut self, batch: &Batch, rows: &[u32], account: &Account) -> Result<()> {
        for (builder, column) in self.columns.iter_mut().zip(batch.columns()) {
            match column {
                Vector::Flat(flat) => builder.append(flat, rows, account)?,
                // Its rows' values are values of the dictionary.
                Vector::Dict { codes, validity: None, dictionary } => {
                    let mut taken = BufMut::with_len(account, rows.len())?;
                    for (to, row) in taken.iter_mut().zip(rows) {
                        *to = codes[*row as usize];
                    }
                    builder.append(dictionary.values(), &taken, account)?;
                }
                // Only what is taken is written out.
                Vector::Constant { .. } | Vector::Dict { .. } => {
                    let taken = column.gather(rows, account)?.flatten(account)?;
                    builder.append_all(&taken, account)?;
                }
            }
        }
        self.rows += rows.len();
        Ok(())
    }

    /// Room for `rows` rows is taken when the first come; none if there is not enough memory for that.
    pub(super) fn expect_rows(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.room = rows);
    }

    /// Forgets the rows from `rows` on, and what an append that failed has left behind.
    pub(super) fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.rows = rows;
    }

    /// Number of rows.
    #[cfg(test)]
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory behind the rows.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.columns.iter().map(ColumnBuilder::allocated_bytes).sum()
    }

    /// Takes the rows, and leaves none.
    pub(super) fn take(&mut self) -> Result<Vec<FlatVector>> {
        self.rows = 0;
        self.columns.iter_mut().map(|c| std::mem::take(c).freeze()).collect()
    }
}

/// Bits that grow.
#[derive(Default)]
struct BitsBuilder {
    words: Option<BufMut<u64>>,
    len: usize,
}

impl BitsBuilder {
    fn extend(&mut self, bits: impl ExactSizeIterator<Item = bool>, account: &Account) -> Result<(), Denied> {
        let needed = (self.len + bits.len()).div_ceil(64);
        let words = match &mut self.words {
            Some(words) => words,
            none => none.insert(BufMut::with_capacity(account, needed.max(FIRST_ROWS))?),
        };
        words.reserve(account, needed)?;
        for bit in bits {
            if self.len.is_multiple_of(64) {
                words.push(0);
            }
            words[self.len / 64] |= u64::from(bit) << (self.len % 64);
            self.len += 1;
        }
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        let Some(words) = self.words.as_mut().filter(|_| len < self.len) else { return };
        words.set_len(len.div_ceil(64));
        if !len.is_multiple_of(64) {
            words[len / 64] &= (1 << (len % 64)) - 1;
        }
        self.len = len;
    }

    fn freeze(self) -> Bitmap {
        Bitmap::from_words(&self.words.map_or(Buf::empty(), BufMut::freeze), self.len)
    }

    fn allocated_bytes(&self) -> usize {
        self.words.as_ref().map_or(0, BufMut::allocated_bytes)
    }
}

/// One column. Its type is that of the first values appended.
#[derive(Default)]
struct ColumnBuilder {
    values: ValuesBuilder,
    /// Present from the first null on.
    validity: Option<BitsBuilder>,
    bounds: Option<Bounds>,
    len: usize,
    /// Rows to make room for at first.
    room: usize,
}

#[derive(Default)]
enum ValuesBuilder {
    #[default]
    Empty,
    Bool(BitsBuilder),
    I8(BufMut<i8>),
    I16(BufMut<i16>),
    I32(BufMut<i32>),
    I64(BufMut<i64>),
    I128(BufMut<i128>),
    U8(BufMut<u8>),
    U16(BufMut<u16>),
    U32(BufMut<u32>),
    U64(BufMut<u64>),
    F32(BufMut<f32>),
    F64(BufMut<f64>),
    View(ViewBuilder),
    /// Pieces to be concatenated, for Arrow arrays do not grow.
    Nested(Vec<ArrayRef>),
}

/// Appends the values at `rows`, or all without them, each passed through `f`.
fn extend<T: Plain, U: Plain>(
    to: &mut BufMut<T>,
    from: &[U],
    rows: Option<&[u32]>,
    account: &Account,
    f: impl Fn(U) -> T,
) -> Result<(), Denied> {
    let at = to.len();
    let added = rows.map_or(from.len(), <[u32]>::len);
    to.reserve(account, at + added)?;
    to.set_len(at + added);
    match rows {
        Some(rows) => {
            for (to, row) in to[at..].iter_mut().zip(rows) {
                *to = f(from[*row as usize]);
            }
        }
        None => {
            for (to, from) in to[at..].iter_mut().zip(from) {
                *to = f(*from);
            }
        }
    }
    Ok(())
}

impl ColumnBuilder {
    fn append(&mut self, from: &FlatVector, rows: &[u32], account: &Account) -> Result<()> {
        self.extend(from, Some(rows), account)
    }

    fn append_all(&mut self, from: &FlatVector, account: &Account) -> Result<()> {
        self.extend(from, None, account)
    }

    fn extend(&mut self, from: &FlatVector, rows: Option<&[u32]>, account: &Account) -> Result<()> {
        let added = rows.map_or(from.len(), <[u32]>::len);
        if added == 0 {
            return Ok(());
        }
        self.bounds = if self.len == 0 { from.bounds } else { union(self.bounds, from.bounds) };
        self.extend_validity(from.validity.as_ref(), rows, added, account)?;
        self.extend_values(&from.values, rows, account)?;
        self.len += added;
        Ok(())
    }

    fn truncate(&mut self, rows: usize) {
        use ValuesBuilder as B;
        fn cut<T: Plain>(values: &mut BufMut<T>, rows: usize) {
            values.set_len(values.len().min(rows));
        }
        match &mut self.values {
            B::Empty => {}
            B::Bool(v) => v.truncate(rows),
            B::I8(v) => cut(v, rows),
            B::I16(v) => cut(v, rows),
            B::I32(v) => cut(v, rows),
            B::I64(v) => cut(v, rows),
            B::I128(v) => cut(v, rows),
            B::U8(v) => cut(v, rows),
            B::U16(v) => cut(v, rows),
            B::U32(v) => cut(v, rows),
            B::U64(v) => cut(v, rows),
            B::F32(v) => cut(v, rows),
            B::F64(v) => cut(v, rows),
            B::View(v) => v.truncate(rows),
            B::Nested(pieces) => {
                let mut len: usize = pieces.iter().map(Array::len).sum();
                while let Some(last) = pieces.pop_if(|_| len > rows) {
                    len -= last.len();
                    if len < rows {
                        pieces.push(last.slice(0, rows - len));
                        len = rows;
                    }
                }
            }
        }
        if let Some(validity) = &mut self.validity {
            validity.truncate(rows);
        }
        self.len = self.len.min(rows);
    }

    fn extend_validity(
        &mut self,
        from: Option<&Bitmap>,
        rows: Option<&[u32]>,
        added: usize,
        account: &Account,
    ) -> Result<(), Denied> {
        if from.is_none() && self.validity.is_none() {
            return Ok(());
        }
        let bits = match &mut self.validity {
            Some(bits) => bits,
            none => {
                let mut bits = BitsBuilder::default();
                bits.extend((0..self.len).map(|_| true), account)?;
                none.insert(bits)
            }
        };
        match (from, rows) {
            (None, _) => bits.extend((0..added).map(|_| true), account),
            (Some(from), None) => bits.extend((0..added).map(|row| from.get(row)), account),
            (Some(from), Some(rows)) => bits.extend(rows.iter().map(|row| from.get(*row as usize)), account),
        }
    }

    fn extend_values(&mut self, from: &Values, rows: Option<&[u32]>, account: &Account) -> Result<()> {
        use ValuesBuilder as B;
        if let B::Empty = self.values {
            let added = rows.map_or(from.len(), <[u32]>::len);
            self.values = B::like(from, added.max(self.room), account)?;
        }
        if let (B::I64(narrow), Values::I128(_)) = (&self.values, from) {
            let mut wide = BufMut::with_capacity(account, narrow.capacity())?;
            extend(&mut wide, narrow, None, account, i128::from)?;
            self.values = B::I128(wide);
        }
        match (&mut self.values, from) {
            (B::Bool(to), Values::Bool(from)) => match rows {
                Some(rows) => to.extend(rows.iter().map(|row| from.get(*row as usize)), account)?,
                None => to.extend((0..from.len()).map(|row| from.get(row)), account)?,
            },
            (B::I8(to), Values::I8(from)) => extend(to, from, rows, account, |v| v)?,
            (B::I16(to), Values::I16(from)) => extend(to, from, rows, account, |v| v)?,
            (B::I32(to), Values::I32(from)) => extend(to, from, rows, account, |v| v)?,
            (B::I64(to), Values::I64(from)) => extend(to, from, rows, account, |v| v)?,
            (B::I128(to), Values::I128(from)) => extend(to, from, rows, account, |v| v)?,
            (B::I128(to), Values::I64(from)) => extend(to, from, rows, account, i128::from)?,
            (B::U8(to), Values::U8(from)) => extend(to, from, rows, account, |v| v)?,
            (B::U16(to), Values::U16(from)) => extend(to, from, rows, account, |v| v)?,
            (B::U32(to), Values::U32(from)) => extend(to, from, rows, account, |v| v)?,
            (B::U64(to), Values::U64(from)) => extend(to, from, rows, account, |v| v)?,
            (B::F32(to), Values::F32(from)) => extend(to, from, rows, account, |v| v)?,
            (B::F64(to), Values::F64(from)) => extend(to, from, rows, account, |v| v)?,
            (B::View(to), Values::View(from)) => match rows {
                Some(rows) => to.extend_from(account, &[from], rows.len(), |at| (0, rows[at] as usize))?,
                None => to.extend_from(account, &[from], from.len(), |at| (0, at))?,
            },
            (B::Nested(to), Values::Nested(from)) => match rows {
                Some(rows) => to.push(take_nested(from, rows)?),
                None => to.push(ArrayRef::clone(from)),
            },
            (_, from) => return Err(mixed_types(from)),
        }
        Ok(())
    }

    fn allocated_bytes(&self) -> usize {
        use ValuesBuilder as B;
        let validity = self.validity.as_ref().map_or(0, BitsBuilder::allocated_bytes);
        validity
            + match &self.values {
                B::Empty => 0,
                B::Bool(v) => v.allocated_bytes(),
                B::I8(v) => v.allocated_bytes(),
                B::I16(v) => v.allocated_bytes(),
                B::I32(v) => v.allocated_bytes(),
                B::I64(v) => v.allocated_bytes(),
                B::I128(v) => v.allocated_bytes(),
                B::U8(v) => v.allocated_bytes(),
                B::U16(v) => v.allocated_bytes(),
                B::U32(v) => v.allocated_bytes(),
                B::U64(v) => v.allocated_bytes(),
                B::F32(v) => v.allocated_bytes(),
                B::F64(v) => v.allocated_bytes(),
                B::View(v) => v.allocated_bytes(),
                B::Nested(pieces) => pieces.iter().map(Array::get_array_memory_size).sum(),
            }
    }

    fn freeze(self) -> Result<FlatVector> {
        use ValuesBuilder as B;
        let values = match self.values {
            // Of a column without rows nobody sees the type.
            B::Empty => Values::Bool(BitsBuilder::default().freeze()),
            B::Bool(v) => Values::Bool(v.freeze()),
            B::I8(v) => Values::I8(v.freeze()),
            B::I16(v) => Values::I16(v.freeze()),
            B::I32(v) => Values::I32(v.freeze()),
            B::I64(v) => Values::I64(v.freeze()),
            B::I128(v) => Values::I128(v.freeze()),
            B::U8(v) => Values::U8(v.freeze()),
            B::U16(v) => Values::U16(v.freeze()),
            B::U32(v) => Values::U32(v.freeze()),
            B::U64(v) => Values::U64(v.freeze()),
            B::F32(v) => Values::F32(v.freeze()),
            B::F64(v) => Values::F64(v.freeze()),
            B::View(v) => Values::View(v.freeze()),
            B::Nested(pieces) => Values::Nested(concatenate(&pieces)?),
        };
        Ok(FlatVector { values, validity: self.validity.map(BitsBuilder::freeze), bounds: self.bounds })
    }
}

impl ValuesBuilder {
    /// An empty builder for values like `from`.
    fn like(from: &Values, rows: usize, account: &Account) -> Result<Self, Denied> {
        fn room<T: Plain>(_like: &[T], rows: usize, account: &Account) -> Result<BufMut<T>, Denied> {
            BufMut::with_capacity(account, rows.max(FIRST_ROWS))
        }
        Ok(match from {
            Values::Bool(_) => Self::Bool(BitsBuilder::default()),
            Values::I8(v) => Self::I8(room(v, rows, account)?),
            Values::I16(v) => Self::I16(room(v, rows, account)?),
            Values::I32(v) => Self::I32(room(v, rows, account)?),
            Values::I64(v) => Self::I64(room(v, rows, account)?),
            Values::I128(v) => Self::I128(room(v, rows, account)?),
            Values::U8(v) => Self::U8(room(v, rows, account)?),
            Values::U16(v) => Self::U16(room(v, rows, account)?),
            Values::U32(v) => Self::U32(room(v, rows, account)?),
            Values::U64(v) => Self::U64(room(v, rows, account)?),
            Values::F32(v) => Self::F32(room(v, rows, account)?),
            Values::F64(v) => Self::F64(room(v, rows, account)?),
            Values::View(_) => Self::View(ViewBuilder::new(account, rows.max(FIRST_ROWS))?),
            Values::Nested(_) => Self::Nested(Vec::new()),
        })
    }
}

/// Bounds of both; unknown if either is.
fn union(a: Option<Bounds>, b: Option<Bounds>) -> Option<Bounds> {
    a.zip(b).map(|(a, b)| Bounds { min: a.min.min(b.min), max: a.max.max(b.max) })
}

fn mixed_types(found: &Values) -> Error {
    Error::internal(format!("a column changes its physical type to {:?}", found.physical()))
}

fn take_nested(array: &ArrayRef, rows: &[u32]) -> Result<ArrayRef> {
    let rows: Vec<(usize, usize)> = rows.iter().map(|row| (0, *row as usize)).collect();
    interleave_nested(&[array.as_ref()], &rows)
}

fn concatenate(pieces: &[ArrayRef]) -> Result<ArrayRef> {
    let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
    arrow::compute::concat(&pieces).map_err(|e| Error::internal(format!("nested values: {e}")))
}

fn interleave_nested(arrays: &[&dyn Array], rows: &[(usize, usize)]) -> Result<ArrayRef> {
    arrow::compute::interleave(arrays, rows).map_err(|e| Error::internal(format!("nested values: {e}")))
}

/// A row of one of several sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    /// Which source.
    pub(super) source: u32,
    /// Its row.
    pub(super) row: u32,
}

/// Column `column` of the rows `picks` of `sources`, in that order. There is at least one source.
pub(super) fn gather_column<'a>(
    sources: &[&'a [FlatVector]],
    column: usize,
    picks: &[Pick],
    account: &Account,
) -> Result<FlatVector> {
    let of = |pick: &Pick| &sources[pick.source as usize][column];
    let mut bounds = sources[0][column].bounds;
    let mut is_wide = false;
    for source in sources {
        bounds = union(bounds, source[column].bounds);
        is_wide |= matches!(source[column].values, Values::I128(_));
    }
    // Looked up once for each source and not for each row.
    macro_rules! each_source {
        ($variant:ident) => {{
            let values = |source: &&'a [FlatVector]| match &source[column].values {
                Values::$variant(values) => Ok(&**values),
                other => Err(mixed_types(other)),
            };
            sources.iter().map(values).collect::<Result<Vec<_>>>()?
        }};
    }
    macro_rules! fixed {
        ($variant:ident) => {{
            let from = each_source!($variant);
            let mut to = BufMut::with_len(account, picks.len())?;
            match &from[..] {
                [only] => {
                    for (to, pick) in to.iter_mut().zip(picks) {
                        *to = only[pick.row as usize];
                    }
                }
                from => {
                    for (to, pick) in to.iter_mut().zip(picks) {
                        *to = from[pick.source as usize][pick.row as usize];
                    }
                }
            }
            Values::$variant(to.freeze())
        }};
    }
    let values = match &sources[0][column].values {
        Values::I64(_) | Values::I128(_) if is_wide => {
            let mut to = BufMut::with_len(account, picks.len())?;
            for (to, pick) in to.iter_mut().zip(picks) {
                *to = match &of(pick).values {
                    Values::I64(from) => i128::from(from[pick.row as usize]),
                    Values::I128(from) => from[pick.row as usize],
                    other => return Err(mixed_types(other)),
                };
            }
            Values::I128(to.freeze())
        }
        Values::Bool(_) => {
            let mut to = BitmapMut::with_len(account, picks.len())?;
            for (at, pick) in picks.iter().enumerate() {
                let Values::Bool(from) = &of(pick).values else {
                    return Err(mixed_types(&of(pick).values));
                };
                to.set(at, from.get(pick.row as usize));
            }
            Values::Bool(to.freeze())
        }
        Values::I8(_) => fixed!(I8),
        Values::I16(_) => fixed!(I16),
        Values::I32(_) => fixed!(I32),
        Values::I64(_) => fixed!(I64),
        Values::I128(_) => fixed!(I128),
        Values::U8(_) => fixed!(U8),
        Values::U16(_) => fixed!(U16),
        Values::U32(_) => fixed!(U32),
        Values::U64(_) => fixed!(U64),
        Values::F32(_) => fixed!(F32),
        Values::F64(_) => fixed!(F64),
        Values::View(_) => {
            let strings = |source: &&'a [FlatVector]| match &source[column].values {
                Values::View(strings) => Ok(strings),
                other => Err(mixed_types(other)),
            };
            let from = sources.iter().map(strings).collect::<Result<Vec<&'a StringViews>>>()?;
            let mut to = ViewBuilder::new(account, picks.len())?;
            let pick = |at: usize| (picks[at].source as usize, picks[at].row as usize);
            to.extend_from(account, &from, picks.len(), pick)?;
            Values::View(to.freeze())
        }
        Values::Nested(_) => {
            let array = |source: &&[FlatVector]| match &source[column].values {
                Values::Nested(array) => Ok(ArrayRef::clone(array)),
                other => Err(mixed_types(other)),
            };
            let arrays = sources.iter().map(array).collect::<Result<Vec<_>>>()?;
            let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
            let rows: Vec<_> = picks.iter().map(|p| (p.source as usize, p.row as usize)).collect();
            Values::Nested(interleave_nested(&arrays, &rows)?)
        }
    };
    let validity = gather_validity(sources, column, picks, account)?;
    Ok(FlatVector { values, validity, bounds })
}

/// Which of the rows `picks` of `sources` have a value in column `column`; `None` if none is null.
pub(super) fn gather_validity(
    sources: &[&[FlatVector]],
    column: usize,
    picks: &[Pick],
    account: &Account,
) -> Result<Option<Bitmap>> {
    if sources.iter().all(|source| source[column].validity.is_none()) {
        return Ok(None);
    }
    let mut bits = BitmapMut::with_len(account, picks.len())?;
    bits.fill_from(|at| !sources[picks[at].source as usize][column].is_null(picks[at].row as usize));
    Ok(Some(bits.freeze()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Harness, int_column, ints};
    use super::*;
    use crate::data::{DataType, Scalar};

    #[test]
    fn rows_of_many_batches_come_together_with_their_nulls() {
        let harness = Harness::new(16 << 20);
        let mut builder = RowsBuilder::new(1);
        let mut expected = Vec::new();
        for i in 0..300i64 {
            let values = [Some(i), (i > 100).then_some(-i).or((i % 2 == 0).then_some(7)), Some(-1)];
            builder.append(&ints(&harness, values), &[1, 0], &harness.account).expect("fits");
            expected.extend([values[1], values[0]]);
        }
        let constant = Vector::Constant { value: Scalar::int(DataType::Int64, 42), len: 5 };
        let constant = Batch::new(vec![constant], 5);
        builder.append(&constant, &[0, 4], &harness.account).expect("fits");
        expected.extend([Some(42), Some(42)]);
        assert_eq!(builder.rows(), 602);
        let columns = builder.take().expect("one type");
        let batch = Batch::new(columns.into_iter().map(Vector::Flat).collect(), 602);
        assert_eq!(harness.rows(&batch).into_iter().map(|row| row[0]).collect::<Vec<_>>(), expected);
        assert_eq!(builder.rows(), 0);
        drop((batch, builder));
        drop(constant);
        assert_eq!(harness.account.used_bytes(), 0);
    }

    #[test]
    fn rows_that_did_not_fit_are_forgotten() {
        let harness = Harness::new(16 << 20);
        let mut builder = RowsBuilder::new(1);
        builder
            .append(&ints(&harness, [Some(1), None, Some(3)]), &[0, 1, 2], &harness.account)
            .expect("fits");
        builder.truncate(2);
        builder.append(&ints(&harness, [Some(4), None]), &[0, 1], &harness.account).expect("fits");
        builder.truncate(3);
        let columns = builder.take().expect("one type");
        let batch = Batch::new(columns.into_iter().map(Vector::Flat).collect(), 3);
        let rows: Vec<_> = harness.rows(&batch).into_iter().map(|row| row[0]).collect();
        assert_eq!(rows, [Some(1), None, Some(4)]);
    }

    #[test]
    fn a_wide_decimal_widens_its_column_and_what_is_gathered_with_it() {
        let harness = Harness::new(16 << 20);
        let wide = |values: &[i128]| {
            let values = Values::I128(BufMut::copy_of(&harness.account, values).expect("fits").freeze());
            Vector::Flat(FlatVector::new(values))
        };
        let mut builder = RowsBuilder::new(1);
        for column in
            [int_column(&harness, &[Some(1)]), wide(&[i128::MAX]), int_column(&harness, &[Some(-3)])]
        {
            builder.append(&Batch::new(vec![column], 1), &[0], &harness.account).expect("fits");
        }
        let built = builder.take().expect("one type");
        let Values::I128(values) = &built[0].values else { panic!("wide") };
        assert_eq!(&**values, &[1, i128::MAX, -3]);
        let Vector::Flat(narrow) = int_column(&harness, &[Some(8), None]) else { panic!("flat") };
        let picks = [(0, 0), (1, 0), (0, 1), (1, 2)].map(|(source, row)| Pick { source, row });
        let gathered = gather_column(&[&[narrow], &built], 0, &picks, &harness.account).expect("fits");
        let Values::I128(values) = &gathered.values else { panic!("wide") };
        assert_eq!((values[0], values[1], values[3]), (8, 1, -3));
        assert_eq!((0..4).map(|row| gathered.is_null(row)).collect::<Vec<_>>(), [false, false, true, false]);
    }
}
