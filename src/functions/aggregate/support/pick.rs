//! Aggregates that keep one of the values they see: the least, the greatest, the first.
//!
//! Invariants:
//! 1. A group's mark says whether it has a value; the value of a group without one is unspecified.
//! 2. Values are kept at the usual width of their type, whatever the width of the vectors they came in.

use super::bytes::ByteStates;
use super::input::{Input, group_of, spread};
use super::states::{States, validity, vector};
use crate::data::{
    Bitmap, BitmapMut, Buf, BufMut, DataType, MAX_INLINE_BYTES, PhysicalType, Plain, Values, Vector, view_len,
};
use crate::error::{Error, Result};
use crate::expr::EvalCx;
use crate::functions::aggregate::{Accumulator, GroupIds, GroupSet, Rows};
use crate::mem::{Account, Denied};
use std::marker::PhantomData;

/// What a group has so far.
mod mark {
    /// Nothing.
    pub(super) const NONE: u8 = 0;
    /// A value.
    pub(super) const VALUE: u8 = 1;
    /// A null that counts as its value.
    pub(super) const NULL: u8 = 2;
    /// Nothing yet, but the next value offered is its value.
    pub(super) const NEXT: u8 = 3;
}

/// SQL's order: NaN is the greatest, -0.0 equals 0.0, strings by bytes.
pub(crate) trait Less {
    /// Whether `self` comes before `other`.
    fn less(&self, other: &Self) -> bool;
}

/// Which value a group keeps.
pub(crate) trait Pick: Send + Sync + 'static {
    /// Whether nulls are values like others.
    const KEEPS_NULLS: bool = false;
    /// Whether `new` takes the place of `current`.
    fn replaces<T: Less + ?Sized>(new: &T, current: &T) -> bool;
}

/// The least value.
pub(crate) struct Least;
/// The greatest value.
pub(crate) struct Greatest;
/// The first value that is not null.
pub(crate) struct Whichever;
/// The first value, null or not.
pub(crate) struct Earliest;

impl Pick for Least {
    #[inline(always)]
    fn replaces<T: Less + ?Sized>(new: &T, current: &T) -> bool {
        new.less(current)
    }
}

impl Pick for Greatest {
    #[inline(always)]
    fn replaces<T: Less + ?Sized>(new: &T, current: &T) -> bool {
        current.less(new)
    }
}

impl Pick for Whichever {
    #[inline(always)]
    fn replaces<T: Less + ?Sized>(_new: &T, _current: &T) -> bool {
        false
    }
}

impl Pick for Earliest {
    const KEEPS_NULLS: bool = true;
    #[inline(always)]
    fn replaces<T: Less + ?Sized>(_new: &T, _current: &T) -> bool {
        false
    }
}

impl Less for [u8] {
    fn less(&self, other: &Self) -> bool {
        self < other
    }
}

/// A fixed-width value that can be kept.
trait Cell: Plain + Less {
    /// The values, if they have this type.
    fn of(values: &Values) -> Option<&[Self]>;
    /// From a value that another width carries.
    fn from_wide(value: i128) -> Self;
    /// As the values of a vector.
    fn wrap(values: Buf<Self>) -> Values;
}

macro_rules! cells {
    ($($type:ty, $variant:ident, |$a:ident, $b:ident| $less:expr;)*) => { $(
        impl Less for $type {
            #[inline(always)]
            fn less(&self, other: &Self) -> bool {
                let ($a, $b) = (*self, *other);
                $less
            }
        }
        impl Cell for $type {
            fn of(values: &Values) -> Option<&[Self]> {
                if let Values::$variant(values) = values { Some(values) } else { None }
            }
            fn from_wide(value: i128) -> Self {
                value as Self
            }
            fn wrap(values: Buf<Self>) -> Values {
                Values::$variant(values)
            }
        }
    )* };
}

