//! The lock-free ledger: a tree of pools, each with a limit.
//!
//! Owns: [`Pool`]. Invariants 1, 2, 5, 6 and 7 of the room.

use super::patience::Bell;
use super::reclaim::Registry;
use super::slab::{Evicted, SlabCache};
use super::ticket::Queue;
use crate::error::{Error, MemoryError, Result};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst, fence};
use memmap2::MmapMut;
use std::fmt;
use std::sync::OnceLock;

/// A grant was refused: some pool on the way to the root has not that many bytes left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    /// Bytes asked for.
    pub(crate) bytes: usize,
}

impl From<Denied> for Error {
    /// A memory error that still lacks the operator's name and the holders; the driver adds them.
    fn from(denied: Denied) -> Self {
        Self::memory(MemoryError::Exceeded {
            required_bytes: denied.bytes,
            limit_bytes: 0,
            operator: String::new(),
            top_consumers: Vec::new(),
        })
    }
}

/// Tells a refusal, after which less may be tried or others waited for, from other errors.
pub(crate) fn refused<T>(result: Result<T>) -> Result<Result<T, Denied>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Error::Memory(error)) => match *error {
            MemoryError::Exceeded { required_bytes, .. } => Ok(Err(Denied { bytes: required_bytes })),
            MemoryError::BudgetTooSmall { .. } => Err(Error::Memory(error)),
        },
        Err(error) => Err(error),
    }
}

/// A pool of which less than one part in so many is left is short.
const SHORT_SHARE: usize = 16;

/// One part in so many of a pool's limit is spared for those who hold little of it, half as much at the most: what has grown
/// as far as it could would leave others, who come after it, without what a single wide row takes.
const SPARED_SHARE: usize = 8;

/// Slabs that no account holds are kept up to one part in so many of the limit, and never more than `MOST_KEPT_BYTES`.
const KEPT_SHARE: usize = 8;
const MOST_KEPT_BYTES: usize = 64 << 20;

/// Asked before bytes beyond an account's floor are granted; whether to refuse them.
pub(crate) type RefusalHook = Box<dyn Fn() -> bool + Send + Sync>;

/// A limit on bytes, nested in its parent's. Cloning shares the pool.
#[derive(Clone, Debug)]
pub struct Pool {
    node: Arc<Node>,
}

struct Node {
    name: Box<str>,
    limit_bytes: AtomicUsize,
    granted_bytes: AtomicUsize,
    peak_bytes: AtomicUsize,
    parent: Option<Pool>,
    root: Arc<Root>,
    /// Whether somebody outside the engine is to take rows that are charged here.
    has_untaken: AtomicBool,
    /// Only in tests.
    refuses: OnceLock<RefusalHook>,
}

/// What all pools of one tree share.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) queue: Queue,
    pub(super) registry: Registry,
    /// Free slabs that no account holds; the topmost pool has granted their bytes, beside those of its children.
    kept: SlabCache,
    /// Counts refusals; accounts compare it to know that caches should be given back.
    pub(super) pressure: AtomicUsize,
    /// How many wait as [`Patience`](super::Patience) says, and what they look at meanwhile.
    pub(super) impatient: AtomicUsize,
    pub(super) progress: AtomicUsize,
    pub(super) bell: Bell,
}

impl Pool {
    /// A root pool of `limit_bytes`.
    pub fn new(name: impl Into<Box<str>>, limit_bytes: usize) -> Self {
        let root = Root {
            queue: Queue::new(),
            registry: Registry::new(),
            kept: SlabCache::new((limit_bytes / KEPT_SHARE).min(MOST_KEPT_BYTES)),
            pressure: AtomicUsize::new(0),
            impatient: AtomicUsize::new(0),
            progress: AtomicUsize::new(0),
            bell: Bell::new(),
        };
        Self { node: Arc::new(Node::new(name.into(), limit_bytes, None, Arc::new(root))) }
    }

    /// A pool within this one. A `limit_bytes` above the parent's is allowed; the parent's still holds.
    pub fn child(&self, name: impl Into<Box<str>>, limit_bytes: usize) -> Self {
        let root = Arc::clone(&self.node.root);
        Self { node: Arc::new(Node::new(name.into(), limit_bytes, Some(self.clone()), root)) }
    }

