//! Strings and blobs as 16-byte views, in Arrow's layout.
//!
//! Invariants:
//! 1. A view is: length (u32), then for at most 12 bytes the bytes themselves, zero-padded; else a 4-byte prefix,
//!    the index of a data buffer (u32) and the offset in it (u32), all little-endian.
//! 2. A long view's range lies inside its data buffer. Reading is checked all the same: a view that breaks this
//!    panics rather than reads foreign bytes.
//! 3. Views of a column typed `Utf8` hold valid UTF-8; sources check what they read.

use super::buffer::{Buf, BufMut};
use super::hash::prefetch;
use crate::mem::{Account, Denied};
use std::sync::Arc;

/// The longest value stored in the view itself, bytes.
pub(crate) const MAX_INLINE_BYTES: usize = 12;

/// Strings of so many bytes on average are not copied where they are laid out anew, but shared with where they lie.
pub(crate) const SHARED_BYTES: usize = 2048;

/// A column of strings or blobs.
#[derive(Clone, Debug)]
pub(crate) struct StringViews {
    /// One view per value.
    pub(crate) views: Buf<u128>,
    /// What long views point into.
    pub(crate) buffers: Arc<[Buf<u8>]>,
}

/// The length of a view's value, bytes.
#[inline]
pub(crate) fn view_len(view: u128) -> usize {
    view as u32 as usize
}

/// A view of a short value. Panics above [`MAX_INLINE_BYTES`].
#[inline]
pub(crate) fn view_inline(value: &[u8]) -> u128 {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&(value.len() as u32).to_le_bytes());
    bytes[4..4 + value.len()].copy_from_slice(value);
    u128::from_le_bytes(bytes)
}

/// A view of `value`, which lies at `offset` of data buffer `buffer` if it is long.
#[inline]
pub(crate) fn view_of(value: &[u8], buffer: u32, offset: u32) -> u128 {
    if value.len() <= MAX_INLINE_BYTES {
        return view_inline(value);
    }
    let prefix = u32::from_le_bytes([value[0], value[1], value[2], value[3]]);
    value.len() as u128 | u128::from(prefix) << 32 | u128::from(buffer) << 64 | u128::from(offset) << 96
}

/// The bytes a view stands for. `view` must be borrowed, because short values lie in it.
#[inline]
pub(crate) fn view_bytes<'a>(view: &'a u128, buffers: &'a [Buf<u8>]) -> &'a [u8] {
    let len = view_len(*view);
    if len <= MAX_INLINE_BYTES {
        const { assert!(cfg!(target_endian = "little"), "views are little-endian in memory") };
        // SAFETY: a u128 is 16 readable bytes, of which 4 + len ≤ 16 are taken.
        return unsafe { std::slice::from_raw_parts(std::ptr::from_ref(view).cast::<u8>().add(4), len) };
    }
    let buffer = (*view >> 64) as u32 as usize;
    let offset = (*view >> 96) as u32 as usize;
    &buffers[buffer][offset..offset + len]
}

/// The first byte of a long value.
fn long_place(view: u128, buffers: &[Buf<u8>]) -> Option<&u8> {
    buffers.get((view >> 64) as u32 as usize)?.get((view >> 96) as u32 as usize)
}

impl StringViews {
    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.views.len()
    }

    /// The bytes of value `index`. Panics past the end.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        view_bytes(&self.views[index], &self.buffers)
    }

    /// The bytes of value `index`, which is long, without a copy. Panics past the end.
    pub(crate) fn shared_bytes(&self, index: usize) -> Buf<u8> {
        let view = self.views[index];
        let (buffer, offset) = ((view >> 64) as u32 as usize, (view >> 96) as u32 as usize);
        self.buffers[buffer].slice(offset, view_len(view))
    }
}

/// Builds a column of views that owns its bytes.
#[derive(Debug)]
pub(crate) struct ViewBuilder {
    views: BufMut<u128>,
    full: Vec<Buf<u8>>,
    current: BufMut<u8>,
}

const FIRST_BUFFER_BYTES: usize = 4 << 10;
const LARGEST_BUFFER_BYTES: usize = 1 << 20;
/// How far ahead long values are fetched that lie scattered.
const VALUES_AHEAD: usize = 12;

impl ViewBuilder {
    /// No values, and no memory.
    pub(crate) const fn empty() -> Self {
        Self { views: BufMut::empty(), full: Vec::new(), current: BufMut::empty() }
    }

    /// Room for `capacity` values, growing as needed.
    pub(crate) fn new(account: &Account, capacity: usize) -> Result<Self, Denied> {
        let current = BufMut::with_capacity(account, 0)?;
        Ok(Self { views: BufMut::with_capacity(account, capacity)?, full: Vec::new(), current })
    }

    /// The buffer after the current one: larger than it, for at least `bytes`. Where that is refused a smaller one is not
    /// tried: whoever then makes room needs what is left.
    fn next_buffer(&self, account: &Account, bytes: usize) -> Result<BufMut<u8>, Denied> {
        let larger = (self.current.capacity() * 2).clamp(FIRST_BUFFER_BYTES, LARGEST_BUFFER_BYTES);
        BufMut::with_capacity(account, larger.max(bytes))
    }

    /// Appends a value, copying its bytes.
    pub(crate) fn push(&mut self, account: &Account, value: &[u8]) -> Result<(), Denied> {
        if self.views.len() == self.views.capacity() {
            self.views.reserve(account, self.views.len() + 1)?;
        }
        if value.len() > MAX_INLINE_BYTES && value.len() > self.current.capacity() - self.current.len() {
            let next = self.next_buffer(account, value.len())?;
            let full = std::mem::replace(&mut self.current, next);
            if !full.is_empty() {
                self.full.push(full.freeze());
            }
        }
        self.views.push(view_of(value, self.full.len() as u32, self.current.len() as u32));
        if value.len() > MAX_INLINE_BYTES {
            self.current.extend_from_slice(value);
        }
        Ok(())
    }