cells! {
    i8, I8, |a, b| a < b;
    i16, I16, |a, b| a < b;
    i32, I32, |a, b| a < b;
    i64, I64, |a, b| a < b;
    i128, I128, |a, b| a < b;
    u8, U8, |a, b| a < b;
    u16, U16, |a, b| a < b;
    u32, U32, |a, b| a < b;
    u64, U64, |a, b| a < b;
    f32, F32, |a, b| a < b || (b.is_nan() && !a.is_nan());
    f64, F64, |a, b| a < b || (b.is_nan() && !a.is_nan());
}

/// An error unless values of `data_type` can be kept (and, if `is_ordered`, compared).
pub(crate) fn pickable(name: &str, data_type: &DataType, is_ordered: bool) -> Result<()> {
    match data_type.physical() {
        PhysicalType::Nested => Err(Error::unsupported(format!("{name} of {data_type}"), None)),
        _ if is_ordered && *data_type == DataType::Interval => {
            Err(Error::unsupported(format!("{name} of {data_type}"), None))
        }
        _ => Ok(()),
    }
}

/// An accumulator that keeps what `P` picks of values that are [`pickable`].
pub(crate) fn accumulator<P: Pick>(data_type: &DataType) -> Box<dyn Accumulator> {
    fn fixed<T: Cell, P: Pick>(is_bool: bool) -> Box<dyn Accumulator> {
        Box::new(FixedPick::<T, P> {
            values: States::new(),
            marks: States::new(),
            is_bool,
            pick: PhantomData,
        })
    }
    match data_type.physical() {
        PhysicalType::Bool => fixed::<u8, P>(true),
        PhysicalType::I8 => fixed::<i8, P>(false),
        PhysicalType::I16 => fixed::<i16, P>(false),
        PhysicalType::I32 => fixed::<i32, P>(false),
        PhysicalType::I64 => fixed::<i64, P>(false),
        PhysicalType::I128 => fixed::<i128, P>(false),
        PhysicalType::U8 => fixed::<u8, P>(false),
        PhysicalType::U16 => fixed::<u16, P>(false),
        PhysicalType::U32 => fixed::<u32, P>(false),
        PhysicalType::U64 => fixed::<u64, P>(false),
        PhysicalType::F32 => fixed::<f32, P>(false),
        PhysicalType::F64 => fixed::<f64, P>(false),
        PhysicalType::View | PhysicalType::Nested => {
            Box::new(BytesPick::<P> { values: ByteStates::new(), marks: States::new(), pick: PhantomData })
        }
    }
}

/// If nulls count: settles groups whose next row decides them. `is_null` by position.
fn mark_nulls(marks: &mut [u8], groups: GroupIds<'_>, rows: Rows<'_>, is_null: impl Fn(usize) -> bool) {
    for k in 0..rows.len() {
        let mark = &mut marks[group_of(groups, k)];
        if *mark == mark::NONE {
            *mark = if is_null(rows.position(k)) { mark::NULL } else { mark::NEXT };
        }
    }
}

/// The marks as the column of state that says whether a group has anything.
fn export_marks(marks: &States<u8>, groups: GroupSet<'_>, account: &Account) -> Result<Vector, Denied> {
    let mut bits = BitmapMut::with_len(account, groups.len())?;
    bits.fill_from(|i| marks[groups.group(i)] != mark::NONE);
    Ok(vector(Values::Bool(bits.freeze()), None))
}

/// The rows whose exported mark is set, with their groups.
fn marked(
    groups: GroupIds<'_>,
    rows: Rows<'_>,
    marks: &Vector,
    account: &Account,
) -> Result<(Buf<u32>, Buf<u32>)> {
    let flat = marks.flatten(account)?;
    let Values::Bool(set) = &flat.values else {
        return Err(Error::internal("a mark is not BOOLEAN"));
    };
    let mut ids = BufMut::with_capacity(account, rows.len())?;
    let mut positions = BufMut::with_capacity(account, rows.len())?;
    for k in (0..rows.len()).filter(|&k| set.get(rows.position(k))) {
        ids.push(group_of(groups, k) as u32);
        positions.push(rows.position(k) as u32);
    }
    Ok((ids.freeze(), positions.freeze()))
}

