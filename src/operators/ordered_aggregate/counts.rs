//! How often values count.

use crate::data::{Buf, BufMut, FlatVector, Values, Vector};
use crate::error::{Error, Result};
use crate::mem::Account;

/// How often each value of some rows counts.
pub(super) enum Counts {
    Once,
    /// With the sums of all before, of which there is one more.
    Each {
        counts: Buf<i64>,
        sums: BufMut<u64>,
    },
}

impl Counts {
    /// As `column` says, if there is one.
    pub(super) fn new(column: Option<&Vector>, account: &Account) -> Result<Self> {
        let Some(column) = column else { return Ok(Self::Once) };
        let FlatVector { values: Values::I64(counts), .. } = column.flatten(account)? else {
            return Err(Error::internal("how often a value counts is no BIGINT"));
        };
        let mut sums = BufMut::with_capacity(account, counts.len() + 1)?;
        let mut sum = 0;
        sums.push(sum);
        for count in counts.iter() {
            sum += u64::try_from(*count).map_err(|_| Error::internal("a value counts less than once"))?;
            sums.push(sum);
        }
        Ok(Self::Each { counts, sums })
    }

    /// How often the values from `start` to `end` count together.
    pub(super) fn total(&self, start: usize, end: usize) -> u64 {
        match self {
            Self::Once => (end - start) as u64,
            Self::Each { sums, .. } => sums[end] - sums[start],
        }
    }

    /// The row of value number `rank` of those from `start` to `end`.
    pub(super) fn row_of(&self, rank: u64, start: usize, end: usize) -> usize {
        match self {
            Self::Once => start + rank as usize,
            Self::Each { sums, .. } => {
                start + sums[start + 1..=end].partition_point(|sum| sum - sums[start] <= rank)
            }
        }
    }

    /// The first of the rows from `start` to `end`, of which there are some, that counts most, and how often; no value
    /// comes twice.
    pub(super) fn most(&self, start: usize, end: usize) -> (usize, u64) {
        let Self::Each { counts, .. } = self else { return (start, 1) };
        let mut most = start;
        for row in start + 1..end {
            if counts[row] > counts[most] {
                most = row;
            }
        }
        (most, counts[most] as u64)
    }
}
