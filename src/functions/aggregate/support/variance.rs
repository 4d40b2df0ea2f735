//! Variance and standard deviation by Welford's update and Chan's merge, which do not cancel.

use super::input::{Input, group_of, spread};
use super::states::{States, validity, vector};
use crate::data::{Buf, BufMut, DataType, Values, Vector};
use crate::error::{Error, Result};
use crate::expr::EvalCx;
use crate::functions::aggregate::{Accumulator, GroupIds, GroupSet, Rows};
use crate::mem::{Account, Denied};

/// What is made of the moments in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spread {
    VarPop,
    VarSamp,
    StddevPop,
    StddevSamp,
}

/// Types of the state: count, mean, sum of squared distances from the mean.
pub(crate) fn state_types() -> Vec<DataType> {
    vec![DataType::Int64, DataType::Float64, DataType::Float64]
}

/// Moments by group.
pub(crate) struct VarianceAccumulator {
    counts: States<i64>,
    means: States<f64>,
    squares: States<f64>,
    spread: Spread,
}

impl VarianceAccumulator {
    /// No groups.
    pub(crate) fn new(spread: Spread) -> Self {
        Self { counts: States::new(), means: States::new(), squares: States::new(), spread }
    }

    fn result(&self, group: usize) -> f64 {
        let (count, squares) = (self.counts[group] as f64, self.squares[group]);
        match self.spread {
            Spread::VarPop => squares / count,
            Spread::VarSamp => squares / (count - 1.0),
            Spread::StddevPop => (squares / count).sqrt(),
            Spread::StddevSamp => (squares / (count - 1.0)).sqrt(),
        }
    }
}

impl Accumulator for VarianceAccumulator {
    fn resize(&mut self, groups: usize, account: &Account) -> Result<(), Denied> {
        self.counts.resize(groups, 0, account)?;
        self.means.resize(groups, 0.0, account)?;
        self.squares.resize(groups, 0.0, account)
    }

    fn update(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        arguments: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        let Some(vector) = spread(&arguments[0], cx.account)? else { return Ok(()) };
        let input = Input::new(&vector)?;
        let Values::F64(values) = input.values else {
            return Err(Error::internal("a variance was given values that are not DOUBLE"));
        };
        let counts: &mut [i64] = &mut self.counts;
        let (means, squares): (&mut [f64], &mut [f64]) = (&mut self.means, &mut self.squares);
        input.pieces(
            rows,
            groups,
            |at| values[at],
            |ids, values| {
                for (k, &value) in values.iter().enumerate() {
                    let group = ids.map_or(0, |ids| ids[k] as usize);
                    counts[group] += 1;
                    let distance = value - means[group];
                    means[group] += distance / counts[group] as f64;
                    squares[group] += distance * (value - means[group]);
                }
            },
        );
        Ok(())
    }

    fn merge(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        states: &[Vector],
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        let flat = |i: usize| states[i].flatten(cx.account);
        let (counts, means, squares) = (flat(0)?, flat(1)?, flat(2)?);
        let (Values::I64(counts), Values::F64(means), Values::F64(squares)) =
            (&counts.values, &means.values, &squares.values)
        else {
            return Err(Error::internal("a variance's state has other types than it was given"));
        };
        for k in 0..rows.len() {
            let (row, group) = (rows.position(k), group_of(groups, k));
            if counts[row] == 0 {
                continue;
            }
            let (count, other) = (self.counts[group] as f64, counts[row] as f64);
            let distance = means[row] - self.means[group];
            self.counts[group] += counts[row];
            self.means[group] += distance * other / (count + other);
            self.squares[group] += squares[row] + distance * distance * count * other / (count + other);
        }
        Ok(())
    }

    fn export(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vec<Vector>> {
        Ok(vec![
            vector(Values::I64(self.counts.gather(groups, account)?), None),
            vector(Values::F64(self.means.gather(groups, account)?), None),
            vector(Values::F64(self.squares.gather(groups, account)?), None),
        ])
    }

    fn finish(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vector> {
        let least = match self.spread {
            Spread::VarPop | Spread::StddevPop => 1,
            Spread::VarSamp | Spread::StddevSamp => 2,
        };
        let mut results = BufMut::with_len(account, groups.len())?;
        for (i, result) in results.iter_mut().enumerate() {
            *result = self.result(groups.group(i));
        }
        let results: Buf<f64> = results.freeze();
        let validity = validity(groups, account, |g| self.counts[g] >= least)?;
        Ok(vector(Values::F64(results), validity))
    }

    fn clear(&mut self) {
        self.counts.clear();
        self.means.clear();
        self.squares.clear();
    }

    fn allocated_bytes(&self) -> usize {
        self.counts.allocated_bytes() + self.means.allocated_bytes() + self.squares.allocated_bytes()
    }
}
