//! The lock-free ledger: a tree of pools, each with a limit.
//!
//! Owns: [`Pool`]. Invariants 1, 2 and 5 of the room.

use super::reclaim::Registry;
use super::ticket::Queue;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::fmt;
use std::sync::OnceLock;

/// A grant was refused: some pool on the way to the root has not that many bytes left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    /// Bytes asked for.
    pub(crate) bytes: usize,
}

impl From<Denied> for crate::error::Error {
    /// A memory error that still lacks the operator's name and the holders; the driver adds them.
    fn from(denied: Denied) -> Self {
        Self::memory(crate::error::MemoryError::Exceeded {
            required_bytes: denied.bytes,
            limit_bytes: 0,
            operator: String::new(),
            top_consumers: Vec::new(),
        })
    }
}

/// A pool of which less than one part in so many is left is short.
const SHORT_SHARE: usize = 16;

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
    /// Counts refusals; accounts compare it to know that caches should be given back.
    pub(super) pressure: AtomicUsize,
    /// How many wait as [`Patience`](super::Patience) says, and what they look at meanwhile.
    pub(super) impatient: AtomicUsize,
    pub(super) progress: AtomicUsize,
}

impl Pool {
    /// A root pool of `limit_bytes`.
    pub fn new(name: impl Into<Box<str>>, limit_bytes: usize) -> Self {
        let root = Root {
            queue: Queue::new(),
            registry: Registry::new(),
            pressure: AtomicUsize::new(0),
            impatient: AtomicUsize::new(0),
            progress: AtomicUsize::new(0),
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

    /// Bytes granted now, children included.
    pub fn granted_bytes(&self) -> usize {
        self.node.granted_bytes.load(SeqCst)
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
        let added = node.granted_bytes.fetch_update(SeqCst, SeqCst, |granted| {
            granted.checked_add(bytes).filter(|&g| g <= node.limit_bytes.load(SeqCst))
        });
        let Ok(before) = added else { return false };
        if let Some(parent) = &node.parent
            && !parent.add(bytes)
        {
            node.granted_bytes.fetch_sub(bytes, SeqCst);
            return false;
        }
        node.peak_bytes.fetch_max(before + bytes, SeqCst);
        true
    }

    /// Takes `bytes` back, here and in every ancestor, and hands them to the oldest ticket they satisfy.
    pub(crate) fn shrink(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.subtract(bytes);
        // With the fence in `MemoryTicket::new`: either the ticket meets the freed bytes, or this sees the ticket.
        fence(SeqCst);
        self.node.root.queue.serve();
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

    /// As `try_grow`, for what is wanted beyond a floor: refused also as [`inject`](Self::inject) says.
    pub(super) fn try_grow_beyond(&self, bytes: usize) -> Result<(), Denied> {
        if self.node.refuses.get().is_some_and(|refuses| refuses()) {
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
    fn sums_do_not_wrap() {
        let root = Pool::new("engine", usize::MAX);
        root.try_grow(usize::MAX).expect("fits");
        assert!(root.try_grow(1).is_err());
    }
}
