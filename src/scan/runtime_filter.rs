//! What the build side of a join knows of its keys, for scans that feed the probe side.
//!
//! Owns: [`RuntimeFilterSpec`] (planned), [`RuntimeFilter`] (one run of it).
//!
//! Keys that are integers of a known, small enough range are bits by value; others are bits of a Bloom filter whose
//! blocks are single words (Putze, Sanders, Singler: "Cache-, Hash- and Space-Efficient Bloom Filters", 2007), so that
//! adding or testing a key touches one cache line.
//!
//! Invariants:
//! 1. A filter is used only after all build rows are in it: whoever scans waits for the pipeline that collects. Then
//!    it drops no row whose key the build side has. It may pass others, so the join tests again.
//! 2. It is never needed: if memory for it is refused, or it is too full to tell keys apart, everything passes.
//! 3. A row whose key is null passes never; keys for which two nulls are equal have no filter.

use crate::data::hash::{bytes_hasher, hash_bytes, hash_word};
use crate::data::key_bits::KeyBits;
use crate::data::{
    AtomicWords, Bitmap, Buf, BufMut, DataType, PhysicalType, Selection, Values, Vector, for_each_values,
};
use crate::mem::{Account, Denied};
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Bits of a Bloom filter for each key expected: about one key in fifty that is not there passes.
const BLOOM_BITS_PER_KEY: u64 = 16;
/// With so few, where memory is short, about one in five passes; with fewer it is not worth testing.
const LEAST_BITS_PER_KEY: u64 = 4;
const LEAST_BLOOM_WORDS: u64 = 128;
/// No filter is larger: it would not stay in any cache.
const LARGEST_BYTES: u64 = 8 << 20;
/// Nor larger than one part in so many of the memory limit.
const SHARE_OF_LIMIT: u64 = 32;
/// Wider ranges are not looked through for a key: one is likely to be there.
const MOST_BITS_LOOKED_AT: u64 = 4 << 20;

/// A filter as planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RuntimeFilterSpec {
    /// Unique in its plan.
    pub(crate) id: usize,
    /// Type of the key.
    pub(crate) data_type: DataType,
    /// Where the values of the filtered column lie, if they are integers and that is known.
    pub(crate) range: Option<RangeInclusive<i64>>,
    /// About how many build rows there are.
    pub(crate) expected_rows: u64,
}

impl RuntimeFilterSpec {
    /// Whether keys of a type can be filtered by.
    pub(crate) fn is_possible(data_type: &DataType) -> bool {
        Form::of(data_type).is_some()
    }
}

/// How a value becomes a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// An integer, as its bits.
    Integer,
    /// Bytes, as their hash.
    Bytes,
}

impl Form {
    fn of(data_type: &DataType) -> Option<Self> {
        use PhysicalType as P;
        match data_type.physical() {
            P::I8 | P::I16 | P::I32 | P::I64 | P::U8 | P::U16 | P::U32 => Some(Self::Integer),
            P::View => Some(Self::Bytes),
            // What does not surely fit an i64 keeps no order as a word; floats are rarely keys.
            P::I128 | P::U64 | P::Bool | P::F32 | P::F64 | P::Nested => None,
        }
    }
}

/// The keys of one build side.
pub(crate) struct RuntimeFilter {
    spec: RuntimeFilterSpec,
    form: Option<Form>,
    /// Empty if there was no memory for it.
    keys: OnceLock<KeySet>,
}

/// Keys as bits; several lanes add to them.
struct KeySet {
    layout: Layout,
    words: AtomicWords,
    rows: AtomicUsize,
    /// Of integers, the least and greatest.
    low: AtomicI64,
    high: AtomicI64,
}

enum Layout {
    /// Bit `v - first` stands for value `v`; there are `len`.
    Range { first: i64, len: u64 },
    /// Four bits of one word stand for a value, by its hash.
    Bloom,
}

