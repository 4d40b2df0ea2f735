//! A table that takes whatever it is given, spilling when it must: a lane's while rows are counted, and a source
//! lane's while partitions are merged.

use super::groups::{Groups, Kind};
use super::headroom::Headroom;
use super::keys::{Growth, Halt};
use super::spec::{Plan, fan_out_bits};
use super::spill::{Spill, in_pieces};
use crate::data::{BufMut, Vector};
use crate::error::{Error, Result};
use crate::exec::LaneCx;
use crate::expr::EvalCx;
use crate::functions::Rows;
use crate::functions::aggregate::GroupSet;
use crate::mem::{Account, Denied, MemoryConsumer, Registration, refused};
use crate::spill::SpillFile;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Below this a lane asks others for memory before it spills again.
const SMALL_TABLE_BYTES: usize = 1 << 20;

/// So many keys show whether they repeat. Few in tests, so that all that is tested comes to it.
const WATCHED_KEYS: usize = if cfg!(test) { 1 << 10 } else { 32 << 10 };
/// So many are then taken on trust.
const TRUSTED_KEYS: usize = if cfg!(test) { 4 << 10 } else { 512 << 10 };
/// Hundredths of the keys that must have been new for the next ones to be taken for new.
const NEW_PERCENT: usize = 95;
/// Groups that are found at a time while older ones are not asked for; what finds them stays in cache.
const RECENT_GROUPS: usize = if cfg!(test) { 1 << 10 } else { 32 << 10 };

/// The table with its memory and its way out.
pub(super) struct Intake {
    plan: Arc<Plan>,
    groups: Groups,
    watch: Watch,
    /// Whether a key may have several groups.
    may_repeat: bool,
    spill: Spill,
    /// Whether groups have left since that was last asked.
    has_left: bool,
    /// How many groups the table must hold before an injected refusal is heeded.
    forced: Forced,
    /// Kept free for groups on their way out, where one may be larger than floors expect.
    headroom: Headroom,
    consumer: Arc<TableConsumer>,
    registration: Registration,
    /// After the groups, so that their slabs return to it.
    account: Account,
}

/// When injected refusals are heeded. A small table spills at once and each time it has doubled, a large one by whole
/// blocks: what they test is that spilling works at any moment, not that blocks of single rows are slow.
enum Forced {
    /// From so many groups on.
    From { groups: usize },
    /// Not in partitions of partitions, so that merging ends.
    Never,
}

/// Whether keys are looked up, since the table had sought so many.
enum Watch {
    /// They are; when it began there were `groups` groups.
    Looking { since: usize, groups: usize },
    /// They are not, for they hardly repeat.
    Trusting { since: usize },
    /// They are, among all groups, for old ones come back.
    Settled,
}

impl Watch {
    const NEW: Self = Self::Looking { since: 0, groups: 0 };
}

/// A table as reclaim sees it.
struct TableConsumer {
    name: String,
    floor_bytes: usize,
    used_bytes: AtomicUsize,
    requested_bytes: AtomicUsize,
}

impl MemoryConsumer for TableConsumer {
    fn name(&self) -> &str {
        &self.name
    }

    fn used_bytes(&self) -> usize {
        self.used_bytes.load(Relaxed)
    }

    fn revocable_bytes(&self) -> usize {
        self.used_bytes().saturating_sub(self.floor_bytes)
    }

    fn request_reclaim(&self, target_bytes: usize) {
        self.requested_bytes.fetch_max(target_bytes, Relaxed);
    }
}

impl Intake {
    /// An empty table in `account`, whose floor is `floor_bytes`.
    pub(super) fn new(
        plan: &Arc<Plan>,
        account: Account,
        floor_bytes: usize,
        fan_out: usize,
    ) -> Result<Self> {
        let groups = Groups::new(plan, &account)?;
        let consumer = Arc::new(TableConsumer {
            name: plan.name(),
            floor_bytes,
            used_bytes: AtomicUsize::new(0),
            requested_bytes: AtomicUsize::new(0),
        });
        let registration = account.pool().register(Arc::clone(&consumer) as Arc<dyn MemoryConsumer>);
        let spill = Spill::new(0, fan_out);
        Ok(Self {
            plan: Arc::clone(plan),
            groups,
            watch: Watch::NEW,
            may_repeat: false,
            spill,
            has_left: false,
            forced: Forced::From { groups: 1 },
            headroom: Headroom::default(),
            consumer,
            registration,
            account,
        })
    }

