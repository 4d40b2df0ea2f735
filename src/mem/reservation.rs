//! Bytes held, as a value: dropping it gives them back.

use super::pool::{Denied, Pool};

/// Granted bytes that return to their pool when dropped. Travels with the data it stands for.
#[derive(Debug)]
pub struct Reservation {
    pool: Pool,
    bytes: usize,
}

impl Reservation {
    /// An empty reservation in `pool`.
    pub fn empty(pool: &Pool) -> Self {
        Self { pool: pool.clone(), bytes: 0 }
    }

    /// Wraps bytes already granted by `pool`.
    pub(super) fn from_granted(pool: &Pool, bytes: usize) -> Self {
        Self { pool: pool.clone(), bytes }
    }

    /// The pool and the bytes, which stay granted: the caller gives them back.
    pub(super) fn into_granted(mut self) -> (Pool, usize) {
        (self.pool.clone(), std::mem::take(&mut self.bytes))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds `bytes`, or fails and changes nothing.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> Result<(), Denied> {
        self.pool.try_grow(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives `bytes` back; at most what is held.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.pool.shrink(bytes);
    }

    /// Moves `bytes` (at most what is held) into a reservation of their own.
    #[must_use]
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { pool: self.pool.clone(), bytes }
    }

    /// Takes over the bytes of `other`, which must come from the same pool.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(self.pool.is_same(&other.pool), "reservations of different pools are merged");
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.shrink(self.bytes);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn split_merge_and_drop_conserve_bytes() {
        let pool = Pool::new("p", 100);
        let mut a = Reservation::empty(&pool);
        a.try_grow(60).expect("fits");
        let b = a.split(20);
        assert_eq!((a.bytes(), b.bytes(), pool.granted_bytes()), (40, 20, 60));
        drop(a);
        assert_eq!(pool.granted_bytes(), 20);
        let mut c = Reservation::empty(&pool);
        c.merge(b);
        c.shrink(100);
        assert_eq!(pool.granted_bytes(), 0);
    }
}
