//! What to aggregate, and what follows from it: columns, types, sizes.

use super::front::SMALL_FRONT_BYTES;
use crate::data::{DataType, PhysicalType};
use crate::error::{Error, Result};
use crate::exec::Need;
use crate::expr::{ColumnId, Evaluator, Expr};
use crate::functions::{Accumulator, AggregateCall, AggregateFunction, Evaluation};
use crate::mem::{Knobs, size_class_bytes};
use crate::spill::SpillWriter;
use std::ops::Range;
use std::sync::Arc;

/// An aggregation: one row per distinct combination of `groups`.
#[derive(Clone, Debug)]
pub(crate) struct AggregateSpec {
    /// Columns of the input, by position.
    pub(crate) layout: Vec<ColumnId>,
    /// Group keys; none: everything is one group.
    pub(crate) groups: Vec<Expr>,
    /// What is computed for each group.
    pub(crate) aggregates: Vec<AggregateCall>,
    /// Whether each key that is a string has few values, so that it pays to number them. Any answer is right.
    pub(crate) has_few_strings: bool,
}

/// An aggregate with its places among the evaluated columns.
pub(super) struct Aggregate {
    pub(super) function: Arc<dyn AggregateFunction>,
    pub(super) argument_types: Vec<DataType>,
    /// Where its arguments are among the evaluated columns.
    pub(super) arguments: Range<usize>,
    /// Where its filter is, if it has one.
    pub(super) filter: Option<usize>,
    /// Where its states are among the columns of exported groups.
    pub(super) states: Range<usize>,
}

/// A compiled [`AggregateSpec`].
pub(super) struct Plan {
    pub(super) layout: Vec<ColumnId>,
    /// Group keys, then arguments and filters, to be evaluated together.
    pub(super) expressions: Vec<Expr>,
    pub(super) group_types: Vec<DataType>,
    /// Whether strings among the keys are numbered.
    pub(super) codes_strings: bool,
    pub(super) aggregates: Vec<Aggregate>,
    /// Columns of exported groups: keys, then states.
    pub(super) state_schema: Vec<DataType>,
    /// What cannot be run, said when the run starts.
    unsupported: Option<String>,
}

/// A guess at the length of strings, where a size is needed before there are any.
const STRING_BYTES: usize = 32;
/// Slab classes waste up to a third, and short buffers the rest of a page.
const BUFFER_BYTES: usize = 4096;

impl Plan {
    /// Compiles `spec`.
    pub(super) fn new(spec: AggregateSpec) -> Self {
        let group_types: Vec<DataType> = spec.groups.iter().map(Expr::data_type).collect();
        let mut expressions = spec.groups;
        let mut state_schema = group_types.clone();
        let mut aggregates = Vec::with_capacity(spec.aggregates.len());
        let nested = group_types.iter().find(|t| t.physical() == PhysicalType::Nested);
        let mut unsupported = nested.map(|t| format!("grouping by {t}"));
        for call in spec.aggregates {
            // Repetition does not change these, so DISTINCT may be ignored.
            let ignores_repetition = matches!(
                call.function.name(),
                "min" | "max" | "bool_and" | "bool_or" | "any_value" | "first"
            );
            if call.distinct && !ignores_repetition {
                unsupported.get_or_insert_with(|| format!("{}(DISTINCT …)", call.function.name()));
            }
            let argument_types: Vec<DataType> = call.arguments.iter().map(Expr::data_type).collect();
            let start = expressions.len();
            expressions.extend(call.arguments);
            let arguments = start..expressions.len();
            let filter = call.filter.map(|filter| {
                expressions.push(filter);
                expressions.len() - 1
            });
            let start = state_schema.len();
            match call.function.evaluation() {
                Evaluation::States(function) => state_schema.extend(function.state_types(&argument_types)),
                Evaluation::Ordered(_) => {
                    unsupported
                        .get_or_insert_with(|| format!("{} of rows in no order", call.function.name()));
                }
            }
            let states = start..state_schema.len();
            aggregates.push(Aggregate { function: call.function, argument_types, arguments, filter, states });
        }
        Self {
            layout: spec.layout,
            expressions,
            group_types,
            codes_strings: spec.has_few_strings,
            aggregates,
            state_schema,
            unsupported,
        }
    }

    /// Fails if this cannot be run.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with what it is.
    pub(super) fn check(&self) -> Result<()> {
        match &self.unsupported {
            Some(what) => Err(Error::unsupported(what.clone(), None)),
            None => Ok(()),
        }
    }

    /// The name in plans and metrics.
    pub(super) fn name(&self) -> String {
        if self.has_groups() { "HashAggregate".to_owned() } else { "Aggregate".to_owned() }
    }

    /// Whether there are group keys.
    pub(super) fn has_groups(&self) -> bool {
        !self.group_types.is_empty()
    }

    /// Whether groups hold strings.
    pub(super) fn has_string_states(&self) -> bool {
        self.state_schema.iter().any(|t| t.physical() == PhysicalType::View)
    }

