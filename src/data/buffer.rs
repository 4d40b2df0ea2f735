//! Typed buffers over slabs.
//!
//! Invariants:
//! 1. A [`Buf`]'s pointer stays valid and its bytes unchanged while its owner lives, and the owner lives as long as
//!    any clone; a slab's mapping never moves while it is shared.
//! 2. `len · size_of::<T>()` bytes from the pointer lie inside the owner, aligned for `T`.
//! 3. Slab memory is initialised (mem invariant), and every bit pattern is a valid [`Plain`].

use crate::mem::{Account, Denied, Slab};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Types for which any bit pattern is a value.
///
/// # Safety
/// Every bit pattern of `size_of::<Self>()` bytes must be a valid value without padding; the default is all zeros.
pub(crate) unsafe trait Plain:
    Copy + Default + PartialEq + fmt::Debug + Send + Sync + 'static
{
}
macro_rules! plain { ($($t:ty),*) => { $(
    // SAFETY: primitive numbers have no invalid bit patterns and no padding.
    unsafe impl Plain for $t {}
)* } }
plain!(i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, f32, f64);

#[derive(Clone)]
enum Owner {
    Empty,
    Slab(Arc<Slab>),
    Arrow(#[expect(dead_code, reason = "held for its drop")] arrow::buffer::Buffer),
}

/// An immutable, shared slice of plain values.
pub(crate) struct Buf<T: Plain> {
    start: *const T,
    len: usize,
    owner: Owner,
}

// SAFETY: invariant 1: the bytes are never written while shared; owners are Send + Sync.
unsafe impl<T: Plain> Send for Buf<T> {}
// SAFETY: as above.
unsafe impl<T: Plain> Sync for Buf<T> {}

impl<T: Plain> Buf<T> {
    /// No values.
    pub(crate) fn empty() -> Self {
        Self { start: std::ptr::NonNull::dangling().as_ptr(), len: 0, owner: Owner::Empty }
    }

    /// Shares an Arrow buffer's bytes; `None` if they are not aligned for `T` or not a whole number of values.
    pub(crate) fn from_arrow(buffer: arrow::buffer::Buffer) -> Option<Self> {
        let start = buffer.as_ptr().cast::<T>();
        let len = buffer.len() / size_of::<T>();
        let fits = start.is_aligned() && buffer.len().is_multiple_of(size_of::<T>());
        fits.then_some(Self { start, len, owner: Owner::Arrow(buffer) })
    }

    /// Whether its bytes are charged: they lie in a slab.
    pub(crate) fn is_owned(&self) -> bool {
        match self.owner {
            Owner::Empty | Owner::Slab(_) => true,
            Owner::Arrow(_) => false,
        }
    }

    /// The same values in a slab: shared if they lie in one, else copied.
    pub(crate) fn owned(&self, account: &Account) -> Result<Self, Denied> {
        if self.is_owned() { Ok(self.clone()) } else { Ok(BufMut::copy_of(account, self)?.freeze()) }
    }

    /// Shares a part. Panics if the range is out of bounds.
    pub(crate) fn slice(&self, start: usize, len: usize) -> Self {
        let part = &self[start..start + len];
        Self { start: part.as_ptr(), len, owner: self.owner.clone() }
    }

    /// The slab's memory to write again, if nobody else shares it.
    pub(crate) fn try_into_mut(self) -> Option<BufMut<T>> {
        let Owner::Slab(slab) = self.owner else { return None };
        let slab = Arc::into_inner(slab)?;
        Some(BufMut { capacity: slab.len() / size_of::<T>(), len: 0, slab: Some(slab), marker: PhantomData })
    }

    /// The first `len` values of another type in the same bytes; `None` if they are not aligned or not that many.
    pub(crate) fn cast<U: Plain>(&self, len: usize) -> Option<Buf<U>> {
        let start = self.start.cast::<U>();
        let fits = len.checked_mul(size_of::<U>()).is_some_and(|bytes| bytes <= self.as_bytes().len());
        (fits && start.is_aligned()).then(|| Buf { start, len, owner: self.owner.clone() })
    }

    /// An Arrow buffer over the same bytes, which keeps them alive.
    pub(crate) fn to_arrow(&self) -> arrow::buffer::Buffer {
        if self.len == 0 {
            return arrow::buffer::Buffer::from_vec(Vec::<u8>::new());
        }
        let start = std::ptr::NonNull::from(&**self).cast::<u8>();
        // SAFETY: invariants 1 and 2: the range is valid for as long as the owner passed along lives.
        unsafe {
            let owner = Arc::new(self.clone());
            arrow::buffer::Buffer::from_custom_allocation(start, self.len * size_of::<T>(), owner)
        }
    }

    /// The values as raw bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: invariants 2 and 3; `Plain` has no padding.
        unsafe { std::slice::from_raw_parts(self.start.cast(), self.len * size_of::<T>()) }
    }
}

impl<T: Plain> Clone for Buf<T> {
    fn clone(&self) -> Self {
        Self { start: self.start, len: self.len, owner: self.owner.clone() }
    }
}

impl<T: Plain> Deref for Buf<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: invariants 1 to 3.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T: Plain> fmt::Debug for Buf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

// SAFETY contract for arrow's `Allocation`: a blanket impl covers `RefUnwindSafe + Send + Sync`.
impl<T: Plain> std::panic::RefUnwindSafe for Buf<T> {}
impl<T: Plain> std::panic::UnwindSafe for Buf<T> {}

