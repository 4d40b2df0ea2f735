//! What follows from a [`HashJoinSpec`]: what is kept of build rows, where output columns come from, what it takes.

use super::direct::{Extent, Order};
use super::keys::{KeyPlan, KeyShape};
use super::roles::{JoinColumn, Origin, PAGE_BYTES, Roles, column_bytes};
use super::scatter::ordered_rows;
use super::spec::{HashJoinKind, HashJoinSpec};
use crate::data::{DataType, PhysicalType};
use crate::error::{Error, Result};
use crate::exec::Need;
use crate::expr::{ColumnId, Evaluator, Expr};
use crate::mem::{Knobs, size_class_bytes};
use crate::spill::SpillWriter;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Where a stored column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// A column of the build side, by position.
    Input(usize),
    /// The values of a key.
    Key(usize),
}

/// A compiled [`HashJoinSpec`].
pub(super) struct Plan {
    /// As planned.
    pub(super) roles: Roles,
    /// With probe rows in the table, where that gives the same rows.
    reversed: Option<Roles>,
    pub(super) build_layout: Vec<ColumnId>,
    pub(super) build_keys: Vec<Expr>,
    pub(super) probe_layout: Vec<ColumnId>,
    probe_keys: Vec<Expr>,
    /// What is kept of build rows.
    pub(super) stored: Vec<Stored>,
    expected_build_rows: Option<u64>,
    expected_key_range: Option<RangeInclusive<i64>>,
    /// What is wrong with it, said when the run starts.
    problem: Option<Error>,
}

