//! `count(*)` and `count(x)`: rows, or rows whose argument is not null.

use super::support::input::group_of;
use super::support::kernels;
use super::support::states::{States, vector};
use super::{Accumulator, AggregateFunction, Evaluation, GroupIds, GroupSet, Rows, StatefulAggregate};
use crate::data::{DataType, Values, Vector};
use crate::error::{Error, Result};
use crate::expr::EvalCx;
use crate::mem::{Account, Denied};

/// See the module.
pub(super) struct Count;

impl AggregateFunction for Count {
    fn name(&self) -> &'static str {
        "count"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["count_star"]
    }

    fn signature(&self, arguments: &[DataType]) -> Result<(Vec<DataType>, DataType)> {
        if arguments.len() > 1 {
            let message = format!("count takes one argument or *, but has {}", arguments.len());
            return Err(Error::plan(message, None));
        }
        Ok((arguments.to_vec(), DataType::Int64))
    }

    fn evaluation(&self) -> Evaluation<'_> {
        Evaluation::States(self)
    }
}

impl StatefulAggregate for Count {
    fn state_types(&self, _arguments: &[DataType]) -> Vec<DataType> {
        vec![DataType::Int64]
    }

    fn accumulator(&self, _arguments: &[DataType]) -> Box<dyn Accumulator> {
        Box::new(CountAccumulator::new())
    }
}

/// Rows counted, by group.
pub(super) struct CountAccumulator {
    counts: States<i64>,
}

impl CountAccumulator {
    /// No groups.
    pub(super) fn new() -> Self {
        Self { counts: States::new() }
    }

    /// The count of a group.
    pub(super) fn count(&self, group: usize) -> i64 {
        self.counts[group]
    }

    fn count_all(&mut self, groups: GroupIds<'_>, rows: usize) {
        match groups {
            GroupIds::One => self.counts[0] += rows as i64,
            GroupIds::Each { ids, groups } => kernels::count(ids, groups, &mut self.counts),
        }
    }
}

impl Accumulator for CountAccumulator {
    fn resize(&mut self, groups: usize, account: &Account) -> Result<(), Denied> {
        self.counts.resize(groups, 0, account)
    }

    fn update(
        &mut self,
        groups: GroupIds<'_>,
        rows: Rows<'_>,
        arguments: &[Vector],
        _cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        let validity = match arguments.first() {
            None => None,
            Some(Vector::Constant { value, .. }) if value.is_null() => return Ok(()),
            Some(Vector::Constant { .. }) => None,
            Some(Vector::Dict { validity, .. }) => validity.as_ref(),
            Some(Vector::Flat(flat)) => {
                if let Values::Nested(_) = &flat.values {
                    let counts: &mut [i64] = &mut self.counts;
                    for k in 0..rows.len() {
                        counts[group_of(groups, k)] += i64::from(!flat.is_null(rows.position(k)));
                    }
                    return Ok(());
                }
                flat.validity.as_ref()
            }
        };
        let Some(validity) = validity else {
            self.count_all(groups, rows.len());
            return Ok(());
        };
        let counts: &mut [i64] = &mut self.counts;
        match (groups, rows) {
            (GroupIds::One, Rows::All(n)) if n == validity.len() => counts[0] += validity.count_ones() as i64,
            (GroupIds::One, _) => {
                counts[0] += (0..rows.len()).filter(|&k| validity.get(rows.position(k))).count() as i64;
            }
            (GroupIds::Each { ids, .. }, _) => {
                for (k, &id) in ids.iter().enumerate() {
                    counts[id as usize] += i64::from(validity.get(rows.position(k)));
                }
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
        let flat = states[0].flatten(cx.account)?;
        let Values::I64(counted) = &flat.values else {
            return Err(Error::internal("a count's state is not BIGINT"));
        };
        let counts: &mut [i64] = &mut self.counts;
        for k in 0..rows.len() {
            counts[group_of(groups, k)] += counted[rows.position(k)];
        }
        Ok(())
    }

    fn export(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vec<Vector>> {
        Ok(vec![self.finish(groups, account)?])
    }

    fn finish(&self, groups: GroupSet<'_>, account: &Account) -> Result<Vector> {
        Ok(vector(Values::I64(self.counts.gather(groups, account)?), None))
    }

    fn clear(&mut self) {
        self.counts.clear();
    }

    fn allocated_bytes(&self) -> usize {
        self.counts.allocated_bytes()
    }
}
