//! The filters of a scan as one lane applies them.
//!
//! Owns: [`FilterPlan`] (conjuncts grouped by the columns they read, and runtime filters), [`LaneFilter`] (their tables
//! and measurements).
//!
//! Invariants:
//! 1. A group that reads one dictionary-encoded column is evaluated once per dictionary, and codes are looked up;
//!    what evaluation on the dictionary cannot do (it fails on a value that perhaps no row has) is done on rows.
//! 2. Groups run in ascending order of cost per row dropped, as measured by this lane.
//! 3. A group that is a runtime filter may be left out, and is once it drops few rows.

use super::decode::Kernels;
use crate::data::{Batch, Bitmap, Buf, BufMut, Dictionary, FlatVector, Selection, Vector};
use crate::error::Result;
use crate::expr::{ColumnId, EvalCx, Expr, Predicate};
use crate::scan::RuntimeFilter;
use std::sync::Arc;
use std::time::Instant;

/// What is tested together.
#[derive(Debug)]
pub(crate) struct FilterGroup {
    pub(crate) test: Test,
    /// What is read for it, as positions in the scan's columns, ascending.
    pub(crate) columns: Vec<usize>,
}

/// What a row must pass.
#[derive(Debug)]
pub(crate) enum Test {
    /// Conjuncts over the same columns.
    Conjuncts(Vec<Expr>),
    /// The key of its one column may be on the build side of a join.
    MayMatch(Arc<RuntimeFilter>),
}

/// All filters of a scan.
#[derive(Debug, Default)]
pub(crate) struct FilterPlan {
    pub(crate) groups: Vec<FilterGroup>,
}

impl FilterPlan {
    /// Groups `filters` and adds `runtime_filters`; `position` gives a column's position in the scan.
    pub(crate) fn new(
        filters: Vec<Expr>,
        runtime_filters: Vec<(ColumnId, Arc<RuntimeFilter>)>,
        position: impl Fn(ColumnId) -> Option<usize>,
    ) -> Self {
        let mut conjuncts = Vec::new();
        filters.into_iter().for_each(|f| f.into_conjuncts(&mut conjuncts));
        let mut grouped: Vec<(Vec<usize>, Vec<Expr>)> = Vec::new();
        for conjunct in conjuncts {
            let mut columns = Vec::new();
            conjunct.for_each_column(&mut |id| columns.extend(position(id)));
            columns.sort_unstable();
            columns.dedup();
            match grouped.iter_mut().find(|(read, _)| *read == columns) {
                Some((_, group)) => group.push(conjunct),
                None => grouped.push((columns, vec![conjunct])),
            }
        }
        // Before anything is measured: conjuncts over fewer columns first, then what other tables know.
        grouped.sort_by_key(|(columns, _)| columns.len());
        let group = |(columns, conjuncts)| FilterGroup { test: Test::Conjuncts(conjuncts), columns };
        let mut groups: Vec<_> = grouped.into_iter().map(group).collect();
        groups.extend(runtime_filters.into_iter().filter_map(|(id, filter)| {
            Some(FilterGroup { test: Test::MayMatch(filter), columns: vec![position(id)?] })
        }));
        Self { groups }
    }
}

/// A group's answer for each value of a dictionary.
struct CodeTable {
    dictionary: u64,
    /// Zeros and ones by code, then padding; `None` if rows must be evaluated.
    keep: Option<BufMut<u8>>,
    keep_null: bool,
}

/// What a lane has measured of a group; recent windows count more.
#[derive(Clone, Copy, Debug)]
struct Measured {
    nanos: f64,
    rows: f64,
    passed: f64,
}

impl Measured {
    /// Cost of dropping a row, nanoseconds.
    fn rank(&self) -> f64 {
        if self.rows == 0.0 {
            return 0.0;
        }
        self.nanos / (self.rows - self.passed).max(self.rows * 1e-3)
    }
}

struct GroupState {
    test: LaneTest,
    /// Its answer where its only column is null, once known.
    keep_null: Option<bool>,
    table: Option<CodeTable>,
    measured: Measured,
}

/// A group's test as a lane runs it.
enum LaneTest {
    Predicate(Predicate),
    MayMatch(Arc<RuntimeFilter>),
    /// A runtime filter that is not there or drops too little.
    LeftOut,
}