    /// The groups in memory.
    pub(super) fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Whether a key may have several groups, so that the table must be merged to be read.
    pub(super) fn may_repeat(&self) -> bool {
        self.may_repeat
    }

    /// Chooses what the next rows are looked up in, of a table that will be merged with others: merging will look keys
    /// up in any case. Where keys hardly repeat, in nothing for a while; where they repeat soon or never, among recent
    /// groups; else among all.
    pub(super) fn watch(&mut self) {
        let (groups, keys) = (self.groups.len(), self.groups.sought_keys());
        let Some(slots) = self.groups.slots() else { return };
        slots.begin_sketch();
        match self.watch {
            Watch::Looking { since, groups: before } => {
                let is_over = keys - since >= WATCHED_KEYS;
                let is_new = (groups.saturating_sub(before)) * 100 >= (keys - since) * NEW_PERCENT;
                if !(is_over && is_new) && slots.found(groups) < RECENT_GROUPS {
                    if is_over {
                        self.watch = Watch::Looking { since: keys, groups };
                    }
                } else if slots.repeats() {
                    slots.look_at_all();
                    self.watch = Watch::Settled;
                } else {
                    self.may_repeat = true;
                    if is_over && is_new {
                        slots.look_away();
                        self.watch = Watch::Trusting { since: keys };
                    } else {
                        slots.look_again(groups);
                    }
                }
            }
            Watch::Trusting { since } if keys - since < TRUSTED_KEYS => {}
            Watch::Trusting { .. } if slots.repeats() => {
                slots.look_at_all();
                self.watch = Watch::Settled;
            }
            Watch::Trusting { .. } => {
                slots.look_again(groups);
                self.watch = Watch::Looking { since: keys, groups };
            }
            Watch::Settled => {}
        }
    }

    /// What finds groups.
    #[cfg(test)]
    pub(super) fn slots(&mut self) -> &mut super::slots::Slots {
        self.groups.slots().expect("tests ask with group keys")
    }

    /// The table's memory.
    pub(super) fn account(&self) -> &Account {
        &self.account
    }

    /// Whether groups have left the table.
    pub(super) fn has_spilled(&self) -> bool {
        self.spill.has_spilled()
    }

    /// Whether groups have left the table since the last call.
    pub(super) fn take_has_left(&mut self) -> bool {
        std::mem::take(&mut self.has_left)
    }

    /// Forgets all groups, as `clear`; whether rows that come next are likely to be in the order of their keys. While they
    /// are, other tables' groups must not be merged.
    pub(super) fn expect_ascent(&mut self, is_expected: bool) {
        self.groups.expect_ascent(is_expected);
        self.publish();
    }

    /// Forgets all groups; those that have left stay where they are.
    pub(super) fn clear(&mut self) {
        self.groups.clear();
        self.publish();
    }

    /// Starts afresh for groups that have `used_bits` of their hashes in common.
    pub(super) fn restart(&mut self, used_bits: u32, fan_out: usize) -> Result<()> {
        if self.plan.has_groups() {
            self.groups.clear();
        } else {
            self.groups.begin_again(&self.account)?;
        }
        self.spill = Spill::new(used_bits, fan_out);
        let is_shallow = used_bits <= fan_out_bits(fan_out);
        self.forced = if is_shallow { Forced::From { groups: 1 } } else { Forced::Never };
        self.publish();
        Ok(())
    }

    /// Empties the table and gives its memory back, keeping the floor.
    pub(super) fn release(&mut self) {
        if self.plan.has_groups() {
            self.groups.clear();
        }
        self.open_headroom();
        self.account.trim();
        self.publish();
    }

    /// No longer a victim of reclaim: its groups are being read.
    pub(super) fn settle(&mut self) {
        self.open_headroom();
        self.consumer.used_bytes.store(0, Relaxed);
    }

    /// Gives groups that leave the room kept for them.
    pub(super) fn open_headroom(&mut self) {
        self.headroom = Headroom::default();
    }

    /// Spills everything, so that the caller may try again what was refused memory; whether there was anything.
    pub(super) fn make_room(&mut self, cx: &LaneCx<'_>) -> Result<bool> {
        let can_spill = self.can_spill();
        if can_spill {
            self.spill_all(cx)?;
        }
        Ok(can_spill)
    }

    /// Gives memory back if somebody asked for it.
    pub(super) fn heed_requests(&mut self, cx: &LaneCx<'_>) -> Result<()> {
        self.account.relieve();
        if self.consumer.requested_bytes.swap(0, Relaxed) > 0 {
            self.reclaim(cx)?;
        }
        Ok(())
    }

