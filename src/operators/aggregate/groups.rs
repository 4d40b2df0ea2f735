//! A table of groups: their keys and the states of all aggregates.
//!
//! Invariants:
//! 1. Every accumulator has a state for each group of the keys.
//! 2. A batch is counted wholly, or, if memory was refused, not at all (it may leave groups that have counted
//!    nothing, which merge as nothing).
//! 3. While keys ascend nothing is sought; when one does not, all groups are entered into the directory.

use super::front::{Front, Mapped};
use super::keys::{Growth, Halt, KeyTable, resize};
use super::slots::Slots;
use super::spec::{Aggregate, Plan};
use crate::data::{Batch, BufMut, DictionaryIds, Values, Vector, view_len};
use crate::error::{Error, Result};
use crate::expr::EvalCx;
use crate::functions::aggregate::GroupSet;
use crate::functions::{Accumulator, GroupIds, Rows};
use crate::mem::{Account, Denied, refused};
use std::sync::Arc;

/// What the columns given to a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Evaluated keys, arguments and filters.
    Rows,
    /// Keys and states of exported groups.
    States,
}

/// Whether keys are likely to come in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ascent {
    /// Nobody said so.
    Unexpected,
    /// So they have come since the table was empty.
    Kept,
    /// Not all of them have.
    Lost,
}

/// The table.
pub(super) struct Groups {
    plan: Arc<Plan>,
    keys: KeyTable,
    ascent: Ascent,
    accumulators: Vec<Box<dyn Accumulator>>,
    front: Front,
    sought_keys: usize,
    /// Bytes of strings that no group holds more of.
    widest_bytes: usize,
    /// Groups of the batch's rows; scratch.
    ids: BufMut<u32>,
    /// Rows of the batch without a group; scratch.
    missing: BufMut<u32>,
    /// Groups of rows with new combinations of codes; scratch.
    new_ids: BufMut<u32>,
    /// Rows that pass a filter, and their groups; scratch.
    passing_rows: BufMut<u32>,
    passing_ids: BufMut<u32>,
}

impl Groups {
    /// No groups; without group keys, one.
    pub(super) fn new(plan: &Arc<Plan>, account: &Account) -> Result<Self, Denied> {
        let mut groups = Self {
            plan: Arc::clone(plan),
            keys: KeyTable::new(&plan.group_types, plan.codes_strings),
            ascent: Ascent::Unexpected,
            accumulators: plan.accumulators(),
            front: Front::new(),
            sought_keys: 0,
            widest_bytes: 0,
            ids: BufMut::empty(),
            missing: BufMut::empty(),
            new_ids: BufMut::empty(),
            passing_rows: BufMut::empty(),
            passing_ids: BufMut::empty(),
        };
        groups.start_states(account)?;
        Ok(groups)
    }

    /// Number of groups.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The hash of a group.
    #[inline]
    pub(super) fn hash(&self, group: usize) -> u64 {
        self.keys.hash(group)
    }

    /// Forgets all groups, as `clear`, and says whether the rows to come are likely to be in the order of their keys, which
    /// saves looking for them. Only rows: other tables' groups are not to be merged then.
    pub(super) fn expect_ascent(&mut self, is_expected: bool) {
        self.ascent = if is_expected { Ascent::Kept } else { Ascent::Unexpected };
        self.clear();
    }

    /// The keys of all groups.
    pub(super) fn keys(&self) -> &KeyTable {
        &self.keys
    }

    /// What finds groups; none without keys.
    pub(super) fn slots(&mut self) -> Option<&mut Slots> {
        self.keys.slots()
    }

    /// Keys that were looked up, or taken for new, of rows counted so far.
    pub(super) fn sought_keys(&self) -> usize {
        self.sought_keys
    }

    /// Bytes of strings that no group holds more of.
    pub(super) fn widest_bytes(&self) -> usize {
        self.widest_bytes
    }

    /// Bytes of strings that no group holds more of once these rows count.
    pub(super) fn widest_bytes_with(&self, columns: &[Vector], rows: Rows<'_>) -> usize {
        self.widest_bytes.max(columns.iter().map(|column| longest_bytes(column, rows)).sum())
    }

    /// Notes that rows may make groups so large; once there is room for them to leave, for until then they do not count.
    pub(super) fn note_widest(&mut self, widest_bytes: usize) {
        self.widest_bytes = self.widest_bytes.max(widest_bytes);
    }

