//! Dictionaries shared by the batches of a column chunk.

use super::vector::FlatVector;
use std::sync::atomic::{AtomicU64, Ordering};

/// Distinct-ish values that codes point into. Values may repeat; none is null.
#[derive(Debug)]
pub(crate) struct Dictionary {
    /// Equal for two dictionaries only if they are the same object; caches key on it.
    id: u64,
    values: FlatVector,
}

/// Gives out dictionary ids; one per query, so that nothing is process-wide.
#[derive(Debug, Default)]
pub(crate) struct DictionaryIds(AtomicU64);

impl DictionaryIds {
    /// An id not given out before.
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Dictionary {
    /// A dictionary of `values`, which hold no nulls.
    pub(crate) fn new(ids: &DictionaryIds, values: FlatVector) -> Self {
        debug_assert!(values.validity.is_none(), "nulls are in the vector, not in the dictionary");
        Self { id: ids.next(), values }
    }

    /// Its identity within the query.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The values codes point into.
    pub(crate) fn values(&self) -> &FlatVector {
        &self.values
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }
}