    /// The name given at creation.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// The most bytes this pool may ever hold: the smallest limit from here to the root.
    pub fn limit_bytes(&self) -> usize {
        let own = self.node.limit_bytes.load(SeqCst);
        self.node.parent.as_ref().map_or(own, |p| own.min(p.limit_bytes()))
    }

    /// Bytes granted now, children included. Free slabs that nobody holds do not count: whoever asks for bytes gets theirs.
    pub fn granted_bytes(&self) -> usize {
        if self.node.parent.is_some() {
            return self.node.granted_bytes.load(SeqCst);
        }
        let kept = &self.node.root.kept;
        loop {
            let kept_bytes = kept.bytes();
            let granted_bytes = self.node.granted_bytes.load(SeqCst);
            if kept.bytes() == kept_bytes {
                return granted_bytes.saturating_sub(kept_bytes);
            }
        }
    }

    /// The highest `granted_bytes` has been.
    pub fn peak_bytes(&self) -> usize {
        self.node.peak_bytes.load(SeqCst)
    }

    /// Bytes that could be granted at this moment.
    pub fn available_bytes(&self) -> usize {
        let own = self.node.limit_bytes.load(SeqCst).saturating_sub(self.granted_bytes());
        self.node.parent.as_ref().map_or(own, |p| own.min(p.available_bytes()))
    }

    /// Of these, those that may be granted to somebody who holds much.
    pub(crate) fn growable_bytes(&self) -> usize {
        self.available_bytes().saturating_sub(self.spared_bytes())
    }

    /// What is spared for those who hold little.
    fn spared_bytes(&self) -> usize {
        self.limit_bytes() / SPARED_SHARE
    }

    /// What must be available for who was refused `bytes`: if there are as many, what is spared was not for him.
    pub(super) fn wanted_bytes(&self, bytes: usize) -> usize {
        if self.available_bytes() < bytes { bytes } else { bytes.saturating_add(self.spared_bytes()) }
    }

    /// Grants `bytes` here and in every ancestor, or nothing anywhere.
    ///
    /// Refused also while a ticket waits (room invariant 5), unless nothing is asked for.
    pub(crate) fn try_grow(&self, bytes: usize) -> Result<(), Denied> {
        if bytes == 0 {
            return Ok(());
        }
        let queue = &self.node.root.queue;
        let is_waited = queue.is_waited();
        if !is_waited && self.add(bytes) {
            return Ok(());
        }
        self.node.root.pressure.fetch_add(1, SeqCst);
        if !is_waited {
            // A refusal further up leaves bytes in the pools below for a moment. A ticket that met them has been
            // refused for their sake, and nobody else would try it again.
            fence(SeqCst);
            queue.serve();
        }
        Err(Denied { bytes })
    }

    /// As `try_grow`, but not queued behind tickets. Only for handing freed bytes to the oldest ticket.
    pub(super) fn add(&self, bytes: usize) -> bool {
        let node = &*self.node;
        let added = node.add(bytes).or_else(|| match node.parent {
            Some(_) => None,
            None => self.unkeep(bytes).then(|| node.add(bytes)).flatten(),
        });
        let Some(before) = added else { return false };
        if let Some(parent) = &node.parent
            && !parent.add(bytes)
        {
            node.granted_bytes.fetch_sub(bytes, SeqCst);
            return false;
        }
        node.peak_bytes.fetch_max(before + bytes, SeqCst);
        true
    }

    /// Keeps a free slab for whoever needs one, or hands it back to be unmapped. Whoever charged its bytes still does: here
    /// they are granted once more.
    pub(super) fn keep(&self, mapping: MmapMut) -> Result<(), MmapMut> {
        let (top, bytes) = (self.top(), mapping.len());
        let Root { queue, kept, .. } = &*self.node.root;
        if !kept.has_room(bytes) || queue.is_waited() || top.node.add(bytes).is_none() {
            return Err(mapping);
        }
        let result = kept.push(mapping);
        if result.is_err() {
            top.shrink(bytes);
        }
        // As in `MemoryTicket::new`: either the ticket meets the slab, or this sees the ticket.
        fence(SeqCst);
        if queue.is_waited() && top.unkeep(usize::MAX) {
            queue.serve();
        }
        result
    }

    /// A slab that nobody holds, for a request of `bytes` that has been charged.
    pub(super) fn take_kept(&self, bytes: usize) -> Option<MmapMut> {
        let mapping = self.node.root.kept.pop(bytes)?;
        self.top().shrink(mapping.len());
        Some(mapping)
    }