impl KeySet {
    /// Whether it may have a key in `low..=high`.
    fn may_have_any(&self, low: i64, high: i64) -> bool {
        let Layout::Range { first, len } = self.layout else { return true };
        let place = |value: i64| value.checked_sub(first).and_then(|at| u64::try_from(at).ok());
        let (Some(low), Some(high)) = (place(low), place(high)) else { return true };
        if high >= len || high - low > MOST_BITS_LOOKED_AT {
            return true;
        }
        let words = self.words.as_slice();
        let (first_word, last_word) = (low / 64, high / 64);
        (first_word..=last_word).any(|at| {
            let above = if at == first_word { u64::MAX << (low % 64) } else { u64::MAX };
            let below = if at == last_word { u64::MAX >> (63 - high % 64) } else { u64::MAX };
            words[at as usize].load(Relaxed) & above & below != 0
        })
    }
}

impl RuntimeFilter {
    /// A filter nothing is collected for yet.
    pub(crate) fn new(spec: RuntimeFilterSpec) -> Self {
        let form = Form::of(&spec.data_type);
        Self { spec, form, keys: OnceLock::new() }
    }

    /// Makes room for keys in `account`, unless that would take too much of the memory there is.
    pub(crate) fn open(&self, account: &Account) {
        let Some(form) = self.form else { return };
        let most_bytes = LARGEST_BYTES.min(account.pool().limit_bytes() as u64 / SHARE_OF_LIMIT);
        let range = self.spec.range.as_ref().filter(|_| form == Form::Integer).and_then(|range| {
            let len = range.end().checked_sub(*range.start())?.checked_add(1)?;
            let len = u64::try_from(len).ok().filter(|len| len.div_ceil(8) <= most_bytes)?;
            Some((Layout::Range { first: *range.start(), len }, len.div_ceil(64)))
        });
        let Some((layout, words)) = range
            .or_else(|| bloom_words(self.spec.expected_rows, most_bytes).map(|words| (Layout::Bloom, words)))
        else {
            return;
        };
        if let Ok(words) = AtomicWords::zeroed(account, words as usize) {
            let (low, high) = (AtomicI64::new(i64::MAX), AtomicI64::new(i64::MIN));
            // Opened once; a second time nothing would change.
            let _ = self.keys.set(KeySet { layout, words, rows: AtomicUsize::new(0), low, high });
        }
    }

    /// Adds the keys of the selected rows.
    pub(crate) fn add(
        &self,
        keys: &Vector,
        selection: Option<&Selection>,
        account: &Account,
    ) -> Result<(), Denied> {
        let Some(set) = self.keys.get() else { return Ok(()) };
        let (rows, positions) = (keys.len(), selection.map(Selection::indices));
        set.rows.fetch_add(positions.map_or(rows, <[u32]>::len), Relaxed);
        each_word(keys, account, AddWords { set, rows, positions, form: self.form })
    }

    /// The positions of rows whose key may be there; `None` for all.
    pub(crate) fn select(&self, keys: &Vector, account: &Account) -> Result<Option<Buf<u32>>, Denied> {
        let Some(set) = self.usable() else { return Ok(None) };
        let mut positions = BufMut::with_len(account, keys.len())?;
        let mut passed = 0;
        let test = TestWords { set, rows: keys.len(), positions: &mut positions, passed: &mut passed };
        each_word(keys, account, test)?;
        if passed == keys.len() {
            return Ok(None);
        }
        positions.set_len(passed);
        Ok(Some(positions.freeze()))
    }

    /// Whether it can drop anything.
    pub(crate) fn is_usable(&self) -> bool {
        self.usable().is_some()
    }

    /// Whether an integer key in `range` may be there; of other keys, any key.
    pub(crate) fn may_have(&self, range: Option<(i64, i64)>) -> bool {
        let Some(set) = self.usable() else { return true };
        if set.rows.load(Relaxed) == 0 {
            return false;
        }
        match (range, self.form) {
            (Some((min, max)), Some(Form::Integer)) => {
                let (low, high) = (set.low.load(Relaxed).max(min), set.high.load(Relaxed).min(max));
                low <= high && set.may_have_any(low, high)
            }
            (_, _) => true,
        }
    }