impl Plan {
    /// Compiles `spec`.
    pub(super) fn new(spec: HashJoinSpec) -> Self {
        let types: Vec<DataType> = spec.keys.iter().map(|key| key.build.data_type()).collect();
        let null_safe = spec.keys.iter().map(|key| key.null_safe).collect();
        let mut problem = check(&spec).err();
        let (build_keys, probe_keys): (Vec<_>, Vec<_>) =
            spec.keys.into_iter().map(|key| (key.build, key.probe)).unzip();
        let mut plan = Self {
            roles: Roles {
                kind: spec.kind,
                keys: Arc::new(KeyPlan::new(types, null_safe)),
                stored_types: Vec::new(),
                probe_types: spec.probe_types,
                key_columns: Vec::new(),
                probe_key_columns: Some(Vec::new()),
                output: Vec::new(),
                residual: spec.residual,
                residual_layout: Vec::new(),
                residual_columns: Vec::new(),
            },
            reversed: None,
            build_layout: spec.build_layout,
            build_keys,
            probe_layout: spec.probe_layout,
            probe_keys,
            stored: Vec::new(),
            expected_build_rows: spec.expected_build_rows,
            expected_key_range: spec.expected_key_range,
            problem: None,
        };
        let has_mark = matches!(plan.roles.kind, HashJoinKind::ProbeMark { .. });
        for (at, &id) in spec.output.iter().enumerate() {
            let column = if has_mark && at + 1 == spec.output.len() {
                Some(JoinColumn { origin: Origin::Mark, data_type: DataType::Boolean })
            } else {
                plan.find(id, &spec.build_types)
            };
            match column {
                Some(column) => plan.roles.output.push(column),
                None => problem = Some(missing(id)),
            }
        }
        let mut ids = Vec::new();
        plan.roles.residual.iter().for_each(|e| e.for_each_column(&mut |id| ids.push(id)));
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            match plan.find(id, &spec.build_types) {
                Some(column) => {
                    plan.roles.residual_layout.push(id);
                    plan.roles.residual_columns.push(column);
                }
                None => problem = Some(missing(id)),
            }
        }
        if let KeyShape::Hashed = plan.roles.keys.shape {
            for key in 0..plan.build_keys.len() {
                let stored = position(&plan.build_keys[key], &plan.build_layout);
                let data_type = plan.roles.keys.types[key].clone();
                let stored = plan.store(stored.map_or(Stored::Key(key), Stored::Input), &data_type);
                plan.roles.key_columns.push(stored);
            }
            let probe_keys = plan.probe_keys.iter();
            plan.roles.probe_key_columns = probe_keys.map(|key| position(key, &plan.probe_layout)).collect();
        }
        plan.reversed = plan.roles.reversed();
        plan.problem = problem;
        plan
    }

    /// Fails if this cannot be run.
    pub(super) fn check(&self) -> Result<()> {
        self.problem.clone().map_or(Ok(()), Err)
    }

    /// Where column `id` comes from; of the build side it is stored from now on.
    fn find(&mut self, id: ColumnId, build: &[DataType]) -> Option<JoinColumn> {
        if let Some(at) = self.probe_layout.iter().position(|&column| column == id) {
            return Some(JoinColumn {
                origin: Origin::Probe(at),
                data_type: self.roles.probe_types[at].clone(),
            });
        }
        let at = self.build_layout.iter().position(|&column| column == id)?;
        let data_type = build[at].clone();
        Some(JoinColumn { origin: Origin::Build(self.store(Stored::Input(at), &data_type)), data_type })
    }

    fn store(&mut self, column: Stored, data_type: &DataType) -> usize {
        self.stored.iter().position(|stored| *stored == column).unwrap_or_else(|| {
            self.stored.push(column);
            self.roles.stored_types.push(data_type.clone());
            self.stored.len() - 1
        })
    }

    /// Who is in the table: as planned, or reversed. Only joins that can be reversed are.
    pub(super) fn roles(&self, is_reversed: bool) -> &Roles {
        self.reversed.as_ref().filter(|_| is_reversed).unwrap_or(&self.roles)
    }

    /// Whether probe rows may as well be in the table.
    pub(super) fn is_reversible(&self) -> bool {
        self.reversed.is_some()
    }

    /// Computes the keys of probe rows; `None` if there are none.
    pub(super) fn probe_evaluator(&self) -> Result<Option<Evaluator>> {
        self.roles.has_keys().then(|| Evaluator::new(&self.probe_keys, &self.probe_layout)).transpose()
    }

    /// Whether a null key on the build side means that nothing passes.
    pub(super) fn is_null_aware_anti(&self) -> bool {
        matches!(self.roles.kind, HashJoinKind::ProbeAnti { null_aware: true })
    }

    /// What the sink needs.
    pub(super) fn build_need(&self, knobs: &Knobs) -> Need {
        let rows = knobs.batch_rows;
        let flattened: usize = self.roles.stored_types.iter().map(|t| column_bytes(t, rows)).sum();
        let scratch = Evaluator::scratch_bytes(&self.build_keys, rows);
        let lane_bytes = scratch
            + flattened
            + self.roles.keys.scratch_bytes(rows)
            + spill_bytes(&self.roles.stored_types, knobs);
        Need { lane_bytes, shared_bytes: knobs.lanes * self.roles.store_floor_bytes() }
    }

    /// What the transform needs.
    pub(super) fn probe_need(&self, knobs: &Knobs) -> Need {
        let rows = knobs.batch_rows;
        let width = |columns: &[JoinColumn]| -> usize {
            // Strings of either side are passed on by their views.
            columns.iter().map(|c| size_class_bytes(rows * c.data_type.value_bytes()) + PAGE_BYTES).sum()
        };
        let keys = Evaluator::scratch_bytes(&self.probe_keys, rows) + self.roles.keys.scratch_bytes(rows);
        let residual =
            width(&self.roles.residual_columns) + Evaluator::scratch_bytes(&self.roles.residual, rows);
        // Candidates and pairs.
        let pairs = 7 * size_class_bytes(rows * 4) + 4 * PAGE_BYTES;
        let spill =
            spill_bytes(&self.roles.stored_types, knobs).max(spill_bytes(&self.roles.probe_types, knobs));
        // Read back: a block of each side, and the positions of its rows.
        let blocks = 2 * size_class_bytes(knobs.block_bytes + 2 * PAGE_BYTES) + size_class_bytes(rows * 4);
        // Rows are spilled before others are joined.
        let lane_bytes = keys + pairs + blocks + spill.max(residual + width(&self.roles.output));
        Need { lane_bytes, shared_bytes: knobs.lanes * self.roles.drain_floor_bytes() }
    }

    /// About the bytes of the table of all build rows, if anything is known of how many there are.
    pub(super) fn expected_build_bytes(&self) -> Option<u64> {
        self.expected_build_rows.map(|rows| rows.saturating_mul(self.roles.table_row_bytes() as u64))
    }

    /// The extent of the build side's keys, if they are expected to lie close together.
    pub(super) fn expected_extent(&self) -> Option<(Order, Extent)> {
        let (order, range) = (self.roles.keys.order()?, self.expected_key_range.clone()?);
        // Estimates may be of more rows than there can be.
        let rows = self.expected_build_rows?.min(u32::MAX.into()) as usize;
        let extent = Extent::of_values(order, range)?;
        extent.is_dense(rows).then_some((order, extent))
    }
}

