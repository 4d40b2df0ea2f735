//! Anonymous mappings in size classes: the only place large bytes come from.
//!
//! Owns: [`Slab`], the size classes, caches of free slabs.
//!
//! Invariants:
//! 1. A slab's bytes are charged to its account from before it is mapped until after it is unmapped; a cached slab
//!    stays charged, to the account or to the topmost pool. So the process's anonymous memory never exceeds the ledger by
//!    more than the heap.
//! 2. Slab memory is always initialised (zeroed by the kernel or written before); its content is unspecified.
//! 3. A slab is at least page-aligned.

use super::account::AccountShared;
use crate::sync::{Arc, Mutex};
use memmap2::{Advice, MmapMut, MmapOptions};

const PAGE_BYTES: usize = 4096;
/// Pages of each cached class: steps of at most 1.5, so at most a third of a slab is waste.
const CLASS_PAGES: [usize; 19] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768];
/// From this size on a slab asks for huge pages: hash tables are read at random.
const HUGE_BYTES: usize = 2 << 20;

/// The size a request of `bytes` is served with.
pub(crate) fn size_class_bytes(bytes: usize) -> usize {
    match class_of(bytes) {
        Some(class) => CLASS_PAGES[class] * PAGE_BYTES,
        // Nobody is ever granted the largest number, so a size that cannot be rounded is refused, not wrapped.
        None => bytes.checked_next_multiple_of(64 * 1024).unwrap_or(usize::MAX),
    }
}

fn class_of(bytes: usize) -> Option<usize> {
    let pages = bytes.div_ceil(PAGE_BYTES).max(1);
    let class = CLASS_PAGES.partition_point(|&p| p < pages);
    (class < CLASS_PAGES.len()).then_some(class)
}

/// A piece of memory, charged to an account; it returns to the account's cache when dropped.
pub(crate) struct Slab {
    /// `None` only inside `drop`.
    mapping: Option<MmapMut>,
    account: Arc<AccountShared>,
}

impl std::fmt::Debug for Slab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slab({} bytes)", self.len())
    }
}

impl Slab {
    /// Maps fresh memory whose `class_bytes` bytes the account has already charged. `None` if the system refuses.
    ///
    /// Memory that is `read_first`, as hash tables are, gets its pages at once, unless they are huge. A page that is read
    /// before it is written is a fault twice, and the second makes every processor forget the first's address.
    pub(super) fn map(class_bytes: usize, read_first: bool, account: &Arc<AccountShared>) -> Option<Self> {
        let mut options = MmapOptions::new();
        options.len(class_bytes);
        if read_first && class_bytes < HUGE_BYTES {
            options.populate();
        }
        let mapping = options.map_anon().ok()?;
        if class_bytes >= HUGE_BYTES {
            // Only advice: without huge pages everything works, slower.
            let _ = mapping.advise(Advice::HugePage);
        }
        Some(Self { mapping: Some(mapping), account: Arc::clone(account) })
    }

    pub(super) fn recycled(mapping: MmapMut, account: &Arc<AccountShared>) -> Self {
        Self { mapping: Some(mapping), account: Arc::clone(account) }
    }

    fn mapping(&self) -> &MmapMut {
        self.mapping.as_ref().expect("invariant: a live slab has its mapping")
    }

    /// Usable bytes; at least what was asked for.
    pub(crate) fn len(&self) -> usize {
        self.mapping().len()
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.mapping()
    }

    /// Whether it is large enough to be made larger where it is cheaper than to copy: its pages are moved, not its
    /// bytes.
    pub(super) fn is_growable(&self) -> bool {
        cfg!(target_os = "linux") && self.len() >= HUGE_BYTES
    }

    /// Whether it belongs to the account of `shared`.
    pub(super) fn is_of(&self, shared: &Arc<AccountShared>) -> bool {
        Arc::ptr_eq(&self.account, shared)
    }

    /// Makes it `class_bytes` long, all of which the account has charged; the system may refuse, and then it is as it
    /// was. Its bytes may move.
    #[cfg(target_os = "linux")]
    pub(super) fn remap(&mut self, class_bytes: usize) -> bool {
        let Some(mapping) = &mut self.mapping else { return false };
        // SAFETY: the mapping is anonymous, so that every length is backed, by zeros (invariant 2); it is borrowed
        // mutably, so nobody holds a pointer into it that moving would leave dangling.
        unsafe { mapping.remap(class_bytes, memmap2::RemapOptions::new().may_move(true)) }.is_ok()
    }

    /// Other systems cannot.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn remap(&mut self, _class_bytes: usize) -> bool {
        false
    }

    /// The bytes, to write.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.mapping.as_mut().expect("invariant: a live slab has its mapping")
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        if let Some(mapping) = self.mapping.take() {
            self.account.take_back(mapping);
        }
    }
}

/// Slabs taken out of a cache; unmapped when dropped.
pub(super) struct Evicted {
    pub(super) bytes: usize,
    pub(super) mappings: Vec<MmapMut>,
}

/// Free slabs, by class: those of one account, or those that no account holds.
#[derive(Debug)]
pub(super) struct SlabCache {
    free: Mutex<Free>,
    limit_bytes: usize,
}

#[derive(Debug, Default)]
struct Free {
    bytes: usize,
    by_class: [Vec<MmapMut>; CLASS_PAGES.len()],
}

impl SlabCache {
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { free: Mutex::new(Free::default()), limit_bytes }
    }

    pub(super) fn pop(&self, bytes: usize) -> Option<MmapMut> {
        let class = class_of(bytes)?;
        let mut free = self.free.lock();
        let mapping = free.by_class[class].pop()?;
        free.bytes -= mapping.len();
        Some(mapping)
    }

    /// Whether `bytes` more may be kept.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        class_of(bytes).is_some() && self.bytes().saturating_add(bytes) <= self.limit_bytes
    }

    /// Keeps `mapping`, or gives it back to the caller to unmap.
    pub(super) fn push(&self, mapping: MmapMut) -> Result<(), MmapMut> {
        let Some(class) = class_of(mapping.len()) else { return Err(mapping) };
        let mut free = self.free.lock();
        if free.bytes + mapping.len() > self.limit_bytes {
            return Err(mapping);
        }
        free.bytes += mapping.len();
        free.by_class[class].push(mapping);
        Ok(())
    }

    /// Takes out at least `bytes` if there are so many, large slabs first.
    pub(super) fn evict(&self, bytes: usize) -> Evicted {
        let mut evicted = Evicted { bytes: 0, mappings: Vec::new() };
        let mut free = self.free.lock();
        for list in free.by_class.iter_mut().rev() {
            while evicted.bytes < bytes
                && let Some(mapping) = list.pop()
            {
                evicted.bytes += mapping.len();
                evicted.mappings.push(mapping);
            }
        }
        free.bytes -= evicted.bytes;
        evicted
    }

    pub(super) fn bytes(&self) -> usize {
        self.free.lock().bytes
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn classes_waste_at_most_a_third_and_large_sizes_are_near_exact() {
        for bytes in [1, 4096, 4097, 9000, 70_000, 3_000_000] {
            let class = size_class_bytes(bytes);
            assert!(
                class >= bytes && (class <= PAGE_BYTES * 2 || class * 2 <= bytes * 3),
                "{bytes} -> {class}"
            );
        }
        assert_eq!(size_class_bytes(10_000_000), 10_027_008);
        assert_eq!(size_class_bytes(usize::MAX - 5), usize::MAX);
    }
}