fn count_of(groups: GroupIds<'_>) -> usize {
    match groups {
        GroupIds::One => 1,
        GroupIds::Each { groups, .. } => groups,
    }
}

/// Keeps values of fixed width.
struct FixedPick<T: Cell, P> {
    values: States<T>,
    marks: States<u8>,
    /// Values are booleans, kept as bytes.
    is_bool: bool,
    pick: PhantomData<P>,
}

impl<T: Cell, P: Pick> FixedPick<T, P> {
    fn offer(&mut self, ids: Option<&[u32]>, offered: &[T]) {
        let (values, marks): (&mut [T], &mut [u8]) = (&mut self.values, &mut self.marks);
        let Some(ids) = ids else {
            let Some((&first, rest)) = offered.split_first() else { return };
            let best = rest.iter().fold(first, |best, v| if P::replaces(v, &best) { *v } else { best });
            take::<T, P>(&mut values[0], &mut marks[0], best);
            return;
        };
        for (&id, &value) in ids.iter().zip(offered) {
            take::<T, P>(&mut values[id as usize], &mut marks[id as usize], value);
        }
    }
}

#[inline(always)]
fn take<T: Cell, P: Pick>(current: &mut T, mark: &mut u8, value: T) {
    let replaces = match *mark {
        mark::NONE | mark::NEXT => true,
        mark::VALUE => P::replaces(&value, current),
        _ => false,
    };
    if replaces {
        *current = value;
        *mark = mark::VALUE;
    }
}

impl<T: Cell, P: Pick> Accumulator for FixedPick<T, P> {
    fn resize(&mut self, groups: usize, account: &Account) -> Result<(), Denied> {
        self.values.resize(groups, T::default(), account)?;
        self.marks.resize(groups, mark::NONE, account)
    }

    fn update(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        arguments: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        let Some(vector) = spread(&arguments[0], cx.account)? else {
            if P::KEEPS_NULLS {
                mark_nulls(&mut self.marks, groups, rows, |_| true);
            }
            return Ok(());
        };
        let input = Input::new(&vector)?;
        if P::KEEPS_NULLS && input.validity.is_some() {
            mark_nulls(&mut self.marks, groups, rows, |row| input.is_null(row));
        }
        if let Some(values) = T::of(input.values) {
            if input.is_dense(rows) {
                let ids = if let GroupIds::Each { ids, .. } = groups { Some(ids) } else { None };
                self.offer(ids, &values[..rows.len()]);
            } else {
                input.pieces(rows, groups, |at| values[at], |ids, values| self.offer(ids, values));
            }
            return Ok(());
        }
        let offer = |ids: Option<&[u32]>, values: &[T]| self.offer(ids, values);
        match input.values {
            Values::Bool(bits) => input.pieces(rows, groups, |at| T::from_wide(bits.get(at).into()), offer),
            Values::I64(narrow) => input.pieces(rows, groups, |at| T::from_wide(narrow[at].into()), offer),
            Values::I128(wide) => input.pieces(rows, groups, |at| T::from_wide(wide[at]), offer),
            Values::I8(_)
            | Values::I16(_)
            | Values::I32(_)
            | Values::U8(_)
            | Values::U16(_)
            | Values::U32(_)
            | Values::U64(_)
            | Values::F32(_)
            | Values::F64(_)
            | Values::View(_)
            | Values::Nested(_) => {
                return Err(Error::internal("an aggregate was given values of another type"));
            }
        }
        Ok(())
    }

    fn merge(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        states: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        if !P::KEEPS_NULLS {
            return self.update(groups, rows, states, cx);
        }
        let (ids, positions) = marked(groups, rows, &states[1], cx.account)?;
        let groups = GroupIds::Each { ids: &ids, groups: count_of(groups) };
        self.update(groups, Rows::At(&positions), &states[..1], cx)
    }