/// A buffer being written: `len` values of a fixed capacity in one slab.
pub(crate) struct BufMut<T: Plain> {
    slab: Option<Slab>,
    len: usize,
    capacity: usize,
    marker: PhantomData<T>,
}

impl<T: Plain> BufMut<T> {
    /// No values and no room for any.
    pub(crate) const fn empty() -> Self {
        Self { slab: None, len: 0, capacity: 0, marker: PhantomData }
    }

    /// Room for at least `capacity` values, none written.
    pub(crate) fn with_capacity(account: &Account, capacity: usize) -> Result<Self, Denied> {
        if capacity == 0 {
            return Ok(Self::empty());
        }
        let slab = account.alloc(capacity * size_of::<T>())?;
        Ok(Self { capacity: slab.len() / size_of::<T>(), len: 0, slab: Some(slab), marker: PhantomData })
    }

    /// `len` values of unspecified content, to be overwritten.
    pub(crate) fn with_len(account: &Account, len: usize) -> Result<Self, Denied> {
        let mut buf = Self::with_capacity(account, len)?;
        buf.set_len(len);
        Ok(buf)
    }

    /// `len` zeros.
    pub(crate) fn zeroed(account: &Account, len: usize) -> Result<Self, Denied> {
        if len == 0 {
            return Ok(Self::empty());
        }
        let slab = account.alloc_zeroed(len * size_of::<T>())?;
        Ok(Self { capacity: slab.len() / size_of::<T>(), len, slab: Some(slab), marker: PhantomData })
    }

    /// A buffer holding `values`.
    pub(crate) fn copy_of(account: &Account, values: &[T]) -> Result<Self, Denied> {
        let mut buf = Self::with_len(account, values.len())?;
        buf.copy_from_slice(values);
        Ok(buf)
    }

    /// Values it has room for.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sets the length; values it uncovers have unspecified content. Panics past the capacity.
    pub(crate) fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "length {len} past capacity {}", self.capacity);
        self.len = len;
    }

    /// Appends a value. Panics past the capacity.
    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        let at = self.len;
        self.set_len(at + 1);
        self[at] = value;
    }

    /// Appends values. Panics past the capacity.
    pub(crate) fn extend_from_slice(&mut self, values: &[T]) {
        let at = self.len;
        self.set_len(at + values.len());
        self[at..].copy_from_slice(values);
    }

    /// Makes room for at least `capacity` values; doubles at least. What is written stays, moved or copied.
    pub(crate) fn reserve(&mut self, account: &Account, capacity: usize) -> Result<(), Denied> {
        if capacity <= self.capacity {
            return Ok(());
        }
        let capacity = capacity.max(self.capacity * 2);
        if let Some(slab) = &mut self.slab
            && account.grow(slab, capacity * size_of::<T>())?
        {
            self.capacity = slab.len() / size_of::<T>();
            return Ok(());
        }
        let mut larger = Self::with_capacity(account, capacity)?;
        larger.extend_from_slice(self);
        *self = larger;
        Ok(())
    }

    /// Ends writing.
    pub(crate) fn freeze(self) -> Buf<T> {
        match self.slab {
            None => Buf::empty(),
            Some(slab) => {
                let start = slab.bytes().as_ptr().cast();
                Buf { start, len: self.len, owner: Owner::Slab(Arc::new(slab)) }
            }
        }
    }

    /// Bytes of memory behind it.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.slab.as_ref().map_or(0, Slab::len)
    }
}

impl<T: Plain> Deref for BufMut<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match &self.slab {
            None => &[],
            // SAFETY: `len ≤ capacity` values lie in the page-aligned, initialised slab.
            Some(slab) => unsafe { std::slice::from_raw_parts(slab.bytes().as_ptr().cast(), self.len) },
        }
    }
}

impl<T: Plain> DerefMut for BufMut<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.slab {
            None => &mut [],
            // SAFETY: as for `deref`; the slab is borrowed mutably.
            Some(slab) => unsafe {
                std::slice::from_raw_parts_mut(slab.bytes_mut().as_mut_ptr().cast(), self.len)
            },
        }
    }
}

impl<T: Plain> fmt::Debug for BufMut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Pool;

    #[test]
    fn buffers_are_shared_sliced_and_reused() {
        let pool = Pool::new("p", 1 << 20);
        let account = Account::open(&pool, 0, 4096, 1 << 20).expect("fits");
        let mut buf = BufMut::<i64>::with_capacity(&account, 100).expect("fits");
        for i in 0..100 {
            buf.push(i);
        }
        buf.reserve(&account, 1000).expect("fits");
        let buf = buf.freeze();
        let part = buf.slice(10, 5);
        assert_eq!(&*part, &[10, 11, 12, 13, 14]);
        let arrow = part.to_arrow();
        drop((buf, part));
        assert_eq!(arrow.typed_data::<i64>()[4], 14);
        let back = Buf::<i64>::from_arrow(arrow).expect("aligned");
        assert_eq!(back[0], 10);
        drop(back);
        let sole = BufMut::<i64>::zeroed(&account, 3).expect("fits").freeze();
        let shared = sole.clone();
        assert!(sole.try_into_mut().is_none());
        assert!(shared.try_into_mut().is_some());
    }
}