    fn usable(&self) -> Option<&KeySet> {
        let set = self.keys.get()?;
        let is_full = match set.layout {
            Layout::Range { .. } => false,
            Layout::Bloom => {
                set.words.as_slice().len() as u64 * 64 < set.rows.load(Relaxed) as u64 * LEAST_BITS_PER_KEY
            }
        };
        (!is_full).then_some(set)
    }
}

/// Words for `keys` keys: as many as serve them well, or as `most_bytes` hold; none if these are too few.
fn bloom_words(keys: u64, most_bytes: u64) -> Option<u64> {
    let bits = keys.saturating_mul(BLOOM_BITS_PER_KEY).min(LARGEST_BYTES * 8);
    let wanted = (bits / 64).next_power_of_two().max(LEAST_BLOOM_WORDS);
    let most = (most_bytes / 8).checked_ilog2().map_or(0, |log| 1 << log);
    let words = wanted.min(most);
    (words >= LEAST_BLOOM_WORDS && words * 64 >= keys.saturating_mul(LEAST_BITS_PER_KEY)).then_some(words)
}

/// The four bits of a hash in its word.
#[inline(always)]
fn bloom_bits(hash: u64) -> u64 {
    1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63) | 1 << (hash >> 18 & 63)
}

/// The word of a hash among `words`, whose number is a power of two.
#[inline(always)]
fn bloom_word(words: &[AtomicU64], hash: u64) -> &AtomicU64 {
    &words[(hash >> 32) as usize & (words.len() - 1)]
}

/// What is done to the words of a vector's values: once for each representation, so that loops know it.
trait WordVisitor {
    fn visit(self, validity: Option<&Bitmap>, word: impl Fn(usize) -> u64);
}

/// Calls `visitor` with the words of a vector's values.
fn each_word(keys: &Vector, account: &Account, visitor: impl WordVisitor) -> Result<(), Denied> {
    let constant;
    let (values, codes, validity): (&Values, Option<&[u32]>, Option<&Bitmap>) = match keys {
        Vector::Flat(flat) => (&flat.values, None, flat.validity.as_ref()),
        Vector::Dict { codes, validity, dictionary } => {
            (&dictionary.values().values, Some(codes), validity.as_ref())
        }
        Vector::Constant { .. } => {
            constant = keys.flatten(account)?;
            (&constant.values, None, constant.validity.as_ref())
        }
    };
    for_each_values!(
        values,
        fixed(v, V) => match codes {
            None => visitor.visit(validity, |row| v[row].key_bits() as u64),
            Some(codes) => visitor.visit(validity, |row| v[codes[row] as usize].key_bits() as u64),
        },
        bool(b) => visitor.visit(validity, |row| b.get(codes.map_or(row, |c| c[row] as usize)).into()),
        view(s) => {
            let hasher = bytes_hasher();
            visitor.visit(validity, |row| hash_bytes(&hasher, s.get(codes.map_or(row, |c| c[row] as usize))));
        },
        // No filter is planned for them.
        nested(n) => debug_assert!(n.is_empty(), "nested values as keys"),
    );
    Ok(())
}

struct AddWords<'a> {
    set: &'a KeySet,
    rows: usize,
    positions: Option<&'a [u32]>,
    form: Option<Form>,
}

impl WordVisitor for AddWords<'_> {
    #[inline(always)]
    fn visit(self, validity: Option<&Bitmap>, word: impl Fn(usize) -> u64) {
        let Self { set, rows, positions, form } = self;
        let words = set.words.as_slice();
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        for k in 0..positions.map_or(rows, <[u32]>::len) {
            let row = positions.map_or(k, |positions| positions[k] as usize);
            if validity.is_some_and(|valid| !valid.get(row)) {
                continue;
            }
            let word = word(row);
            (low, high) = (low.min(word as i64), high.max(word as i64));
            match set.layout {
                Layout::Range { first, len } => {
                    let place = (word as i64).wrapping_sub(first) as u64;
                    if place < len {
                        set.words.set_bit(place as usize);
                    }
                }
                Layout::Bloom => {
                    let hash = hash_word(word);
                    let (to, bits) = (bloom_word(words, hash), bloom_bits(hash));
                    if to.load(Relaxed) & bits != bits {
                        to.fetch_or(bits, Relaxed);
                    }
                }
            }
        }
        if form == Some(Form::Integer) {
            set.low.fetch_min(low, Relaxed);
            set.high.fetch_max(high, Relaxed);
        }
    }
}

