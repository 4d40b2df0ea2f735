//! Fitting the floors of a query into its budget before it starts.
//!
//! Owns: [`Knobs`] and the order in which they are turned down.
//!
//! Invariants:
//! 1. `fit_knobs` answers with the largest setting on its ladder whose floors fit the share it is given.
//! 2. The ladder descends: every step needs no more memory than the one before, so what is admitted at a budget is
//!    admitted at every larger one.

/// What admission may turn down to make the floors of a query fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Knobs {
    /// Lanes of each pipeline, at most; asked of a pipeline's operators, its own.
    pub(crate) lanes: usize,
    /// Rows of a full batch.
    pub(crate) batch_rows: usize,
    /// Bytes of a spill block.
    pub(crate) block_bytes: usize,
    /// Partitions a breaker spills into, at most.
    pub(crate) fan_out: usize,
}

/// Floors of one pipeline set as a function of the knobs.
pub(crate) trait LaneNeed {
    /// Bytes that must be granted before anything runs with `knobs`: floors of all lanes and shared floors.
    fn floor_bytes(&self, knobs: &Knobs) -> usize;
}

impl<F: Fn(&Knobs) -> usize> LaneNeed for F {
    fn floor_bytes(&self, knobs: &Knobs) -> usize {
        self(knobs)
    }
}

/// The smallest setting there is.
const LAST: Knobs = Knobs { lanes: 1, batch_rows: 512, block_bytes: 16 << 10, fan_out: 4 };

/// The largest knobs, at most `most`, whose floors fit `share_bytes`; else the bytes the smallest knobs need.
///
/// A large fan-out, batch rows and block size go down first because they cost least speed, then lanes, then the fan-out.
pub(crate) fn fit_knobs(most: Knobs, share_bytes: usize, need: &dyn LaneNeed) -> Result<Knobs, usize> {
    let mut knobs = most;
    loop {
        let needed = need.floor_bytes(&knobs);
        if needed <= share_bytes {
            return Ok(knobs);
        }
        if knobs.fan_out > 16 {
            knobs.fan_out /= 2;
        } else if knobs.block_bytes > 64 << 10 {
            knobs.block_bytes /= 2;
        } else if knobs.batch_rows > 2048 {
            knobs.batch_rows /= 2;
        } else if knobs.lanes > 4 {
            knobs.lanes = knobs.lanes.div_ceil(2);
        } else if knobs.batch_rows > 1024 {
            knobs.batch_rows = 1024;
        } else if knobs.block_bytes > 32 << 10 {
            knobs.block_bytes /= 2;
        } else if knobs.lanes > LAST.lanes {
            knobs.lanes -= 1;
        } else if knobs.fan_out > LAST.fan_out {
            knobs.fan_out /= 2;
        } else if knobs.block_bytes > LAST.block_bytes {
            knobs.block_bytes /= 2;
        } else if knobs.batch_rows > LAST.batch_rows {
            knobs.batch_rows /= 2;
        } else {
            return Err(needed);
        }
    }
}

/// `knobs` with the largest fan-out, at most `most_fan_out`, whose floors fit the share: what many partitions take is little
/// beside what it costs to write rows again because one of few does not fit.
pub(crate) fn with_more_partitions(
    mut knobs: Knobs,
    most_fan_out: usize,
    share_bytes: usize,
    need: &dyn LaneNeed,
) -> Knobs {
    while knobs.fan_out < most_fan_out {
        let more = Knobs { fan_out: (2 * knobs.fan_out).min(most_fan_out), ..knobs };
        if need.floor_bytes(&more) > share_bytes {
            break;
        }
        knobs = more;
    }
    knobs
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn need(k: &Knobs) -> usize {
        k.lanes * (k.batch_rows * 64 + k.block_bytes * k.fan_out)
    }

    #[test]
    fn knobs_grow_with_the_budget_and_floors_always_fit() {
        let most = Knobs { lanes: 8, batch_rows: 8192, block_bytes: 256 << 10, fan_out: 64 };
        let mut before = 0;
        for share in (96 << 10..64 << 20).step_by(64 << 10) {
            let knobs = fit_knobs(most, share, &need).expect("the smallest knobs need 96 KiB");
            let needed = need(&knobs);
            assert!(needed <= share && needed >= before, "monotone");
            before = needed;
            let grown = with_more_partitions(knobs, most.fan_out, share, &need);
            let more = Knobs { fan_out: 2 * grown.fan_out, ..grown };
            assert!(need(&grown) <= share && grown.fan_out >= knobs.fan_out, "{grown:?}");
            assert!(
                more.fan_out > most.fan_out || need(&more) > share,
                "{grown:?} leaves room for partitions"
            );
        }
        assert_eq!(fit_knobs(most, 256 << 20, &need), Ok(most));
        assert_eq!(fit_knobs(most, 1000, &need), Err(need(&LAST)));
    }

    #[test]
    fn partitions_that_cost_little_come_back() {
        // Pages that no knob makes smaller.
        let need = |k: &Knobs| k.lanes * (1 << 20) + k.batch_rows * 64 + k.fan_out * (1 << 10);
        let most = Knobs { lanes: 8, batch_rows: 8192, block_bytes: 256 << 10, fan_out: 64 };
        let share = (1 << 20) + (128 << 10);
        let knobs = fit_knobs(most, share, &need).expect("one lane fits");
        let knobs = with_more_partitions(knobs, most.fan_out, share, &need);
        assert_eq!((knobs.lanes, knobs.batch_rows, knobs.fan_out), (1, 1024, 64));
    }
}