    /// Appends `count` values, copying their bytes: the one `pick` names for each number below `count`, by its place in
    /// `from` and in that column. After a refusal nothing is appended.
    pub(crate) fn extend_from(
        &mut self,
        account: &Account,
        from: &[&StringViews],
        count: usize,
        pick: impl Fn(usize) -> (usize, usize),
    ) -> Result<(), Denied> {
        let start = self.views.len();
        self.views.reserve(account, start + count)?;
        self.views.set_len(start + count);
        // Views first: nothing waits for them, so several are fetched at a time.
        let mut long_bytes = 0;
        for (at, to) in self.views[start..].iter_mut().enumerate() {
            let (source, row) = pick(at);
            *to = from[source].views[row];
            let len = view_len(*to);
            long_bytes += if len > MAX_INLINE_BYTES { len } else { 0 };
        }
        if long_bytes == 0 {
            return Ok(());
        }
        let mut next = None;
        if long_bytes > self.current.capacity() - self.current.len() {
            let buffer = self.next_buffer(account, long_bytes);
            next = Some(buffer.inspect_err(|_| self.views.set_len(start))?);
        }
        for at in 0..count {
            if let Some(ahead) = self.views.get(start + at + VALUES_AHEAD)
                && view_len(*ahead) > MAX_INLINE_BYTES
                && let Some(byte) = long_place(*ahead, &from[pick(at + VALUES_AHEAD).0].buffers)
            {
                prefetch(byte);
            }
            let view = self.views[start + at];
            let len = view_len(view);
            if len <= MAX_INLINE_BYTES {
                continue;
            }
            if len > self.current.capacity() - self.current.len()
                && let Some(next) = next.take()
            {
                let full = std::mem::replace(&mut self.current, next);
                if !full.is_empty() {
                    self.full.push(full.freeze());
                }
            }
            let (buffer, offset) = (self.full.len() as u32, self.current.len() as u32);
            let value = view_bytes(&view, &from[pick(at).0].buffers);
            self.current.extend_from_slice(value);
            self.views[start + at] =
                u128::from(view as u64) | u128::from(buffer) << 64 | u128::from(offset) << 96;
        }
        Ok(())
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.views.len()
    }

    /// Value `index`. Panics past the end.
    pub(crate) fn get(&self, index: usize) -> &[u8] {
        let view = &self.views[index];
        if view_len(*view) <= MAX_INLINE_BYTES {
            return view_bytes(view, &[]);
        }
        let (buffer, offset) = ((*view >> 64) as u32 as usize, (*view >> 96) as u32 as usize);
        let bytes: &[u8] = self.full.get(buffer).map_or(&self.current, |full| full);
        &bytes[offset..offset + view_len(*view)]
    }

    /// Forgets the values from `len` on; the bytes of long ones stay until the end.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.views.set_len(self.views.len().min(len));
    }

    /// Bytes of memory behind it.
    pub(crate) fn allocated_bytes(&self) -> usize {
        let full: usize = self.full.iter().map(|b| b.len()).sum();
        self.views.allocated_bytes() + full + self.current.allocated_bytes()
    }

    /// Ends building.
    pub(crate) fn freeze(self) -> StringViews {
        let mut buffers = self.full;
        if !self.current.is_empty() {
            buffers.push(self.current.freeze());
        }
        StringViews { views: self.views.freeze(), buffers: buffers.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Pool;

    #[test]
    fn short_and_long_values_come_back() {
        let pool = Pool::new("p", 4 << 20);
        let account = Account::open(&pool, 0, 4096, 0).expect("fits");
        let mut builder = ViewBuilder::new(&account, 1).expect("fits");
        let values: Vec<Vec<u8>> = (0..2000usize).map(|i| vec![i as u8; i % 40]).collect();
        for value in &values {
            builder.push(&account, value).expect("fits");
        }
        let views = builder.freeze();
        assert!(views.buffers.len() > 1);
        for (i, value) in values.iter().enumerate() {
            assert_eq!(views.get(i), value);
        }
    }

    #[test]
    fn values_of_several_columns_come_together() {
        let pool = Pool::new("p", 4 << 20);
        let account = Account::open(&pool, 0, 4096, 0).expect("fits");
        let column = |first: usize| {
            let mut builder = ViewBuilder::new(&account, 1).expect("fits");
            let value = |i: usize| vec![(first + i) as u8; (first + i * 7) % 50];
            (0..300).for_each(|i| builder.push(&account, &value(i)).expect("fits"));
            builder.freeze()
        };
        let columns = [column(0), column(5)];
        let from: Vec<&StringViews> = columns.iter().collect();
        let pick = |at: usize| (at % 2, at * 7919 % 300);
        let mut builder = ViewBuilder::new(&account, 0).expect("fits");
        for _ in 0..40 {
            builder.extend_from(&account, &from, 250, pick).expect("fits");
        }
        let tight = Account::open(&Pool::new("tight", 8 << 10), 0, 4096, 0).expect("fits");
        let mut held = builder.len();
        while builder.extend_from(&tight, &from, 250, pick).is_ok() {
            held = builder.len();
        }
        assert_eq!(builder.len(), held, "nothing is appended after a refusal");
        let built = builder.freeze();
        for at in 0..held {
            let (source, row) = pick(at % 250);
            assert_eq!(built.get(at), from[source].get(row));
        }
    }
}
