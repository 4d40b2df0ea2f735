//! Strings of one key column by number, so that keys with strings are words of fixed width.
//!
//! Invariants:
//! 1. Equal strings have equal codes within one interner; between two of them codes mean nothing.
//! 2. The hash of a code is that of its string alone: the same in all lanes.
//! 3. A refusal of memory leaves strings that have codes already, and no code without its string.

use super::keys::{KeyColumn, resize};
use super::slots::{NO_GROUP, Slots};
use crate::data::hash::{bytes_hasher, hash_bytes};
use crate::data::{BufMut, Dictionary, DictionaryIds, FlatVector, StringViews, Values, Vector, ViewBuilder};
use crate::error::Error;
use crate::functions::aggregate::Rows;
use crate::mem::{Account, Denied};
use foldhash::quality::FixedState;
use std::sync::{Arc, OnceLock};

/// No code is known for an entry of a translation.
const UNSET: u32 = u32::MAX;

/// The strings of one column.
pub(super) struct Interner {
    strings: ViewBuilder,
    hashes: BufMut<u64>,
    slots: Slots,
    hasher: FixedState,
    /// Codes of the dictionary whose batches come.
    dictionary: Translation<u64>,
    /// Codes of other interners' codes, one translation for each seen since the last clear.
    others: Vec<Translation<Arc<()>>>,
    /// What others know this interner by.
    identity: Arc<()>,
    /// Codes of the batch's rows; scratch.
    codes: BufMut<u32>,
    /// The strings as emitted, until there are more.
    frozen: OnceLock<Arc<Dictionary>>,
}

/// Codes in place of numbers that somebody else gave strings.
struct Translation<T> {
    of: Option<T>,
    codes: BufMut<u32>,
}

impl<T: PartialEq> Translation<T> {
    const fn none() -> Self {
        Self { of: None, codes: BufMut::empty() }
    }

    /// Begins to translate `len` numbers of `of`, unless it does already.
    fn begin(&mut self, of: T, len: usize, account: &Account) -> Result<(), Denied> {
        if self.of.as_ref() != Some(&of) {
            self.of = None;
            resize(&mut self.codes, len, account)?;
            self.codes.fill(UNSET);
            self.of = Some(of);
        }
        Ok(())
    }
}

impl Interner {
    /// No strings.
    pub(super) fn new() -> Self {
        Self {
            strings: ViewBuilder::empty(),
            hashes: BufMut::empty(),
            slots: Slots::new(),
            hasher: bytes_hasher(),
            dictionary: Translation::none(),
            others: Vec::new(),
            identity: Arc::new(()),
            codes: BufMut::empty(),
            frozen: OnceLock::new(),
        }
    }

    /// The hash of a code's string.
    #[inline(always)]
    pub(super) fn hash(&self, code: u32) -> u64 {
        self.hashes[code as usize]
    }

    /// The codes of the last batch.
    #[inline(always)]
    pub(super) fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// Gives the rows that count their codes, for [`codes`](Self::codes); nulls have 0, which means nothing.
    pub(super) fn encode(
        &mut self,
        vector: &Vector,
        rows: Rows<'_>,
        account: &Account,
    ) -> Result<(), super::keys::Halt> {
        let mut codes = std::mem::replace(&mut self.codes, BufMut::empty());
        let encoded = resize(&mut codes, rows.len(), account)
            .map_err(super::keys::Halt::from)
            .and_then(|()| self.encode_into(vector, rows, &mut codes, account));
        self.codes = codes;
        encoded
    }

    fn encode_into(
        &mut self,
        vector: &Vector,
        rows: Rows<'_>,
        to: &mut [u32],
        account: &Account,
    ) -> Result<(), super::keys::Halt> {
        let (strings, entries, validity) = match KeyColumn::new(vector) {
            KeyColumn::Constant(value) => {
                let code = value.as_bytes().map_or(Ok(0), |string| self.intern(string, account))?;
                to.fill(code);
                return Ok(());
            }
            KeyColumn::Values { values: Values::View(strings), codes, validity } => {
                (strings, codes, validity)
            }
            KeyColumn::Values { .. } => {
                return Err(Error::internal("a string group key has other values").into());
            }
        };
        let is_null = |row: usize| validity.is_some_and(|validity| !validity.get(row));
        let Some(entries) = entries else {
            for (k, to) in to.iter_mut().enumerate() {
                let row = rows.position(k);
                *to = if is_null(row) { 0 } else { self.intern(strings.get(row), account)? };
            }
            return Ok(());
        };
        let mut known = std::mem::replace(&mut self.dictionary, Translation::none());
        // Without memory for a translation strings are looked up one by one.
        let has_known = match vector {
            Vector::Dict { dictionary, .. } => {
                known.begin(dictionary.id(), dictionary.len(), account).is_ok()
            }
            Vector::Flat(_) | Vector::Constant { .. } => false,
        };
        let mut code_of = |entry: usize| {
            if !has_known {
                return self.intern(strings.get(entry), account);
            }
            let code = &mut known.codes[entry];
            if *code == UNSET {
                *code = self.intern(strings.get(entry), account)?;
            }
            Ok(*code)
        };
        let mut encode = || -> Result<(), Denied> {
            for (k, to) in to.iter_mut().enumerate() {
                let row = rows.position(k);
                *to = if is_null(row) { 0 } else { code_of(entries[row] as usize)? };
            }
            Ok(())
        };
        let encoded = encode();
        self.dictionary = known;
        Ok(encoded?)
    }