struct TestWords<'a> {
    set: &'a KeySet,
    rows: usize,
    positions: &'a mut [u32],
    passed: &'a mut usize,
}

impl WordVisitor for TestWords<'_> {
    #[inline(always)]
    fn visit(self, validity: Option<&Bitmap>, word: impl Fn(usize) -> u64) {
        let Self { set, rows, positions, passed } = self;
        let words = set.words.as_slice();
        let mut count = 0;
        let is_valid = |row: usize| validity.is_none_or(|valid| valid.get(row));
        match set.layout {
            Layout::Range { first, len } => {
                let known = set.low.load(Relaxed)..=set.high.load(Relaxed);
                for row in 0..rows {
                    let value = word(row) as i64;
                    let place = value.wrapping_sub(first) as u64;
                    let passes = if place < len {
                        words[place as usize / 64].load(Relaxed) >> (place % 64) & 1 == 1
                    } else {
                        // The statistics the range comes from speak of another column.
                        known.contains(&value)
                    };
                    positions[count] = row as u32;
                    count += usize::from(passes & is_valid(row));
                }
            }
            Layout::Bloom => {
                for row in 0..rows {
                    let hash = hash_word(word(row));
                    let bits = bloom_bits(hash);
                    let passes = bloom_word(words, hash).load(Relaxed) & bits == bits;
                    positions[count] = row as u32;
                    count += usize::from(passes & is_valid(row));
                }
            }
        }
        *passed = count;
    }
}

