//! What follows from a [`HashJoinSpec`]: what is kept of each side, where output columns come from, what it takes.

use super::super::hash_join::{HashJoinKind, HashJoinSpec};
use super::super::sort::{KeyEncoder, SortKey, SortSpec};
use crate::data::{DataType, PhysicalType};
use crate::error::{Error, Result};
use crate::expr::{ColumnId, Evaluator, Expr};
use crate::mem::{Knobs, size_class_bytes};

const PAGE_BYTES: usize = 4096;

/// The order of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyOrder {
    /// Greatest first.
    pub(crate) descending: bool,
    /// Nulls before values.
    pub(crate) nulls_first: bool,
}

/// One side.
pub(super) struct Side {
    layout: Vec<ColumnId>,
    /// The columns of its input that are kept.
    pub(super) kept: Vec<usize>,
    pub(super) types: Vec<DataType>,
    keys: Vec<SortKey>,
}

/// Where a column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A kept column of the probe side.
    Probe(usize),
    /// A kept column of the build side.
    Build(usize),
    /// The mark.
    Mark,
}

/// A column with its type.
pub(super) struct JoinColumn {
    pub(super) origin: Origin,
    pub(super) data_type: DataType,
}

/// A compiled [`HashJoinSpec`].
pub(super) struct Plan {
    pub(super) kind: HashJoinKind,
    pub(super) build: Side,
    pub(super) probe: Side,
    /// For each key, whether a row with a null in it has no match.
    strict: Vec<bool>,
    pub(super) output: Vec<JoinColumn>,
    pub(super) residual: Vec<Expr>,
    /// What the residual is evaluated over.
    pub(super) residual_layout: Vec<ColumnId>,
    pub(super) residual_columns: Vec<JoinColumn>,
    /// What is wrong with it, said when the run starts.
    problem: Option<Error>,
}

