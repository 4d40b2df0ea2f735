//! Groups on their way out of a table, by partition.

use super::groups::Groups;
use super::hash::{PARTITION_BITS, partition_of};
use super::spec::{Plan, fan_out_bits};
use crate::data::BufMut;
use crate::error::Result;
use crate::exec::LaneCx;
use crate::functions::aggregate::GroupSet;
use crate::mem::{Account, Denied};
use crate::spill::{SpillFile, SpillWriter};
use std::sync::Arc;

/// Groups of a table ordered by partition.
pub(super) struct PartitionOrder {
    groups: BufMut<u32>,
    /// Where each partition starts, and where the last one ends.
    starts: Vec<usize>,
}

impl PartitionOrder {
    /// Orders the groups `start..start + len`.
    pub(super) fn new(
        groups: &Groups,
        start: usize,
        len: usize,
        used_bits: u32,
        bits: u32,
        account: &Account,
    ) -> Result<Self, Denied> {
        let partition = |group: usize| partition_of(groups.hash(group), used_bits, bits);
        let mut ordered = BufMut::with_len(account, len)?;
        let mut starts = vec![0; (1 << bits) + 1];
        for group in start..start + len {
            starts[partition(group) + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        // Each start moves to its partition's end, which is the next one's start.
        for group in start..start + len {
            let at = &mut starts[partition(group)];
            ordered[*at] = group as u32;
            *at += 1;
        }
        starts.rotate_right(1);
        starts[0] = 0;
        Ok(Self { groups: ordered, starts })
    }

    /// The groups of a partition.
    pub(super) fn partition(&self, partition: usize) -> &[u32] {
        &self.groups[self.starts[partition]..self.starts[partition + 1]]
    }

    /// Number of partitions.
    pub(super) fn partitions(&self) -> usize {
        self.starts.len() - 1
    }
}

/// Bytes of strings in a group that floors have room for.
const COMMON_GROUP_BYTES: usize = 1 << 10;

/// Whether floors have room for groups with so many bytes of strings.
pub(super) fn is_common(widest_bytes: usize) -> bool {
    widest_bytes <= COMMON_GROUP_BYTES
}

/// What `make` makes of `len` groups, or, where memory is refused for groups larger than they were thought to be, of as
/// many as there is memory for; and how many.
pub(super) fn in_pieces<T>(mut len: usize, make: impl Fn(usize) -> Result<T>) -> Result<(T, usize)> {
    loop {
        match make(len) {
            Ok(made) => return Ok((made, len)),
            Err(error) if error.is_refusal() && len > 1 => len /= 2,
            Err(error) => return Err(error),
        }
    }
}

/// What `make` makes in the first account, or where that is refused in the second.
fn first_to_grant<T>([first, second]: [&Account; 2], make: impl Fn(&Account) -> Result<T>) -> Result<T> {
    match make(first) {
        Err(error) if error.is_refusal() => make(second),
        made => made,
    }
}

/// Where a table's groups go when memory is short: the partitions of one depth.
pub(super) struct Spill {
    used_bits: u32,
    bits: u32,
    writer: Option<SpillWriter>,
}

impl Spill {
    /// Nothing spilled; `used_bits` of the hash already tell partitions apart.
    pub(super) fn new(used_bits: u32, fan_out: usize) -> Self {
        Self { used_bits, bits: fan_out_bits(fan_out), writer: None }
    }

    /// Whether hashes have bits left for partitions of this depth.
    pub(super) fn is_possible(&self) -> bool {
        self.used_bits + self.bits <= PARTITION_BITS
    }

    /// Whether anything was spilled.
    pub(super) fn has_spilled(&self) -> bool {
        self.writer.is_some()
    }

    /// Bits of the hash that tell apart the partitions written.
    pub(super) fn written_bits(&self) -> u32 {
        self.used_bits + self.bits
    }

    /// Partitions written to.
    pub(super) fn partitions(&self) -> u32 {
        1 << self.bits
    }

    /// Writes all groups of the table, by way of columns in `room`, and empties it.
    pub(super) fn put(
        &mut self,
        groups: &mut Groups,
        plan: &Plan,
        room: &Account,
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        let knobs = &cx.query.knobs;
        // Larger rows than floors expect may have used up the lane's.
        let from = [cx.account, room];
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => first_to_grant(from, |account| {
                cx.query.spill.writer(&plan.state_schema, account, knobs.block_bytes)
            })?,
        };
        let (block_rows, chunk_rows) = (plan.block_rows(knobs), plan.spill_chunk_rows(knobs));
        // Of groups that are wide the writer may have to copy a block, or one of them, column by column.
        let widest_bytes = groups.widest_bytes();
        let one_bytes = 2 * widest_bytes + plan.columns_bytes();
        let copy_bytes = if is_common(widest_bytes) { 0 } else { one_bytes + knobs.block_bytes };
        for start in (0..groups.len()).step_by(chunk_rows) {
            let len = chunk_rows.min(groups.len() - start);
            let order = first_to_grant(from, |account| {
                Ok(PartitionOrder::new(groups, start, len, self.used_bits, self.bits, account)?)
            })?;
            for partition in 0..order.partitions() {
                let mut rest = order.partition(partition);
                while !rest.is_empty() {
                    let kept_for_copy = room.hold(copy_bytes);
                    let (batch, len) = in_pieces(rest.len().min(block_rows), |len| {
                        let batch = groups.export(GroupSet::At(&rest[..len]), room)?;
                        // What is kept beyond the floor others may take before it is used.
                        if copy_bytes > 0 && len > 1 && room.used_bytes() > room.floor_bytes() {
                            return Err(Denied { bytes: copy_bytes }.into());
                        }
                        Ok(batch)
                    })?;
                    drop(kept_for_copy);
                    writer.write(partition as u32, &batch, room)?;
                    rest = &rest[len..];
                }
            }
            cx.check()?;
        }
        groups.clear();
        self.writer = Some(writer);
        Ok(())
    }

    /// Ends writing; `None` if nothing was written.
    pub(super) fn finish(&mut self) -> Result<Option<Arc<SpillFile>>> {
        self.writer.take().map(|writer| writer.finish().map(Arc::new)).transpose()
    }
}