    /// Of the topmost pool: unmaps slabs that nobody holds until `bytes` are freed, or all; whether there were any.
    fn unkeep(&self, bytes: usize) -> bool {
        let Evicted { bytes, mappings } = self.node.root.kept.evict(bytes);
        drop(mappings);
        self.node.granted_bytes.fetch_sub(bytes, SeqCst);
        bytes > 0
    }

    fn top(&self) -> &Self {
        self.node.parent.as_ref().map_or(self, Self::top)
    }

    /// Takes `bytes` back, here and in every ancestor, and hands them to the oldest ticket they satisfy.
    pub(crate) fn shrink(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.subtract(bytes);
        // With the fence in `MemoryTicket::new`: either the ticket meets the freed bytes, or this sees the ticket.
        fence(SeqCst);
        let root = &self.node.root;
        root.queue.serve();
        // While a ticket waits nobody else is granted anything.
        if !root.queue.is_waited() {
            root.bell.ring();
        }
    }

    fn subtract(&self, bytes: usize) {
        let before = self.node.granted_bytes.fetch_sub(bytes, SeqCst);
        debug_assert!(before >= bytes, "pool '{}' gives back {bytes} of {before} bytes", self.name());
        if let Some(parent) = &self.node.parent {
            parent.subtract(bytes);
        }
    }

    /// A number that changes whenever a grant is refused anywhere in the tree.
    pub(crate) fn pressure(&self) -> usize {
        self.node.root.pressure.load(SeqCst)
    }

    /// As `try_grow`, for what somebody who holds `held_bytes` beyond his floor wants beyond it: refused also as
    /// [`inject`](Self::inject) says, and the last part of the pool to all who hold much.
    pub(super) fn try_grow_beyond(&self, bytes: usize, held_bytes: usize) -> Result<(), Denied> {
        let is_spared =
            || held_bytes.saturating_add(bytes) > self.spared_bytes() / 2 && self.growable_bytes() < bytes;
        if self.node.refuses.get().is_some_and(|refuses| refuses()) || is_spared() {
            self.node.root.pressure.fetch_add(1, SeqCst);
            return Err(Denied { bytes });
        }
        self.try_grow(bytes)
    }

    /// From now on `refuses` may refuse accounts of this pool what is beyond their floors. For fault injection, once.
    pub(crate) fn inject(&self, refuses: RefusalHook) {
        // A second one is ignored: the first goes on.
        let _ = self.node.refuses.set(refuses);
    }

    /// Whether a request of a few batches may be refused: tickets wait, or little is left.
    pub(crate) fn is_short(&self) -> bool {
        self.node.root.queue.is_waited() || self.available_bytes() < self.limit_bytes() / SHORT_SHARE
    }

    /// Says whether rows charged to this pool lie ready for somebody outside the engine, whose time is his own.
    pub(crate) fn set_untaken(&self, has_untaken: bool) {
        self.node.has_untaken.store(has_untaken, Relaxed);
    }

    /// What [`set_untaken`](Self::set_untaken) said last. It publishes no data: relaxed order is enough.
    pub(super) fn has_untaken(&self) -> bool {
        self.node.has_untaken.load(Relaxed)
    }

    pub(super) fn root(&self) -> &Arc<Root> {
        &self.node.root
    }

    /// The pool, from here to the root, that refuses `bytes` now; the root if none does.
    pub(super) fn tightest(&self, bytes: usize) -> &Self {
        let own = self.node.limit_bytes.load(SeqCst).saturating_sub(self.granted_bytes());
        match &self.node.parent {
            Some(parent) if own >= bytes => parent.tightest(bytes),
            Some(_) | None => self,
        }
    }

    /// Whether bytes of this pool count in `other` too.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        self.is_same(other) || self.node.parent.as_ref().is_some_and(|parent| parent.is_within(other))
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .field("limit_bytes", &self.limit_bytes)
            .field("granted_bytes", &self.granted_bytes)
            .field("peak_bytes", &self.peak_bytes)
            .field("parent", &self.parent)
            .finish_non_exhaustive()
    }
}

