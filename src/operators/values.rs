//! Literal rows.

use crate::data::{
    Batch, BitmapMut, BufMut, DataType, FlatVector, PhysicalType, Plain, Scalar, Value, Values,
};
use crate::data::{Vector, ViewBuilder};
use crate::error::{Error, Result};
use crate::exec::{LaneCx, Need, OpenCx, Pull, Source, SourceBox};
use crate::mem::{Account, Denied, Knobs, size_class_bytes};

/// Emits `rows`, whose values have `types`, in order. Rows may have no columns.
pub(crate) fn values(types: Vec<DataType>, rows: Vec<Vec<Scalar>>) -> SourceBox {
    SourceBox::new(LiteralRows { types, rows })
}

struct LiteralRows {
    types: Vec<DataType>,
    rows: Vec<Vec<Scalar>>,
}

impl Source for LiteralRows {
    type Shared = ();
    /// The next row.
    type Local = usize;

    fn name(&self) -> String {
        "Values".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        let rows = knobs.batch_rows.min(self.rows.len());
        let column_bytes = |(at, data_type): (usize, &DataType)| {
            let strings =
                self.rows.iter().filter_map(|row| row[at].as_bytes()).map(<[u8]>::len).sum::<usize>();
            // Buffers of strings double, so that they take at most twice what is in them.
            let strings_bytes = if strings > 0 { size_class_bytes(2 * strings) } else { 0 };
            size_class_bytes(rows * data_type.value_bytes())
                + size_class_bytes(rows.div_ceil(8))
                + strings_bytes
        };
        // A single row is made of constants.
        let lane_bytes = if rows > 1 { self.types.iter().enumerate().map(column_bytes).sum() } else { 0 };
        Need { lane_bytes, shared_bytes: 0 }
    }

    fn max_lanes(&self) -> usize {
        1
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<()> {
        Ok(())
    }

    fn local(&self, _shared: &(), _cx: &LaneCx<'_>) -> Result<usize> {
        Ok(0)
    }

    fn pull(&self, _shared: &(), next: &mut usize, cx: &LaneCx<'_>) -> Result<Pull> {
        let rows = &self.rows[*next..(*next + cx.batch_rows()).min(self.rows.len())];
        if rows.is_empty() {
            return Ok(Pull::Done);
        }
        *next += rows.len();
        let columns = self.types.iter().enumerate().map(|(at, data_type)| {
            let column: Vec<&Scalar> = rows.iter().map(|row| &row[at]).collect();
            to_vector(&column, data_type, cx.account)
        });
        Ok(Pull::Emit(Batch::new(columns.collect::<Result<_>>()?, rows.len())))
    }
}

/// A column of values of one type.
fn to_vector(column: &[&Scalar], data_type: &DataType, account: &Account) -> Result<Vector> {
    if let [value] = column {
        return Ok(Vector::Constant { value: Scalar::clone(value), len: 1 });
    }
    let ints = |at: usize| column[at].as_int().unwrap_or(0);
    let floats = |at: usize| if let Value::Float(value) = column[at].value { value } else { 0.0 };
    fn fill<T: Plain>(
        account: &Account,
        rows: usize,
        value: impl Fn(usize) -> T,
    ) -> Result<BufMut<T>, Denied> {
        let mut buf = BufMut::with_len(account, rows)?;
        for (at, to) in buf.iter_mut().enumerate() {
            *to = value(at);
        }
        Ok(buf)
    }
    macro_rules! filled {
        ($variant:ident, $t:ty, $value:ident) => {
            Values::$variant(fill(account, column.len(), |at| $value(at) as $t)?.freeze())
        };
    }
    let values = match data_type.physical() {
        PhysicalType::Bool => {
            let mut bits = BitmapMut::with_len(account, column.len())?;
            bits.fill_from(|at| column[at].value == Value::Boolean(true));
            Values::Bool(bits.freeze())
        }
        PhysicalType::I8 => filled!(I8, i8, ints),
        PhysicalType::I16 => filled!(I16, i16, ints),
        PhysicalType::I32 => filled!(I32, i32, ints),
        PhysicalType::I64 => filled!(I64, i64, ints),
        PhysicalType::I128 => filled!(I128, i128, ints),
        PhysicalType::U8 => filled!(U8, u8, ints),
        PhysicalType::U16 => filled!(U16, u16, ints),
        PhysicalType::U32 => filled!(U32, u32, ints),
        PhysicalType::U64 => filled!(U64, u64, ints),
        PhysicalType::F32 => filled!(F32, f32, floats),
        PhysicalType::F64 => filled!(F64, f64, floats),
        PhysicalType::View => {
            let mut builder = ViewBuilder::new(account, column.len())?;
            for value in column {
                builder.push(account, value.as_bytes().unwrap_or_default())?;
            }
            Values::View(builder.freeze())
        }
        PhysicalType::Nested => return Err(Error::unsupported("nested literals in VALUES", None)),
    };
    let validity = if column.iter().any(|value| value.is_null()) {
        let mut bits = BitmapMut::with_len(account, column.len())?;
        bits.fill_from(|at| !column[at].is_null());
        Some(bits.freeze())
    } else {
        None
    };
    Ok(Vector::Flat(FlatVector { values, validity, bounds: None }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Harness;
    use super::*;

    fn pull_all(types: Vec<DataType>, rows: Vec<Vec<Scalar>>) -> Vec<Batch> {
        let harness = Harness::new(16 << 20);
        let (source, cx, mut local) = (LiteralRows { types, rows }, harness.lane(), 0);
        let mut batches = Vec::new();
        loop {
            match source.pull(&(), &mut local, &cx).expect("no error") {
                Pull::Emit(batch) => batches.push(batch),
                Pull::Done => return batches,
                other @ Pull::Wait(_) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn rows_come_back_in_batches_with_their_nulls() {
        let types = vec![
            DataType::Int32,
            DataType::Utf8,
            DataType::Boolean,
            DataType::Decimal { precision: 30, scale: 1 },
            DataType::Float32,
            DataType::Null,
        ];
        let row = |i: usize| -> Vec<Scalar> {
            let null_every = |n: usize, value: Scalar| {
                if i.is_multiple_of(n) { Scalar::null(value.data_type) } else { value }
            };
            let float = Scalar { data_type: DataType::Float32, value: Value::Float(i as f64 / 2.0) };
            vec![
                Scalar::int(types[0].clone(), i as i128),
                null_every(3, Scalar::utf8(format!("a value of some length, {i}"))),
                null_every(5, Scalar::boolean(i.is_multiple_of(2))),
                Scalar::int(types[3].clone(), i as i128 * -7),
                float,
                Scalar::null(DataType::Null),
            ]
        };
        let rows: Vec<_> = (0..2600).map(row).collect();
        let batches = pull_all(types.clone(), rows.clone());
        assert_eq!(batches.iter().map(Batch::rows).collect::<Vec<_>>(), [1024, 1024, 552]);
        for (i, row) in rows.iter().enumerate() {
            for (at, value) in row.iter().enumerate() {
                assert_eq!(&batches[i / 1024].column(at).scalar(i % 1024, &types[at]), value);
            }
        }
    }

    #[test]
    fn one_row_without_columns_is_a_row_and_no_row_is_none() {
        assert_eq!(pull_all(vec![], vec![vec![]]).iter().map(Batch::rows).collect::<Vec<_>>(), [1]);
        assert!(pull_all(vec![DataType::Int64], vec![]).is_empty());
    }
}