impl Plan {
    /// Compiles `spec`.
    pub(super) fn new(spec: HashJoinSpec, orders: &[KeyOrder]) -> Self {
        let mut problem = check(&spec, orders).err();
        let strict = spec.keys.iter().map(|key| !key.null_safe).collect();
        let (mut build_keys, mut probe_keys) = (Vec::new(), Vec::new());
        for (key, order) in spec.keys.into_iter().zip(orders) {
            let nullable = key.build.is_nullable() || key.probe.is_nullable();
            let KeyOrder { descending, nulls_first } = *order;
            build_keys.push(SortKey { expr: key.build, nullable, descending, nulls_first });
            probe_keys.push(SortKey { expr: key.probe, nullable, descending, nulls_first });
        }
        let side = |layout, keys| Side { layout, kept: Vec::new(), types: Vec::new(), keys };
        let mut plan = Self {
            kind: spec.kind,
            build: side(spec.build_layout, build_keys),
            probe: side(spec.probe_layout, probe_keys),
            strict,
            output: Vec::new(),
            residual: spec.residual,
            residual_layout: Vec::new(),
            residual_columns: Vec::new(),
            problem: None,
        };
        let types = (&spec.build_types[..], &spec.probe_types[..]);
        let has_mark = matches!(plan.kind, HashJoinKind::ProbeMark { .. });
        for (at, &id) in spec.output.iter().enumerate() {
            let column = if has_mark && at + 1 == spec.output.len() {
                Some(JoinColumn { origin: Origin::Mark, data_type: DataType::Boolean })
            } else {
                plan.find(id, types)
            };
            match column {
                Some(column) => plan.output.push(column),
                None => problem = Some(missing(id)),
            }
        }
        let mut ids = Vec::new();
        plan.residual.iter().for_each(|e| e.for_each_column(&mut |id| ids.push(id)));
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            match plan.find(id, types) {
                Some(column) => {
                    plan.residual_layout.push(id);
                    plan.residual_columns.push(column);
                }
                None => problem = Some(missing(id)),
            }
        }
        plan.problem = problem;
        plan
    }

    /// Fails if this cannot be run.
    pub(super) fn check(&self) -> Result<()> {
        self.problem.clone().map_or(Ok(()), Err)
    }

    /// Where column `id` comes from; it is kept from now on.
    fn find(&mut self, id: ColumnId, (build, probe): (&[DataType], &[DataType])) -> Option<JoinColumn> {
        if let Some((at, data_type)) = self.probe.keep(id, probe) {
            return Some(JoinColumn { origin: Origin::Probe(at), data_type });
        }
        let (at, data_type) = self.build.keep(id, build)?;
        Some(JoinColumn { origin: Origin::Build(at), data_type })
    }

    /// What finds nulls in keys that count.
    pub(super) fn null_finder(&self) -> Result<NullFinder> {
        let strict = &self.strict;
        let is_possible = self.probe.keys.iter().zip(strict).any(|(key, strict)| *strict && key.nullable);
        let finder = || KeyEncoder::new(&self.probe.keys).map(|encoder| (encoder, strict.clone()));
        Ok(NullFinder { finder: is_possible.then(finder).transpose()? })
    }

    /// Whether it takes more than equal keys to know what becomes of a row.
    pub(super) fn needs_pairs(&self) -> bool {
        self.kind.emits_pairs() || !self.residual.is_empty()
    }

    /// Whether build rows must be there when their key's probe rows come, or later.
    pub(super) fn needs_build_rows(&self) -> bool {
        self.needs_pairs() || self.kind.drains().is_some()
    }

    /// Whether each build row has a fate of its own.
    pub(super) fn needs_flags(&self) -> bool {
        self.kind.drains().is_some() && !self.residual.is_empty()
    }

    /// Whether it counts which probe rows have a match.
    pub(super) fn asks_matches(&self) -> bool {
        self.kind.keeps_probe_rows() || self.kind.asks_whether_probe_rows_match()
    }

    /// Whether it counts for which probe rows the residual is null.
    pub(super) fn asks_unknown(&self) -> bool {
        matches!(self.kind, HashJoinKind::ProbeMark { .. }) && !self.residual.is_empty()
    }

    /// What a lane takes for pairs and what is made of them; batches of the sides not counted.
    pub(super) fn pairs_bytes(&self, knobs: &Knobs) -> usize {
        let rows = knobs.batch_rows;
        let width = |columns: &[JoinColumn]| -> usize {
            columns.iter().map(|c| size_class_bytes(rows * c.data_type.value_bytes()) + PAGE_BYTES).sum()
        };
        // Prefixes of both sides; pairs, and those that remain; build rows owed, and chosen; flags of rows.
        let numbers = 2 * size_class_bytes(rows * 8) + 6 * size_class_bytes(rows * 4) + 6 * PAGE_BYTES;
        let residual = width(&self.residual_columns) + Evaluator::scratch_bytes(&self.residual, rows);
        numbers + residual + width(&self.output)
    }
}

impl Side {
    /// Its kept column `id`.
    fn keep(&mut self, id: ColumnId, types: &[DataType]) -> Option<(usize, DataType)> {
        let at = self.layout.iter().position(|&column| column == id)?;
        let place = self.kept.iter().position(|&kept| kept == at).unwrap_or_else(|| {
            self.kept.push(at);
            self.types.push(types[at].clone());
            self.kept.len() - 1
        });
        Some((place, types[at].clone()))
    }

    /// How it is brought into order.
    pub(super) fn sort_spec(&self) -> SortSpec {
        let Self { layout, types, keys, .. } = self;
        SortSpec { layout: layout.clone(), types: types.clone(), keys: keys.clone(), fetch: None }
    }
}

/// Finds keys that equal no other.
pub(super) struct NullFinder {
    finder: Option<(KeyEncoder, Vec<bool>)>,
}

impl NullFinder {
    /// Whether a row of `key` has no match.
    pub(super) fn has_null(&self, key: &[u8]) -> bool {
        self.finder.as_ref().is_some_and(|(encoder, strict)| encoder.has_null(key, strict))
    }
}

fn check(spec: &HashJoinSpec, orders: &[KeyOrder]) -> Result<()> {
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
    if spec.keys.is_empty() || spec.keys.len() != orders.len() {
        return Err(Error::internal("a merge join has keys, and an order for each"));
    }
    let has_one_key = matches!(&spec.keys[..], [key] if !key.null_safe);
    if null_aware && !(has_one_key && spec.residual.is_empty() && orders[0].nulls_first) {
        let message = "a null-aware merge join has one key, not null-safe and nulls first, and no residual";
        return Err(Error::internal(message));
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