impl Node {
    /// Grants `bytes` here; how many were granted before, or `None` if they are too many.
    fn add(&self, bytes: usize) -> Option<usize> {
        let sum = |granted: usize| granted.checked_add(bytes).filter(|&g| g <= self.limit_bytes.load(SeqCst));
        self.granted_bytes.fetch_update(SeqCst, SeqCst, sum).ok()
    }

    fn new(name: Box<str>, limit_bytes: usize, parent: Option<Pool>, root: Arc<Root>) -> Self {
        Self {
            name,
            limit_bytes: AtomicUsize::new(limit_bytes),
            granted_bytes: AtomicUsize::new(0),
            peak_bytes: AtomicUsize::new(0),
            parent,
            root,
            has_untaken: AtomicBool::new(false),
            refuses: OnceLock::new(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::{Account, MemoryTicket};
    use super::*;

    #[test]
    fn a_refused_grant_leaves_no_trace() {
        let root = Pool::new("engine", 100);
        let query = root.child("query", 80);
        let other = root.child("other", 80);
        query.try_grow(70).expect("fits");
        assert_eq!(other.try_grow(40), Err(Denied { bytes: 40 }));
        assert_eq!((root.granted_bytes(), other.granted_bytes()), (70, 0));
        assert_eq!(query.try_grow(11), Err(Denied { bytes: 11 }));
        other.try_grow(30).expect("fits exactly");
        assert_eq!(other.available_bytes(), 0);
        query.shrink(70);
        other.shrink(30);
        assert_eq!((root.granted_bytes(), root.peak_bytes()), (0, 100));
    }

    #[test]
    fn free_slabs_are_kept_for_whoever_needs_one() {
        let engine = Pool::new("engine", 1 << 20);
        let account = |name| Account::open(&engine.child(name, 1 << 20), 0, 4096, 0).expect("no floor");
        let mut slab = account("first").alloc(60 << 10).expect("fits");
        slab.bytes_mut()[..2].fill(7);
        let bytes = slab.len();
        drop(slab);
        let kept = |engine: &Pool| engine.node.granted_bytes.load(SeqCst);
        assert_eq!((engine.granted_bytes(), kept(&engine)), (0, bytes));
        assert_eq!(engine.available_bytes(), 1 << 20);
        let slab = account("second").alloc(60 << 10).expect("fits");
        assert_eq!((slab.bytes()[0], engine.granted_bytes(), kept(&engine)), (7, bytes, bytes));
        drop(slab);
        let slab = account("third").alloc_zeroed(60 << 10).expect("fits");
        assert_eq!(slab.bytes()[..2], [0, 0], "what is kept was written");
        drop(slab);
        assert_eq!(kept(&engine), bytes);
        engine.child("fourth", 1 << 20).try_grow((1 << 20) - bytes).expect("beside what is kept");
        assert_eq!(kept(&engine), 1 << 20);
        engine.try_grow(bytes).expect("instead of what is kept");
        assert_eq!((engine.granted_bytes(), kept(&engine)), (1 << 20, 1 << 20));
    }

    #[test]
    fn little_is_kept_and_nothing_while_a_ticket_waits() {
        let engine = Pool::new("engine", 1 << 20);
        let account = Account::open(&engine, 0, 4096, 0).expect("no floor");
        let slabs: Vec<_> = (0..10).map(|_| account.alloc(32 << 10).expect("fits")).collect();
        let large = account.alloc(256 << 10).expect("fits");
        drop((large, slabs, account));
        let kept = |engine: &Pool| engine.node.granted_bytes.load(SeqCst);
        assert_eq!(kept(&engine), 128 << 10, "an eighth");
        let account = Account::open(&engine, 0, 4096, 0).expect("no floor");
        let slabs = [account.alloc(64 << 10).expect("fits"), account.alloc(64 << 10).expect("fits")];
        let ticket = MemoryTicket::new(&engine, 1 << 20, std::task::Waker::noop()).expect("possible");
        assert_eq!(kept(&engine), 128 << 10, "what was kept goes to the ticket");
        drop((slabs, account));
        let (granted, _) = ticket.take().expect("all is free");
        assert_eq!((granted.bytes(), kept(&engine)), (1 << 20, 1 << 20));
    }

    #[test]
    fn sums_do_not_wrap() {
        let root = Pool::new("engine", usize::MAX);
        root.try_grow(usize::MAX).expect("fits");
        assert!(root.try_grow(1).is_err());
    }
}