    /// An accumulator for each aggregate.
    pub(super) fn accumulators(&self) -> Vec<Box<dyn Accumulator>> {
        let accumulator = |aggregate: &Aggregate| match aggregate.function.evaluation() {
            Evaluation::States(function) => Some(function.accumulator(&aggregate.argument_types)),
            // Refused by `check`.
            Evaluation::Ordered(_) => None,
        };
        self.aggregates.iter().filter_map(accumulator).collect()
    }

    /// About the bytes of one exported group.
    pub(super) fn state_row_bytes(&self) -> usize {
        self.state_schema.iter().map(row_bytes).sum::<usize>().max(1)
    }

    /// Memory a table needs to make progress: one batch of new groups with everything around them.
    pub(super) fn table_floor_bytes(&self, knobs: &Knobs) -> usize {
        if !self.has_groups() {
            return (2 + self.state_schema.len()) * 2 * BUFFER_BYTES;
        }
        let rows = knobs.batch_rows;
        let slots_bytes = (2 * rows).next_power_of_two() * size_of::<u64>();
        let key_bytes: usize = self.group_types.iter().map(|t| row_bytes(t) + size_of::<u32>()).sum();
        // Group numbers, missing rows, hashes, offsets, of the batch and of the table.
        let scratch_bytes = 40;
        let per_row = 2 * key_bytes + scratch_bytes + self.state_row_bytes();
        let strings = self.group_types.iter().filter(|t| t.physical() == PhysicalType::View).count();
        // Numbered strings have a directory and lists of their own.
        let interner_buffers = if self.codes_strings { 8 * strings } else { 0 };
        let buffers = 12 + 3 * self.state_schema.len() + interner_buffers;
        slots_bytes + rows * per_row * 3 / 2 + buffers * BUFFER_BYTES + SMALL_FRONT_BYTES
    }

    /// Memory a lane needs while it spills: one block of groups, its copy for writing, the order of the groups.
    pub(super) fn spill_floor_bytes(&self, knobs: &Knobs) -> usize {
        if !self.has_groups() {
            return 0;
        }
        SpillWriter::staging_bytes(knobs.block_bytes)
            + 3 * knobs.block_bytes
            + self.columns_bytes()
            + self.spill_chunk_rows(knobs) * size_of::<u32>()
    }

    /// What the columns of any number of groups take at least.
    pub(super) fn columns_bytes(&self) -> usize {
        self.state_schema.len() * 2 * BUFFER_BYTES
    }

    /// Groups of one spilled block.
    pub(super) fn block_rows(&self, knobs: &Knobs) -> usize {
        (knobs.block_bytes / self.state_row_bytes()).max(1)
    }

    /// Groups partitioned at a time.
    pub(super) fn spill_chunk_rows(&self, knobs: &Knobs) -> usize {
        (self.block_rows(knobs) * knobs.fan_out).min(1 << 16)
    }

    /// What counting a batch takes beside the table: of one aggregate after the other, an argument that is a constant or
    /// codes written out, or the numbers of the rows that count.
    fn update_bytes(&self, knobs: &Knobs) -> usize {
        let arguments = self.aggregates.iter().flat_map(|aggregate| &aggregate.argument_types);
        let width = arguments.chain(&self.state_schema).map(DataType::value_bytes).max();
        let numbers = 2 * size_of::<u32>();
        width.map_or(0, |width| size_class_bytes(knobs.batch_rows * width.max(numbers)) + 2 * BUFFER_BYTES)
    }

    /// What the sink must be granted.
    pub(super) fn sink_need(&self, knobs: &Knobs) -> Need {
        let evaluation_bytes = Evaluator::scratch_bytes(&self.expressions, knobs.batch_rows);
        Need {
            lane_bytes: evaluation_bytes + self.update_bytes(knobs) + self.spill_floor_bytes(knobs),
            shared_bytes: knobs.lanes * self.table_floor_bytes(knobs),
        }
    }

    /// What the source must be granted: a table to merge into, a block or batch of states, a batch to emit.
    pub(super) fn source_need(&self, knobs: &Knobs) -> Need {
        let batch_bytes = knobs.batch_rows * self.state_row_bytes() * 3 / 2;
        Need {
            lane_bytes: 2 * batch_bytes
                + self.columns_bytes()
                + self.update_bytes(knobs)
                + self.spill_floor_bytes(knobs),
            shared_bytes: knobs.lanes * self.table_floor_bytes(knobs),
        }
    }
}

/// About the bytes of a value with its validity.
fn row_bytes(data_type: &DataType) -> usize {
    let string_bytes = if data_type.physical() == PhysicalType::View { STRING_BYTES } else { 0 };
    data_type.value_bytes() + 1 + string_bytes
}

/// How many bits `fan_out` partitions are told apart by.
pub(super) fn fan_out_bits(fan_out: usize) -> u32 {
    fan_out.max(2).ilog2()
}