/// What a lane takes to spill rows of `types`: their order, blocks being put together, and what they are written with.
fn spill_bytes(types: &[DataType], knobs: &Knobs) -> usize {
    SpillWriter::staging_bytes(knobs.block_bytes)
        + size_class_bytes(knobs.block_bytes)
        + (types.len() + 2) * 2 * PAGE_BYTES
        + size_class_bytes(ordered_rows(types, knobs) * 4)
}

/// Which column of `layout` an expression is, if it is one.
fn position(expr: &Expr, layout: &[ColumnId]) -> Option<usize> {
    match expr {
        Expr::Column { id, .. } => layout.iter().position(|column| column == id),
        _ => None,
    }
}

fn check(spec: &HashJoinSpec) -> Result<()> {
    let null_aware = match spec.kind {
        HashJoinKind::ProbeAnti { null_aware } | HashJoinKind::ProbeMark { null_aware } => null_aware,
        HashJoinKind::Inner
        | HashJoinKind::ProbeOuter
        | HashJoinKind::BuildOuter
        | HashJoinKind::FullOuter
        | HashJoinKind::ProbeSingle
        | HashJoinKind::ProbeSemi
        | HashJoinKind::BuildSemi
        | HashJoinKind::BuildAnti => false,
    };
    let has_one_key = matches!(&spec.keys[..], [key] if !key.null_safe);
    if null_aware && !(has_one_key && spec.residual.is_empty()) {
        return Err(Error::internal("a null-aware join has one key, not null-safe, and no residual"));
    }
    for key in &spec.keys {
        let (build, probe) = (key.build.data_type(), key.probe.data_type());
        if build != probe {
            return Err(Error::internal(format!("a join compares {build} with {probe}")));
        }
        if build.physical() == PhysicalType::Nested {
            return Err(Error::unsupported(format!("joining on {build}"), None));
        }
    }
    Ok(())
}

fn missing(id: ColumnId) -> Error {
    Error::internal(format!("a join reads column #{} that neither side has", id.0))
}

impl HashJoinKind {
    /// Whether pairs that match come out.
    pub(in crate::operators) fn emits_pairs(self) -> bool {
        match self {
            Self::Inner | Self::ProbeOuter | Self::BuildOuter | Self::FullOuter | Self::ProbeSingle => true,
            Self::ProbeSemi
            | Self::ProbeAnti { .. }
            | Self::ProbeMark { .. }
            | Self::BuildSemi
            | Self::BuildAnti => false,
        }
    }

    /// Whether probe rows without a match come out, with nulls.
    pub(in crate::operators) fn keeps_probe_rows(self) -> bool {
        match self {
            Self::ProbeOuter | Self::FullOuter | Self::ProbeSingle => true,
            Self::Inner
            | Self::BuildOuter
            | Self::ProbeSemi
            | Self::ProbeAnti { .. }
            | Self::ProbeMark { .. }
            | Self::BuildSemi
            | Self::BuildAnti => false,
        }
    }

    /// Whether all that counts is which probe rows have a match.
    pub(in crate::operators) fn asks_whether_probe_rows_match(self) -> bool {
        match self {
            Self::ProbeSemi | Self::ProbeAnti { .. } | Self::ProbeMark { .. } => true,
            Self::Inner
            | Self::ProbeOuter
            | Self::BuildOuter
            | Self::FullOuter
            | Self::ProbeSingle
            | Self::BuildSemi
            | Self::BuildAnti => false,
        }
    }

    /// Whether build rows come out in the end because they have a match (`true`) or none (`false`).
    pub(in crate::operators) fn drains(self) -> Option<bool> {
        match self {
            Self::BuildSemi => Some(true),
            Self::BuildOuter | Self::FullOuter | Self::BuildAnti => Some(false),
            Self::Inner
            | Self::ProbeOuter
            | Self::ProbeSingle
            | Self::ProbeSemi
            | Self::ProbeAnti { .. }
            | Self::ProbeMark { .. } => None,
        }
    }

    /// Whether build rows count that cannot have a match.
    pub(super) fn keeps_null_keys(self) -> bool {
        self.drains() == Some(false)
    }
}