/// A scan's filters in one lane.
pub(crate) struct LaneFilter {
    groups: Vec<GroupState>,
    order: Vec<usize>,
    windows: u32,
    /// Rows runtime filters have dropped; taken by whoever counts.
    pub(crate) runtime_filtered_rows: u64,
}

/// How often the order is reconsidered, windows.
const REORDER_WINDOWS: u32 = 16;
/// A runtime filter that passes more than this share of rows is left out: the join drops the others as well.
const MOST_PASSED: f64 = 0.9;

/// Rows a group passes on.
pub(crate) enum Passed {
    /// All it was given.
    All,
    /// Those at these indices of what it was given.
    Some(Buf<u32>),
}

impl LaneFilter {
    /// Compiles the filters for one lane; `ids` names the scan's columns.
    pub(crate) fn new(plan: &FilterPlan, ids: &[ColumnId]) -> Result<Self> {
        let groups = plan.groups.iter().map(|group| {
            let layout: Vec<ColumnId> = group.columns.iter().map(|&c| ids[c]).collect();
            let test = match &group.test {
                Test::Conjuncts(conjuncts) => LaneTest::Predicate(Predicate::new(conjuncts, &layout)?),
                Test::MayMatch(filter) if filter.is_usable() => LaneTest::MayMatch(Arc::clone(filter)),
                Test::MayMatch(_) => LaneTest::LeftOut,
            };
            Ok(GroupState {
                test,
                keep_null: None,
                table: None,
                measured: Measured { nanos: 0.0, rows: 0.0, passed: 0.0 },
            })
        });
        let groups = groups.collect::<Result<Vec<_>>>()?;
        Ok(Self { order: (0..groups.len()).collect(), groups, windows: 0, runtime_filtered_rows: 0 })
    }

    /// Starts a window: now and then puts the groups in a better order.
    pub(crate) fn begin_window(&mut self) {
        self.windows += 1;
        if self.windows.is_multiple_of(REORDER_WINDOWS) {
            let groups = &self.groups;
            self.order.sort_by(|&a, &b| groups[a].measured.rank().total_cmp(&groups[b].measured.rank()));
            for group in &mut self.groups {
                let m = &mut group.measured;
                if matches!(group.test, LaneTest::MayMatch(_)) && m.passed > m.rows * MOST_PASSED {
                    (group.test, group.table) = (LaneTest::LeftOut, None);
                }
                (m.nanos, m.rows, m.passed) = (m.nanos / 2.0, m.rows / 2.0, m.passed / 2.0);
            }
        }
    }

    /// The group to run in place `place`, if it is to run.
    pub(crate) fn group_at(&self, place: usize) -> Option<usize> {
        let group = self.order[place];
        (!matches!(self.groups[group].test, LaneTest::LeftOut)).then_some(group)
    }

    /// Notes what a group, decoding included, took for `rows` rows of which `passed` were left.
    pub(crate) fn measure(&mut self, group: usize, since: Instant, rows: usize, passed: usize) {
        let GroupState { measured, test, .. } = &mut self.groups[group];
        if let LaneTest::MayMatch(_) = test {
            self.runtime_filtered_rows += (rows - passed) as u64;
        }
        measured.nanos += since.elapsed().as_nanos() as f64;
        measured.rows += rows as f64;
        measured.passed += passed as f64;
    }

    /// Which of the `rows` rows of `columns` pass `group`. `rows_ahead` is about how many rows will be asked of the
    /// same dictionaries, these included.
    pub(crate) fn apply(
        &mut self,
        group: usize,
        columns: Vec<Vector>,
        rows: usize,
        rows_ahead: u64,
        kernels: Kernels,
        cx: &mut EvalCx<'_>,
    ) -> Result<Passed> {
        let state = &mut self.groups[group];
        if let [Vector::Dict { codes, validity, dictionary }] = &columns[..] {
            state.prepare_table(dictionary, rows_ahead, cx)?;
            if let Some(CodeTable { keep: Some(keep), keep_null, .. }) = &state.table {
                return look_up(codes, validity.as_ref(), keep, *keep_null, kernels, cx);
            }
        }
        Ok(match state.test.select(&Batch::new(columns, rows), cx)? {
            None => Passed::All,
            Some(positions) if positions.len() == rows => Passed::All,
            Some(positions) => Passed::Some(positions),
        })
    }

