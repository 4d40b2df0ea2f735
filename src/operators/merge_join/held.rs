//! Build rows of a key that did not end with its batch.

use super::super::held::{HeldMemory, HeldRows};
use super::cursor::Key;
use super::plan::Plan;
use crate::data::{BitmapMut, BufMut, FlatVector};
use crate::error::Result;
use crate::exec::LaneCx;

/// The rows of one key.
pub(super) struct Held {
    key: BufMut<u8>,
    /// Whether the key equals no other.
    pub(super) is_null: bool,
    /// Whether a probe row had the key.
    pub(super) is_matched: bool,
    /// For each row whether it has a match, if that is not the same for all.
    pub(super) flags: Option<BitmapMut>,
    pub(super) rows: HeldRows,
}

impl Held {
    /// No rows of `key`.
    pub(super) fn new(key: &[u8], is_null: bool, memory: &HeldMemory, cx: &LaneCx<'_>) -> Result<Self> {
        let key = BufMut::copy_of(&memory.rows, key).map_err(|denied| cx.made_final(denied.into()))?;
        Ok(Self { key, is_null, is_matched: false, flags: None, rows: HeldRows::default() })
    }

    pub(super) fn key(&self) -> Key<'_> {
        Key::of(&self.key)
    }

    /// Adds the rows from `start` to `end` of `columns`.
    pub(super) fn add(
        &mut self,
        plan: &Plan,
        columns: &[FlatVector],
        range: (usize, usize),
        memory: &HeldMemory,
        cx: &LaneCx<'_>,
    ) -> Result<()> {
        if !plan.needs_build_rows() {
            return Ok(());
        }
        self.rows.add(&plan.build.types, columns, range, memory, cx).map_err(|error| cx.made_final(error))
    }

    /// Ends collecting.
    pub(super) fn close(&mut self, plan: &Plan, memory: &HeldMemory, cx: &LaneCx<'_>) -> Result<()> {
        if plan.needs_flags() {
            let mut flags = BitmapMut::with_len(&memory.rows, self.rows.len());
            if flags.is_err() {
                self.rows.spill(&plan.build.types, memory, cx)?;
                flags = BitmapMut::with_len(&memory.rows, self.rows.len());
            }
            self.flags = Some(flags.map_err(|denied| cx.made_final(denied.into()))?);
        }
        self.rows.close()
    }
}
