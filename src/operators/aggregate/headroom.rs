//! Memory kept free for groups on their way out of a table, where one may be larger than floors expect.
//!
//! Invariants:
//! 1. It is an account of its own: what is in it nobody else takes when groups leave.

use super::spill::is_common;
use crate::mem::{Account, Denied, Pool, Registration, Reservation};

/// Nothing is to be granted ahead.
const LEAST_QUANTUM_BYTES: usize = 4 << 10;

/// Memory that nothing uses until groups leave. An account of its own, so that nobody else takes it when they do.
#[derive(Default)]
pub(super) struct Headroom(Option<Account>);

impl Headroom {
    /// Makes it large enough to write a group of `widest_bytes` strings, or to emit it: those of its keys, those of its
    /// states, what is left over of slabs, and `spill_bytes` for what groups leave by. Floors have room for common
    /// ones; larger rows may have used the floor up themselves.
    ///
    /// # Errors
    /// What is missing is refused; then what there was stays, and others are asked on behalf of `asker`.
    pub(super) fn extend(
        &mut self,
        widest_bytes: usize,
        spill_bytes: usize,
        pool: &Pool,
        asker: &Registration,
    ) -> Result<(), Denied> {
        let bytes = if is_common(widest_bytes) { 0 } else { 4 * widest_bytes + spill_bytes };
        let missing = bytes.saturating_sub(self.0.as_ref().map_or(0, Account::floor_bytes));
        if missing == 0 {
            return Ok(());
        }
        let mut reserved = Reservation::empty(pool);
        reserved.try_grow(missing).inspect_err(|_| {
            pool.request_reclaim(missing, Some(asker.id()));
        })?;
        if let Some(before) = self.0.take() {
            reserved.merge(before.close());
        }
        let account = Account::from_reservation(reserved, LEAST_QUANTUM_BYTES, 0);
        account.ask_as(asker.id());
        self.0 = Some(account);
        Ok(())
    }

    /// What groups leave by, if it is not the lane's floor.
    pub(super) fn account(&self) -> Option<&Account> {
        self.0.as_ref()
    }
}
