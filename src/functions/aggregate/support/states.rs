//! Arrays of states, one per group.

use crate::data::{Bitmap, BitmapMut, Buf, BufMut, FlatVector, Plain, Values, Vector};
use crate::functions::aggregate::GroupSet;
use crate::mem::{Account, Denied};
use std::ops::{Deref, DerefMut};

/// One value per group.
pub(crate) struct States<T: Plain>(BufMut<T>);

impl<T: Plain> States<T> {
    /// No groups.
    pub(crate) fn new() -> Self {
        Self(BufMut::empty())
    }

    /// Makes room for `groups` groups, new ones starting as `start`.
    pub(crate) fn resize(&mut self, groups: usize, start: T, account: &Account) -> Result<(), Denied> {
        let before = self.0.len();
        if groups > before {
            self.0.reserve(account, groups)?;
            self.0.set_len(groups);
            self.0[before..].fill(start);
        }
        Ok(())
    }

    /// The states of `groups`, in order.
    pub(crate) fn gather(&self, groups: GroupSet<'_>, account: &Account) -> Result<Buf<T>, Denied> {
        self.map(groups, account, |state| state)
    }

    /// `f` of the states of `groups`, in order.
    pub(crate) fn map<U: Plain>(
        &self,
        groups: GroupSet<'_>,
        account: &Account,
        f: impl Fn(T) -> U,
    ) -> Result<Buf<U>, Denied> {
        let mut out = BufMut::with_len(account, groups.len())?;
        let states: &[T] = &self.0;
        for (i, to) in out.iter_mut().enumerate() {
            *to = f(states[groups.group(i)]);
        }
        Ok(out.freeze())
    }

    /// Forgets all groups and their memory.
    pub(crate) fn clear(&mut self) {
        self.0 = BufMut::empty();
    }

    /// Bytes of memory behind it.
    pub(crate) fn allocated_bytes(&self) -> usize {
        self.0.allocated_bytes()
    }
}

impl<T: Plain> Deref for States<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Plain> DerefMut for States<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// Ones for the groups for which `is_valid`; `None` if all are.
pub(crate) fn validity(
    groups: GroupSet<'_>,
    account: &Account,
    is_valid: impl Fn(usize) -> bool,
) -> Result<Option<Bitmap>, Denied> {
    if (0..groups.len()).all(|i| is_valid(groups.group(i))) {
        return Ok(None);
    }
    let mut bits = BitmapMut::with_len(account, groups.len())?;
    bits.fill_from(|i| is_valid(groups.group(i)));
    Ok(Some(bits.freeze()))
}

/// A vector of one value per group.
pub(crate) fn vector(values: Values, validity: Option<Bitmap>) -> Vector {
    Vector::Flat(FlatVector { values, validity, bounds: None })
}