    /// Spills everything if that frees anything; the bytes freed.
    pub(super) fn reclaim(&mut self, cx: &LaneCx<'_>) -> Result<usize> {
        let before = self.account.used_bytes();
        if self.consumer.revocable_bytes() > 0 && self.can_spill() {
            self.spill_all(cx)?;
        }
        Ok(before.saturating_sub(self.account.used_bytes()))
    }

    /// Counts the rows from `counted` on in, spilling as often as it takes. If a single row does not fit an empty table,
    /// that is refused, and `counted` are the rows before it.
    pub(super) fn add(
        &mut self,
        kind: Kind,
        columns: &[Vector],
        rows: Rows<'_>,
        counted: &mut usize,
        cx: &LaneCx<'_>,
    ) -> Result<Result<(), Denied>> {
        let has_counted = self.groups.len() > 0;
        let refused = if *counted == 0 {
            self.try_add(kind, columns, rows, cx)?.map(|()| *counted = rows.len()).err()
        } else {
            None
        };
        // All rows have been counted unless some were refused, now or before.
        let result = self.add_in_steps(kind, columns, rows, counted, (refused, has_counted), cx)?;
        self.publish();
        Ok(result)
    }

    /// Counts the groups of `set` of another table in, as `add` does rows. How many, which are the first ones; fewer than
    /// all with the refusal of the next one.
    pub(super) fn merge(
        &mut self,
        other: &Groups,
        set: GroupSet<'_>,
        cx: &LaneCx<'_>,
    ) -> Result<(usize, Result<(), Denied>)> {
        if self.plan.has_groups() {
            match self.try_merge(other, set, cx) {
                Ok(()) => {
                    self.publish();
                    return Ok((set.len(), Ok(())));
                }
                // Groups it has left behind have counted nothing. As columns they can be taken in smaller pieces.
                Err(Halt::Denied(_)) => {}
                Err(Halt::Failed(error)) => return Err(error),
            }
        }
        let mut merged = 0;
        while merged < set.len() {
            let left = set.len() - merged;
            let exported = in_pieces(left, |len| other.export(set.slice(merged, len), cx.account));
            let (batch, len) = match refused(exported)? {
                Ok(exported) => exported,
                Err(_) if self.make_room(cx)? => continue,
                Err(denied) => return Ok((merged, Err(denied))),
            };
            let mut counted = 0;
            let added = self.add(Kind::States, batch.columns(), Rows::All(len), &mut counted, cx)?;
            merged += counted;
            if added.is_err() {
                return Ok((merged, added));
            }
        }
        Ok((merged, Ok(())))
    }

    fn try_merge(&mut self, other: &Groups, set: GroupSet<'_>, cx: &LaneCx<'_>) -> Result<(), Halt> {
        let heeds_faults = self.heeds_faults();
        let (refuses, check) = (|| heeds_faults && cx.must_refuse(), || cx.check());
        let growth = Growth { account: &self.account, refuses: &refuses, check: &check };
        let mut eval_cx = EvalCx { account: cx.account, ids: &cx.query.ids };
        let spill_bytes = self.plan.spill_floor_bytes(&cx.query.knobs);
        let (pool, asker) = (self.account.pool(), &self.registration);
        self.headroom.extend(other.widest_bytes(), spill_bytes, pool, asker)?;
        self.groups.merge(other, set, &growth, &mut eval_cx)
    }

    /// Writes what is left in the table and ends the spill; the file, if anything was spilled.
    pub(super) fn finish_spill(&mut self, cx: &LaneCx<'_>) -> Result<Option<Arc<SpillFile>>> {
        if self.groups.len() > 0 {
            self.spill_all(cx)?;
        }
        self.release();
        self.spill.finish()
    }

    /// Bits that tell apart the partitions spilled, and how many partitions there are.
    pub(super) fn spilled_shape(&self) -> (u32, u32) {
        (self.spill.written_bits(), self.spill.partitions())
    }

    fn can_spill(&self) -> bool {
        self.plan.has_groups() && self.groups.len() > 0 && self.spill.is_possible()
    }

    /// Whether an injected refusal is heeded now.
    fn heeds_faults(&self) -> bool {
        let is_forced = matches!(self.forced, Forced::From { groups } if self.groups.len() >= groups);
        is_forced && self.can_spill()
    }