    fn export(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vec<Vector>> {
        let mut columns = vec![self.finish(groups, account)?];
        if P::KEEPS_NULLS {
            columns.push(export_marks(&self.marks, groups, account)?);
        }
        Ok(columns)
    }

    fn finish(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vector> {
        let validity: Option<Bitmap> = validity(groups, account, |g| self.marks[g] == mark::VALUE)?;
        let values = if self.is_bool {
            let mut bits = BitmapMut::with_len(account, groups.len())?;
            bits.fill_from(|i| self.values[groups.group(i)] != T::default());
            Values::Bool(bits.freeze())
        } else {
            T::wrap(self.values.gather(groups, account)?)
        };
        Ok(vector(values, validity))
    }

    fn clear(&mut self) {
        self.values.clear();
        self.marks.clear();
    }

    fn allocated_bytes(&self) -> usize {
        self.values.allocated_bytes() + self.marks.allocated_bytes()
    }
}

/// Keeps strings and blobs.
struct BytesPick<P> {
    values: ByteStates,
    marks: States<u8>,
    pick: PhantomData<P>,
}

impl<P: Pick> Accumulator for BytesPick<P> {
    fn resize(&mut self, groups: usize, account: &Account) -> Result<(), Denied> {
        self.values.resize(groups, account)?;
        self.marks.resize(groups, mark::NONE, account)
    }

    fn reserve(&mut self, rows: Rows<'_>, columns: &[Vector], account: &Account) -> Result<(), Denied> {
        let long = |view: u128| Some(view_len(view)).filter(|len| *len > MAX_INLINE_BYTES).unwrap_or(0);
        let bytes = match &columns[0] {
            Vector::Constant { value, .. } => {
                value.as_bytes().map_or(0, <[u8]>::len) * rows.len().min(self.marks.len())
            }
            Vector::Flat(_) | Vector::Dict { .. } => {
                let Ok(Input { values: Values::View(strings), codes, .. }) = Input::new(&columns[0]) else {
                    // Not strings; the update will say so.
                    return Ok(());
                };
                let place = |row: usize| codes.map_or(row, |codes| codes[row] as usize);
                (0..rows.len()).map(|k| long(strings.views[place(rows.position(k))])).sum()
            }
        };
        self.values.reserve(bytes, account)
    }

    fn update(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        arguments: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        let Some(vector) = spread(&arguments[0], cx.account)? else {
            if P::KEEPS_NULLS {
                mark_nulls(&mut self.marks, groups, rows, |_| true);
            }
            return Ok(());
        };
        let input = Input::new(&vector)?;
        let Values::View(strings) = input.values else {
            return Err(Error::internal("an aggregate was given values of another type"));
        };
        if P::KEEPS_NULLS {
            mark_nulls(&mut self.marks, groups, rows, |row| input.is_null(row));
        }
        for k in 0..rows.len() {
            let (row, group) = (rows.position(k), group_of(groups, k));
            if input.is_null(row) {
                continue;
            }
            let value = strings.get(input.place(row));
            let replaces = match self.marks[group] {
                mark::NONE | mark::NEXT => true,
                mark::VALUE => P::replaces(value, self.values.get(group)),
                _ => false,
            };
            if replaces {
                self.values.set(group, value);
                self.marks[group] = mark::VALUE;
            }
        }
        Ok(())
    }

    fn merge(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        states: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        if !P::KEEPS_NULLS {
            return self.update(groups, rows, states, cx);
        }
        let (ids, positions) = marked(groups, rows, &states[1], cx.account)?;
        let groups = GroupIds::Each { ids: &ids, groups: count_of(groups) };
        self.update(groups, Rows::At(&positions), &states[..1], cx)
    }

    fn export(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vec<Vector>> {
        let mut columns = vec![self.finish(groups, account)?];
        if P::KEEPS_NULLS {
            columns.push(export_marks(&self.marks, groups, account)?);
        }
        Ok(columns)
    }

    fn finish(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vector> {
        let validity = validity(groups, account, |g| self.marks[g] == mark::VALUE)?;
        Ok(vector(self.values.gather(groups, account)?, validity))
    }

    fn clear(&mut self) {
        self.values.clear();
        self.marks.clear();
    }

    fn allocated_bytes(&self) -> usize {
        self.values.allocated_bytes() + self.marks.allocated_bytes()
    }
}