impl std::fmt::Debug for RuntimeFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeFilter")
            .field("spec", &self.spec)
            .field("rows", &self.keys.get().map(|keys| keys.rows.load(Relaxed)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{BitmapMut, FlatVector, ViewBuilder};
    use crate::mem::Pool;

    fn account(limit_bytes: usize) -> Account {
        Account::open(&Pool::new("test", limit_bytes), 0, 4096, 0).expect("a floor of nothing fits")
    }

    fn ints(account: &Account, values: &[i64], nulls: &[usize]) -> Vector {
        let data = Values::I64(BufMut::copy_of(account, values).expect("fits").freeze());
        let mut bits = BitmapMut::with_len(account, values.len()).expect("fits");
        bits.fill_from(|row| !nulls.contains(&row));
        let validity = (!nulls.is_empty()).then(|| bits.freeze());
        Vector::Flat(FlatVector { values: data, validity, bounds: None })
    }

    fn filter(range: Option<RangeInclusive<i64>>, expected_rows: u64) -> RuntimeFilter {
        RuntimeFilter::new(RuntimeFilterSpec { id: 0, data_type: DataType::Int64, range, expected_rows })
    }

    fn passed(filter: &RuntimeFilter, keys: &Vector, account: &Account) -> Vec<u32> {
        let all = || (0..keys.len() as u32).collect();
        filter.select(keys, account).expect("fits").map_or_else(all, |positions| positions.to_vec())
    }

    #[test]
    fn keys_of_a_range_are_exact() {
        let account = account(64 << 20);
        let filter = filter(Some(0..=999), 3);
        filter.open(&account);
        filter.add(&ints(&account, &[5, 700, -3, 9], &[3]), None, &account).expect("fits");
        let probe = ints(&account, &[4, 5, 700, 9, -3, -4, 2000], &[]);
        // -3 lies outside the range but between the least and greatest key.
        assert_eq!(passed(&filter, &probe, &account), [1, 2, 4]);
        let probe = ints(&account, &[5, 5], &[0]);
        assert_eq!(passed(&filter, &probe, &account), [1], "a null matches nothing");
        assert!(filter.may_have(Some((600, 800))) && !filter.may_have(Some((701, 999))));
    }

    #[test]
    fn bloom_filters_pass_every_key_and_few_others() {
        let account = account(64 << 20);
        let filter = filter(None, 10_000);
        filter.open(&account);
        let keys: Vec<i64> = (0..10_000).map(|k| k * 7_919_393).collect();
        filter.add(&ints(&account, &keys, &[]), None, &account).expect("fits");
        assert_eq!(passed(&filter, &ints(&account, &keys, &[]), &account).len(), keys.len());
        let others: Vec<i64> = (0..10_000).map(|k| k * 7_919_393 + 1).collect();
        let wrong = passed(&filter, &ints(&account, &others, &[]), &account).len();
        assert!(wrong < 500, "{wrong} of 10000 others pass");
    }

    #[test]
    fn with_little_memory_bloom_filters_are_smaller_and_pass_more() {
        // A 32nd is 8 KiB, where 10,000 keys would have 20, rounded up to 32.
        let account = account(256 << 10);
        let filter = filter(Some(0..=i64::MAX - 1), 10_000);
        filter.open(&account);
        let keys: Vec<i64> = (0..10_000).map(|k| k * 7_919_393).collect();
        filter.add(&ints(&account, &keys, &[]), None, &account).expect("fits");
        assert_eq!(passed(&filter, &ints(&account, &keys, &[]), &account).len(), keys.len());
        let others: Vec<i64> = (0..10_000).map(|k| k * 7_919_393 + 1).collect();
        let wrong = passed(&filter, &ints(&account, &others, &[]), &account).len();
        assert!((500..3000).contains(&wrong), "{wrong} of 10000 others pass");
        assert_eq!(bloom_words(10_000, 64 << 10), Some(4096));
        assert_eq!(bloom_words(10_000, 4 << 10), None, "3 bits a key");
        assert_eq!(bloom_words(1, 1000), None);
    }

    #[test]
    fn strings_are_found_in_any_representation() {
        let account = account(64 << 20);
        let spec = RuntimeFilterSpec { id: 0, data_type: DataType::Utf8, range: None, expected_rows: 2 };
        let filter = RuntimeFilter::new(spec);
        filter.open(&account);
        let texts = |texts: &[&str]| {
            let mut builder = ViewBuilder::new(&account, texts.len()).expect("fits");
            texts.iter().for_each(|text| builder.push(&account, text.as_bytes()).expect("fits"));
            FlatVector::new(Values::View(builder.freeze()))
        };
        filter
            .add(&Vector::Flat(texts(&["ALGERIA", "a text that is too long to be inline"])), None, &account)
            .expect("fits");
        let ids = crate::data::DictionaryIds::default();
        let values = texts(&["FRANCE", "a text that is too long to be inline", "ALGERIA"]);
        let codes = BufMut::copy_of(&account, &[2, 0, 1, 0]).expect("fits").freeze();
        let dictionary = std::sync::Arc::new(crate::data::Dictionary::new(&ids, values));
        let probe = Vector::Dict { codes, validity: None, dictionary };
        assert_eq!(passed(&filter, &probe, &account), [0, 2]);
    }

    #[test]
    fn without_room_or_overfull_everything_passes_and_without_keys_nothing() {
        let tight = account(64 << 10);
        let without_room = filter(Some(0..=1_000_000), 1_000_000);
        without_room.open(&tight);
        assert!(!without_room.is_usable());
        let ample = account(64 << 20);
        let overfull = filter(None, 1);
        overfull.open(&ample);
        let keys: Vec<i64> = (0..4096).collect();
        overfull.add(&ints(&ample, &keys, &[]), None, &ample).expect("fits");
        assert_eq!(passed(&overfull, &ints(&ample, &[-1], &[]), &ample), [0]);
        let empty = filter(None, 1);
        empty.open(&ample);
        assert!(!empty.may_have(None));
        assert_eq!(passed(&empty, &ints(&ample, &[0, 1], &[]), &ample), [0u32; 0]);
    }
}