    fn try_add(
        &mut self,
        kind: Kind,
        columns: &[Vector],
        rows: Rows<'_>,
        cx: &LaneCx<'_>,
    ) -> Result<Result<(), Denied>> {
        let mut eval_cx = EvalCx { account: cx.account, ids: &cx.query.ids };
        let heeds_faults = self.heeds_faults();
        let (refuses, check) = (|| heeds_faults && cx.must_refuse(), || cx.check());
        let growth = Growth { account: &self.account, refuses: &refuses, check: &check };
        if self.plan.has_string_states() {
            let widest_bytes = self.groups.widest_bytes_with(columns, rows);
            let spill_bytes = self.plan.spill_floor_bytes(&cx.query.knobs);
            let (pool, asker) = (self.account.pool(), &self.registration);
            if let Err(denied) = self.headroom.extend(widest_bytes, spill_bytes, pool, asker) {
                return Ok(Err(denied));
            }
            self.groups.note_widest(widest_bytes);
        }
        match self.groups.add(kind, columns, rows, &growth, &mut eval_cx) {
            Ok(()) => Ok(Ok(())),
            Err(Halt::Denied(denied)) => Ok(Err(denied)),
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    /// Counts rows in, from `counted` on, where not all fit at once: spills, then tries ever fewer rows. A refusal comes with
    /// whether the table had counted anything before it; if not, its groups are left over from the refused batch.
    fn add_in_steps(
        &mut self,
        kind: Kind,
        columns: &[Vector],
        rows: Rows<'_>,
        counted: &mut usize,
        (mut refused, mut has_counted): (Option<Denied>, bool),
        cx: &LaneCx<'_>,
    ) -> Result<Result<(), Denied>> {
        if *counted == rows.len() {
            return Ok(Ok(()));
        }
        let listed;
        let positions = match rows {
            Rows::At(positions) => positions,
            Rows::All(count) => {
                let mut all = BufMut::<u32>::with_len(cx.account, count);
                // Rows in hand that are wide may have used up what there was.
                if all.is_err() && has_counted && self.can_spill() {
                    self.spill_all(cx)?;
                    has_counted = false;
                    all = BufMut::with_len(cx.account, count);
                }
                let mut all = match all {
                    Ok(all) => all,
                    Err(denied) => {
                        self.forget_uncounted(has_counted);
                        return Ok(Err(denied));
                    }
                };
                for (row, to) in all.iter_mut().enumerate() {
                    *to = row as u32;
                }
                listed = all;
                &*listed
            }
        };
        let mut step = positions.len() - *counted;
        while *counted < positions.len() {
            cx.check()?;
            if let Some(denied) = refused {
                if has_counted && self.can_spill() {
                    if self.groups.allocated_bytes() < SMALL_TABLE_BYTES {
                        self.account.pool().request_reclaim(denied.bytes, Some(self.registration.id()));
                    }
                    self.spill_all(cx)?;
                    has_counted = false;
                } else {
                    self.forget_uncounted(has_counted);
                    if step == 1 {
                        return Ok(Err(denied));
                    }
                    step = step.div_ceil(2);
                }
            }
            // As many as go in before the table is full again.
            while *counted < positions.len() {
                let end = (*counted + step).min(positions.len());
                match self.try_add(kind, columns, Rows::At(&positions[*counted..end]), cx)? {
                    Ok(()) => (*counted, has_counted) = (end, true),
                    Err(denied) => {
                        refused = Some(denied);
                        break;
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    /// Forgets groups of a refused batch, if the table has counted nothing else.
    fn forget_uncounted(&mut self, has_counted: bool) {
        if !has_counted && self.plan.has_groups() {
            self.groups.clear();
        }
    }

    fn spill_all(&mut self, cx: &LaneCx<'_>) -> Result<()> {
        if let Forced::From { groups } = &mut self.forced {
            *groups = (*groups * 2).min(self.plan.spill_chunk_rows(&cx.query.knobs));
        }
        self.has_left = true;
        let room = self.headroom.account().unwrap_or(cx.account);
        self.spill.put(&mut self.groups, &self.plan, room, cx)?;
        self.open_headroom();
        self.watch = Watch::Looking { since: self.groups.sought_keys(), groups: 0 };
        self.may_repeat = false;
        self.account.trim();
        cx.metrics.counter("spills").fetch_add(1, Relaxed);
        self.publish();
        Ok(())
    }

    fn publish(&self) {
        self.consumer.used_bytes.store(self.groups.allocated_bytes(), Relaxed);
    }

    /// What is to be said if the least there is does not fit.
    pub(super) fn too_small(&self, denied: Denied) -> Error {
        Error::too_small(denied.bytes, self.account.pool().limit_bytes(), self.plan.name())
    }
}