    /// Drops the tables.
    pub(crate) fn release(&mut self) {
        for group in &mut self.groups {
            group.table = None;
        }
    }
}

impl LaneTest {
    /// Positions of the rows that pass; `None` for all.
    fn select(&mut self, batch: &Batch, cx: &mut EvalCx<'_>) -> Result<Option<Buf<u32>>> {
        Ok(match self {
            Self::Predicate(predicate) => predicate.select(batch, cx)?.map(Selection::into_indices),
            Self::MayMatch(filter) => filter.select(batch.column(0), cx.account)?,
            Self::LeftOut => None,
        })
    }
}

impl GroupState {
    fn prepare_table(
        &mut self,
        dictionary: &Arc<Dictionary>,
        rows_ahead: u64,
        cx: &mut EvalCx<'_>,
    ) -> Result<()> {
        if self.table.as_ref().is_some_and(|t| t.dictionary == dictionary.id()) {
            return Ok(());
        }
        let keep_null = match self.keep_null {
            Some(keep) => keep,
            None => {
                let keep = self.evaluate_null(dictionary.values(), cx)?;
                self.keep_null = Some(keep);
                keep
            }
        };
        let recycled = self.table.take().and_then(|t| t.keep);
        let is_worth_it = dictionary.len() as u64 <= rows_ahead.max(256);
        let keep = if is_worth_it { self.evaluate_dictionary(dictionary, recycled, cx)? } else { None };
        self.table = Some(CodeTable { dictionary: dictionary.id(), keep, keep_null });
        Ok(())
    }

    /// The filter's answer for a null, on one row without a value.
    fn evaluate_null(&mut self, like: &FlatVector, cx: &mut EvalCx<'_>) -> Result<bool> {
        let values = like.values.slice(0, like.len().min(1), cx.account)?;
        if values.len() == 0 {
            return Ok(false);
        }
        let validity = crate::data::BitmapMut::with_len(cx.account, 1)?.freeze();
        let row = FlatVector { values, validity: Some(validity), bounds: like.bounds };
        let selected = self.test.select(&Batch::new(vec![Vector::Flat(row)], 1), cx)?;
        Ok(selected.is_none_or(|s| s.len() == 1))
    }

    /// Zeros and ones by code; `None` if a value of the dictionary makes the filter fail.
    fn evaluate_dictionary(
        &mut self,
        dictionary: &Dictionary,
        recycled: Option<BufMut<u8>>,
        cx: &mut EvalCx<'_>,
    ) -> Result<Option<BufMut<u8>>> {
        let len = dictionary.len();
        let mut keep = match recycled {
            Some(keep) if keep.capacity() >= len + CODE_TABLE_PAD => keep,
            other => {
                drop(other);
                BufMut::with_capacity(cx.account, len + CODE_TABLE_PAD)?
            }
        };
        keep.set_len(len + CODE_TABLE_PAD);
        let batch = Batch::new(vec![Vector::Flat(dictionary.values().clone())], len);
        match self.test.select(&batch, cx) {
            Ok(None) => keep.fill(1),
            Ok(Some(codes)) => {
                keep.fill(0);
                for &code in codes.iter() {
                    keep[code as usize] = 1;
                }
            }
            Err(crate::error::Error::Data(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        Ok(Some(keep))
    }
}

/// The padding `Kernels::filter_codes` asks for.
const CODE_TABLE_PAD: usize = 3;

fn look_up(
    codes: &[u32],
    validity: Option<&Bitmap>,
    keep: &[u8],
    keep_null: bool,
    kernels: Kernels,
    cx: &EvalCx<'_>,
) -> Result<Passed> {
    let mut out = BufMut::with_len(cx.account, codes.len() + 8)?;
    let count = match validity {
        None => kernels.filter_codes(codes, keep, 0, &mut out),
        Some(validity) => {
            let mut count = 0;
            for (row, &code) in codes.iter().enumerate() {
                out[count] = row as u32;
                let passes = if validity.get(row) { keep[code as usize] == 1 } else { keep_null };
                count += usize::from(passes);
            }
            count
        }
    };
    if count == codes.len() {
        return Ok(Passed::All);
    }
    out.set_len(count);
    Ok(Passed::Some(out.freeze()))
}
