//! Reading the rows that count out of vectors of any representation, in dense pieces without nulls.

use crate::data::{Bitmap, Bounds, Values, Vector};
use crate::error::{Error, Result};
use crate::functions::{GroupIds, Rows};
use crate::mem::{Account, Denied};
use std::borrow::Cow;

/// Rows of a dense piece: small enough to stay in the first-level cache with its group numbers.
const PIECE_ROWS: usize = 1024;

/// An argument that is not a constant: values, perhaps behind codes, with validity by row.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a> {
    pub(crate) values: &'a Values,
    pub(crate) codes: Option<&'a [u32]>,
    pub(crate) validity: Option<&'a Bitmap>,
    pub(crate) bounds: Option<Bounds>,
}

/// The vector with constants repeated; `None` if all its rows are null.
pub(crate) fn spread<'a>(vector: &'a Vector, account: &Account) -> Result<Option<Cow<'a, Vector>>, Denied> {
    Ok(match vector {
        Vector::Constant { value, .. } if value.is_null() => None,
        Vector::Constant { .. } => Some(Cow::Owned(Vector::Flat(vector.flatten(account)?))),
        Vector::Flat(_) | Vector::Dict { .. } => Some(Cow::Borrowed(vector)),
    })
}

impl<'a> Input<'a> {
    /// The parts of a vector that [`spread`] has been over.
    pub(crate) fn new(vector: &'a Vector) -> Result<Self> {
        match vector {
            Vector::Flat(flat) => Ok(Self {
                values: &flat.values,
                codes: None,
                validity: flat.validity.as_ref(),
                bounds: flat.bounds,
            }),
            Vector::Dict { codes, validity, dictionary } => Ok(Self {
                values: &dictionary.values().values,
                codes: Some(codes),
                validity: validity.as_ref(),
                bounds: dictionary.values().bounds,
            }),
            Vector::Constant { .. } => Err(Error::internal("a constant argument was not spread")),
        }
    }

    /// Whether row `row` is null.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.validity.is_some_and(|v| !v.get(row))
    }

    /// The place of row `row` in the values.
    #[inline(always)]
    pub(crate) fn place(&self, row: usize) -> usize {
        self.codes.map_or(row, |codes| codes[row] as usize)
    }

    /// Whether the values can be taken as they lie: every row counts, none is null, no codes.
    pub(crate) fn is_dense(&self, rows: Rows<'_>) -> bool {
        matches!(rows, Rows::All(_)) && self.codes.is_none() && self.validity.is_none()
    }

    /// Gives `sink` the non-null values of the rows that count, with their groups (`None`: all group 0), in pieces.
    /// `read` turns a place in the values into a value.
    #[inline(always)]
    pub(crate) fn pieces<U: Copy + Default>(
        &self,
        rows: Rows<'_>,
        groups: GroupIds<'_>,
        read: impl Fn(usize) -> U,
        mut sink: impl FnMut(Option<&[u32]>, &[U]),
    ) {
        let mut values = [U::default(); PIECE_ROWS];
        let mut kept_ids = [0; PIECE_ROWS];
        let all = rows.len();
        for start in (0..all).step_by(PIECE_ROWS) {
            let len = PIECE_ROWS.min(all - start);
            let ids = match groups {
                GroupIds::One => None,
                GroupIds::Each { ids, .. } => Some(&ids[start..start + len]),
            };
            let Some(validity) = self.validity else {
                for (k, value) in values[..len].iter_mut().enumerate() {
                    *value = read(self.place(rows.position(start + k)));
                }
                sink(ids, &values[..len]);
                continue;
            };
            let mut kept = 0;
            for k in 0..len {
                let row = rows.position(start + k);
                values[kept] = read(self.place(row));
                kept_ids[kept] = ids.map_or(0, |ids| ids[k]);
                kept += usize::from(validity.get(row));
            }
            sink(ids.map(|_| &kept_ids[..kept]), &values[..kept]);
        }
    }
}

/// The group of the row that counts as number `k`.
#[inline(always)]
pub(crate) fn group_of(groups: GroupIds<'_>, k: usize) -> usize {
    match groups {
        GroupIds::One => 0,
        GroupIds::Each { ids, .. } => ids[k] as usize,
    }
}