    /// Makes ready to translate codes of `other`; without memory for that they are looked up one by one.
    pub(super) fn meet(&mut self, other: &Self, account: &Account) {
        let is_known = |known: &Translation<Arc<()>>| {
            known.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, &other.identity))
        };
        let at = self.others.iter().position(is_known).unwrap_or_else(|| {
            let mut codes = BufMut::empty();
            if resize(&mut codes, other.hashes.len(), account).is_ok() {
                codes.fill(UNSET);
            }
            self.others.push(Translation { of: Some(Arc::clone(&other.identity)), codes });
            self.others.len() - 1
        });
        let last = self.others.len() - 1;
        self.others.swap(at, last);
    }

    /// The code of what is `code` in `other`, which was met last.
    #[inline]
    pub(super) fn translate(&mut self, other: &Self, code: u32, account: &Account) -> Result<u32, Denied> {
        let known = |this: &mut Self| {
            this.others.last_mut().and_then(|other| other.codes.get_mut(code as usize).map(|c| *c))
        };
        if let Some(known) = known(self).filter(|code| *code != UNSET) {
            return Ok(known);
        }
        let own = self.intern(other.strings.get(code as usize), account)?;
        if let Some(entry) = self.others.last_mut().and_then(|other| other.codes.get_mut(code as usize)) {
            *entry = own;
        }
        Ok(own)
    }

    /// The code of a string, a new one if it has none.
    #[inline]
    fn intern(&mut self, string: &[u8], account: &Account) -> Result<u32, Denied> {
        let hash = hash_bytes(&self.hasher, string);
        let found = self.slots.find_one(hash, |code| self.strings.get(code as usize) == string);
        if found != NO_GROUP { Ok(found) } else { self.add(string, hash, account) }
    }

    #[cold]
    fn add(&mut self, string: &[u8], hash: u64, account: &Account) -> Result<u32, Denied> {
        let count = self.hashes.len();
        if self.hashes.capacity() == count {
            self.hashes.reserve(account, count + 1)?;
        }
        let hashes: &[u64] = &self.hashes;
        self.slots.reserve(count, 1, |code| hashes[code], account, || Ok::<(), Denied>(()))?;
        self.strings.push(account, string)?;
        self.hashes.push(hash);
        self.slots.put_one(hash, count as u32);
        self.frozen = OnceLock::new();
        Ok(count as u32)
    }

    /// Strings of codes as a column of their own.
    pub(super) fn gather(
        &self,
        len: usize,
        code: impl Fn(usize) -> Option<u32>,
        account: &Account,
    ) -> Result<StringViews, Denied> {
        let mut strings = ViewBuilder::new(account, len)?;
        for i in 0..len {
            let string = code(i).map_or(&[][..], |code| self.strings.get(code as usize));
            strings.push(account, string)?;
        }
        Ok(strings.freeze())
    }

    /// All strings as a dictionary, unless there are none or they are many beside `rows` of a batch.
    pub(super) fn dictionary(
        &self,
        rows: usize,
        ids: &DictionaryIds,
        account: &Account,
    ) -> Result<Option<Arc<Dictionary>>, Denied> {
        if let Some(frozen) = self.frozen.get() {
            return Ok(Some(Arc::clone(frozen)));
        }
        // Codes of nulls point somewhere too, so there must be a string.
        if self.strings.len() == 0 || self.strings.len() > rows / 2 {
            return Ok(None);
        }
        let len = self.strings.len();
        let strings = self.gather(len, |code| Some(code as u32), account)?;
        let dictionary = Dictionary::new(ids, FlatVector::new(Values::View(strings)));
        Ok(Some(Arc::clone(self.frozen.get_or_init(|| Arc::new(dictionary)))))
    }

    /// Forgets everything and gives the memory back.
    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Bytes of memory behind it.
    pub(super) fn allocated_bytes(&self) -> usize {
        let others: usize = self.others.iter().map(|other| other.codes.allocated_bytes()).sum();
        self.strings.allocated_bytes()
            + self.hashes.allocated_bytes()
            + self.slots.allocated_bytes()
            + self.dictionary.codes.allocated_bytes()
            + others
    }
}