    /// Counts the rows in.
    pub(super) fn add(
        &mut self,
        kind: Kind,
        columns: &[Vector],
        rows: Rows<'_>,
        growth: &Growth<'_>,
        cx: &mut EvalCx<'_>,
    ) -> Result<(), Halt> {
        let plan = Arc::clone(&self.plan);
        if plan.has_groups() {
            self.assign(&columns[..plan.group_types.len()], rows, growth)?;
        }
        for (accumulator, aggregate) in self.accumulators.iter_mut().zip(&plan.aggregates) {
            accumulator.reserve(rows, aggregate.columns(kind, columns), growth.account)?;
        }
        let filtered = kind == Kind::Rows && plan.aggregates.iter().any(|a| a.filter.is_some());
        if filtered {
            resize(&mut self.passing_rows, rows.len(), growth.account)?;
            resize(&mut self.passing_ids, rows.len(), growth.account)?;
        }
        // From here on nothing is refused for lack of memory of the table.
        let groups = self.keys.len();
        for (accumulator, aggregate) in self.accumulators.iter_mut().zip(&plan.aggregates) {
            let given = aggregate.columns(kind, columns);
            let ids: &[u32] = &self.ids;
            let all = if plan.has_groups() { GroupIds::Each { ids, groups } } else { GroupIds::One };
            match (kind, aggregate.filter) {
                (Kind::States, _) => accumulator.merge(all, rows, given, cx)?,
                (Kind::Rows, None) => accumulator.update(all, rows, given, cx)?,
                (Kind::Rows, Some(filter)) => {
                    let (passing_rows, passing_ids) = (&mut self.passing_rows, &mut self.passing_ids);
                    let condition = &columns[filter];
                    let passing = filter_rows(condition, rows, all, passing_rows, passing_ids, cx)?;
                    let ids: &[u32] = &self.passing_ids;
                    let some = if plan.has_groups() { GroupIds::Each { ids, groups } } else { GroupIds::One };
                    if passing > 0 {
                        accumulator.update(some, Rows::At(&self.passing_rows), given, cx)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts `set` of another table's groups in, keys as they are stored there. As `add` otherwise.
    pub(super) fn merge(
        &mut self,
        other: &Self,
        set: GroupSet<'_>,
        growth: &Growth<'_>,
        cx: &mut EvalCx<'_>,
    ) -> Result<(), Halt> {
        self.keys.find_groups(&other.keys, set, &mut self.ids, &mut self.missing, growth.account)?;
        self.grow(growth)?;
        self.keys.insert(&mut self.ids, &self.missing);
        let rows = Rows::All(set.len());
        self.widest_bytes = self.widest_bytes.max(other.widest_bytes);
        let mut states = Vec::with_capacity(self.accumulators.len());
        for (accumulator, from) in self.accumulators.iter_mut().zip(&other.accumulators) {
            // So far nothing is counted: a refusal is one, and no error.
            let exported = refused(from.export(set, cx.account))??;
            accumulator.reserve(rows, &exported, growth.account)?;
            states.push(exported);
        }
        let groups = GroupIds::Each { ids: &self.ids, groups: self.keys.len() };
        for (accumulator, exported) in self.accumulators.iter_mut().zip(&states) {
            accumulator.merge(groups, rows, exported, cx)?;
        }
        Ok(())
    }

    /// Finds or makes the groups of the rows that count, into `ids`, and states for them.
    fn assign(&mut self, keys: &[Vector], rows: Rows<'_>, growth: &Growth<'_>) -> Result<(), Halt> {
        if self.ascent == Ascent::Kept {
            let (ids, missing) = (&mut self.ids, &mut self.missing);
            if self.keys.find_ascending(keys, rows, ids, missing, growth.account)? {
                self.grow(growth)?;
                self.keys.insert(&mut self.ids, &self.missing);
                return Ok(());
            }
            self.ascent = Ascent::Lost;
            if let Some(slots) = self.keys.slots() {
                slots.look_at_all();
            }
        }
        match self.front.map(keys, rows, &mut self.ids, growth.account) {
            Mapped::All => Ok(()),
            Mapped::Nothing => {
                let found = self.keys.find(keys, rows, &mut self.ids, &mut self.missing, growth.account);
                if let Err(halt) = found.and_then(|()| self.grow(growth)) {
                    self.front.shrink();
                    return Err(halt);
                }
                self.keys.insert(&mut self.ids, &self.missing);
                self.sought_keys += rows.len();
                Ok(())
            }
            Mapped::New => {
                let new_rows = Rows::At(self.front.new_rows());
                let found =
                    self.keys.find(keys, new_rows, &mut self.new_ids, &mut self.missing, growth.account);
                if let Err(halt) = found.and_then(|()| self.grow(growth)) {
                    self.front.shrink();
                    return Err(halt);
                }
                self.keys.insert(&mut self.new_ids, &self.missing);
                self.sought_keys += self.new_ids.len();
                self.front.complete(&self.new_ids, &mut self.ids);
                Ok(())
            }
        }
    }

    /// Makes room for the missing rows.
    fn grow(&mut self, growth: &Growth<'_>) -> Result<(), Halt> {
        if self.missing.is_empty() {
            return Ok(());
        }
        if (growth.refuses)() {
            return Err(Denied { bytes: self.missing.len() }.into());
        }
        let groups = self.keys.len() + self.missing.len();
        self.keys.reserve(&self.missing, growth)?;
        for accumulator in &mut self.accumulators {
            accumulator.resize(groups, growth.account)?;
        }
        Ok(())
    }

    /// `groups` with their states, as columns of the plan's state schema.
    pub(super) fn export(&self, groups: GroupSet<'_>, account: &Account) -> Result<Batch> {
        let mut columns = self.keys.decode(groups, None, account)?;
        for accumulator in &self.accumulators {
            columns.extend(accumulator.export(groups, account)?);
        }
        Ok(Batch::new(columns, groups.len()))
    }

    /// `groups` with their results.
    pub(super) fn finish(
        &self,
        groups: GroupSet<'_>,
        account: &Account,
        ids: &DictionaryIds,
    ) -> Result<Batch> {
        let mut columns = self.keys.decode(groups, Some(ids), account)?;
        for accumulator in &self.accumulators {
            columns.push(accumulator.finish(groups, account)?);
        }
        Ok(Batch::new(columns, groups.len()))
    }

    /// Forgets all groups and gives their memory back. Only with group keys.
    pub(super) fn clear(&mut self) {
        debug_assert!(self.plan.has_groups(), "the one group without keys always stays");
        self.widest_bytes = 0;
        self.keys.clear();
        if self.ascent != Ascent::Unexpected {
            self.ascent = Ascent::Kept;
            if let Some(slots) = self.keys.slots() {
                slots.look_away();
            }
        }
        self.front.clear();
        self.accumulators.iter_mut().for_each(|accumulator| accumulator.clear());
    }

    /// Without group keys: the one group has counted nothing. Its states go before there are new ones, which need the same
    /// memory.
    pub(super) fn begin_again(&mut self, account: &Account) -> Result<(), Denied> {
        debug_assert!(!self.plan.has_groups(), "groups are cleared");
        self.accumulators.iter_mut().for_each(|accumulator| accumulator.clear());
        self.start_states(account)
    }

    /// Gives each group its states.
    fn start_states(&mut self, account: &Account) -> Result<(), Denied> {
        let count = self.keys.len();
        self.accumulators.iter_mut().try_for_each(|accumulator| accumulator.resize(count, account))
    }

    /// Bytes of memory behind the groups.
    pub(super) fn allocated_bytes(&self) -> usize {
        let states = self.accumulators.iter().map(|accumulator| accumulator.allocated_bytes());
        self.keys.allocated_bytes() + self.front.allocated_bytes() + states.sum::<usize>()
    }
}

/// Bytes of the longest string among the rows that count; of a dictionary, among all its entries.
fn longest_bytes(column: &Vector, rows: Rows<'_>) -> usize {
    let longest = |views: &[u128]| views.iter().map(|view| view_len(*view)).max().unwrap_or(0);
    match column {
        Vector::Constant { value, .. } => value.as_bytes().map_or(0, <[u8]>::len),
        Vector::Flat(flat) => match (&flat.values, rows) {
            (Values::View(strings), Rows::All(count)) => longest(&strings.views[..count]),
            (Values::View(strings), Rows::At(positions)) => {
                let lens = positions.iter().map(|&row| view_len(strings.views[row as usize]));
                lens.max().unwrap_or(0)
            }
            _ => 0,
        },
        Vector::Dict { codes, dictionary, .. } => match &dictionary.values().values {
            Values::View(strings) if dictionary.len() <= rows.len() => longest(&strings.views),
            Values::View(strings) => {
                let len = |k| view_len(strings.views[codes[rows.position(k)] as usize]);
                (0..rows.len()).map(len).max().unwrap_or(0)
            }
            _ => 0,
        },
    }
}

impl Aggregate {
    /// What the accumulator is given of a table's columns.
    fn columns<'a>(&self, kind: Kind, columns: &'a [Vector]) -> &'a [Vector] {
        match kind {
            Kind::Rows => &columns[self.arguments.clone()],
            Kind::States => &columns[self.states.clone()],
        }
    }
}

/// The rows that count for which `condition` is true, with their groups; how many.
fn filter_rows(
    condition: &Vector,
    rows: Rows<'_>,
    groups: GroupIds<'_>,
    passing_rows: &mut BufMut<u32>,
    passing_ids: &mut BufMut<u32>,
    cx: &mut EvalCx<'_>,
) -> Result<usize> {
    passing_rows.set_len(0);
    passing_ids.set_len(0);
    let flat = condition.flatten(cx.account)?;
    let Values::Bool(is_true) = &flat.values else {
        return Err(Error::internal("an aggregate's filter is not BOOLEAN"));
    };
    for k in 0..rows.len() {
        let row = rows.position(k);
        if is_true.get(row) && !flat.is_null(row) {
            passing_rows.push(row as u32);
            if let GroupIds::Each { ids, .. } = groups {
                passing_ids.push(ids[k]);
            }
        }
    }
    Ok(passing_rows.len())
}
