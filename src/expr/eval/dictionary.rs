//! Sub-expressions of one dictionary column, computed once per dictionary.
//!
//! Invariants:
//! 1. What is remembered of dictionaries in the account of the batches is no more than a batch takes, so that floors have
//!    room for it. Results of larger ones have an account of their own, as far as memory is ample; else rows are computed.

use super::program::{Node, Op};
use super::run::{Frame, Run, absent, is_about_values};
use super::{EvalCx, result_bytes};
use crate::data::{Bitmap, BitmapMut, Buf, DataType, Dictionary, FlatVector, Scalar, Value, Values, Vector};
use crate::error::Result;
use crate::expr::kernels::blend::blend;
use crate::expr::kernels::simd::{FillBits, dispatch};
use crate::mem::Account;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

/// Dictionaries remembered per node; a column chunk has one, and chunks follow one another.
const REMEMBERED: usize = 4;
/// A dictionary with at most this many values per row alive is worth evaluating at once.
const WORTHWHILE_VALUES_PER_ROW: usize = 4;
/// Larger ones are, once they have come up so often.
const WORTHWHILE_SIGHTINGS: u32 = 2;

/// What is computed of a dictionary larger than batches takes at most one part in so many of the memory that is left.
const ROOM_SHARE: usize = 8;
/// Nothing is to be granted ahead.
const LEAST_QUANTUM_BYTES: usize = 4 << 10;

/// Results per node and dictionary.
#[derive(Debug, Default)]
pub(super) struct Caches {
    by_node: Vec<VecDeque<(u64, Entry)>>,
    /// Memory for results that are larger than those of a batch. It goes after them.
    room: Option<Account>,
}

#[derive(Clone, Debug)]
enum Entry {
    /// Not evaluated yet; how often it has come up.
    Seen(u32),
    /// Some entry of the dictionary, used or not, raises an error: rows decide.
    Failed,
    Known(Box<Known>),
}

#[derive(Clone, Debug)]
struct Known {
    /// The result for a row that is null.
    on_null: Scalar,
    results: Results,
}

#[derive(Clone, Debug)]
enum Results {
    /// A bit per code, and whether it is known.
    Bits(Bitmap, Option<Bitmap>),
    /// The same for all codes.
    Same(Scalar),
    /// No result is null.
    Values(Arc<Dictionary>),
    /// Some are.
    Sparse(FlatVector),
}

impl Caches {
    fn entry(&mut self, node: usize, dictionary: u64) -> &mut Entry {
        if self.by_node.len() <= node {
            self.by_node.resize_with(node + 1, VecDeque::new);
        }
        let entries = &mut self.by_node[node];
        let at = match entries.iter().position(|(id, _)| *id == dictionary) {
            Some(at) => at,
            None => {
                entries.truncate(REMEMBERED - 1);
                entries.push_front((dictionary, Entry::Seen(0)));
                0
            }
        };
        &mut entries[at].1
    }

    /// Memory for `bytes` beside what was promised to `lane`, if that leaves enough for others.
    fn room(&mut self, bytes: usize, lane: &Account) -> Option<&Account> {
        if lane.pool().available_bytes() / ROOM_SHARE < bytes {
            return None;
        }
        if self.room.is_none() {
            self.room = Account::open(lane.pool(), 0, LEAST_QUANTUM_BYTES, 0).ok();
        }
        self.room.as_ref()
    }
}

impl Run<'_, '_> {
    /// The node's value through its one dictionary column; `None` if that is not its shape or would not pay.
    pub(super) fn over_dictionary(&mut self, id: usize, frame: &Frame<'_>) -> Result<Option<Vector>> {
        let node = &self.nodes[id];
        let &[position] = &node.columns[..] else { return Ok(None) };
        let Vector::Dict { codes, validity, dictionary } = &frame.columns[position] else { return Ok(None) };
        if !node.is_deterministic || matches!(node.op, Op::IsNull) || node.data_type_is_nested() {
            return Ok(None);
        }
        let entry = self.caches.entry(id, dictionary.id());
        let known = match entry {
            Entry::Known(known) => Known::clone(known),
            Entry::Failed => return Ok(None),
            Entry::Seen(times) => {
                *times += 1;
                let pays = dictionary.len() <= frame.alive.saturating_mul(WORTHWHILE_VALUES_PER_ROW)
                    || *times >= WORTHWHILE_SIGHTINGS;
                if !pays {
                    return Ok(None);
                }
                let is_small = dictionary.len().saturating_mul(REMEMBERED) <= codes.len();
                let account = if is_small {
                    self.account()
                } else {
                    match self.caches.room(node_bytes(self.nodes, id, dictionary.len()), self.cx.account) {
                        Some(room) => room,
                        None => return Ok(None),
                    }
                };
                // Its values are flat: there is nothing to remember of them.
                let (nodes, mut caches) = (self.nodes, Caches::default());
                let mut run =
                    Run { nodes, caches: &mut caches, cx: &mut EvalCx { account, ids: self.cx.ids } };
                match run.evaluate_dictionary(id, position, frame.columns.len(), dictionary) {
                    // Somebody else took the room.
                    Err(error) if error.is_refusal() && !is_small => return Ok(None),
                    Ok(known) => {
                        *self.caches.entry(id, dictionary.id()) = Entry::Known(Box::new(known.clone()));
                        known
                    }
                    Err(error) if is_about_values(&error) => {
                        *self.caches.entry(id, dictionary.id()) = Entry::Failed;
                        return Ok(None);
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        spread(&known, codes, validity.as_ref(), &node.data_type, self.account()).map(Some)
    }

    fn evaluate_dictionary(
        &mut self,
        id: usize,
        position: usize,
        columns: usize,
        dictionary: &Arc<Dictionary>,
    ) -> Result<Known> {
        let node = &self.nodes[id];
        let mut over = |vector: Vector| {
            let rows = vector.len();
            let mut list = vec![absent(rows); columns];
            list[position] = vector;
            self.eval_plain(id, &mut Frame::new(Cow::Owned(list), rows, rows, self.nodes.len()))
        };
        let results = over(Vector::Flat(dictionary.values().clone()))?;
        let null = Scalar::null(column_type(self.nodes, node, position));
        let mut over = |vector: Vector| {
            let mut list = vec![absent(1); columns];
            list[position] = vector;
            self.eval_plain(id, &mut Frame::new(Cow::Owned(list), 1, 1, self.nodes.len()))
        };
        let on_null = over(Vector::Constant { value: null, len: 1 })?.scalar(0, &node.data_type);
        let results = match results {
            Vector::Constant { value, .. } => Results::Same(value),
            Vector::Flat(FlatVector { values: Values::Bool(bits), validity, .. }) => {
                Results::Bits(bits, validity)
            }
            Vector::Flat(flat) if flat.validity.is_none() => {
                Results::Values(Arc::new(Dictionary::new(self.cx.ids, flat)))
            }
            other => Results::Sparse(other.flatten(self.account())?),
        };
        Ok(Known { on_null, results })
    }
}

impl Node {
    fn data_type_is_nested(&self) -> bool {
        matches!(self.data_type, DataType::Nested(_))
    }
}

/// At most so many bytes are allocated to compute a node for `len` values.
fn node_bytes(nodes: &[Node], id: usize, len: usize) -> usize {
    let node = &nodes[id];
    let own = match node.op {
        Op::Constant(_) => 0,
        _ => result_bytes(&node.data_type, len),
    };
    own + node.inputs.iter().map(|&input| node_bytes(nodes, input, len)).sum::<usize>()
}

/// The type of the column at `position` as `node` reads it.
fn column_type(nodes: &[Node], node: &Node, position: usize) -> DataType {
    if let Op::Column(at) = node.op
        && at == position
    {
        return node.data_type.clone();
    }
    let reads = node.inputs.iter().map(|i| &nodes[*i]).find(|n| n.columns.contains(&position));
    reads.map_or(DataType::Null, |input| column_type(nodes, input, position))
}

/// The results per code as results per row.
fn spread(
    known: &Known,
    codes: &Buf<u32>,
    validity: Option<&Bitmap>,
    data_type: &DataType,
    account: &Account,
) -> Result<Vector> {
    let rows = codes.len();
    let null_stays_null = validity.is_none() || known.on_null.is_null();
    let result = match &known.results {
        Results::Same(value) if validity.is_none() || *value == known.on_null => {
            return Ok(Vector::Constant { value: value.clone(), len: rows });
        }
        Results::Values(dictionary) if null_stays_null => {
            let (codes, dictionary) = (codes.clone(), Arc::clone(dictionary));
            return Ok(Vector::Dict { codes, validity: validity.cloned(), dictionary });
        }
        Results::Same(value) => Vector::Constant { value: value.clone(), len: rows },
        Results::Values(dictionary) => Vector::Flat(dictionary.values().gather(codes, account)?),
        Results::Sparse(flat) => Vector::Flat(flat.gather(codes, account)?),
        Results::Bits(bits, known) => {
            let values = bits_of(bits, codes, account)?;
            let validity = known.as_ref().map(|k| bits_of(k, codes, account)).transpose()?;
            Vector::Flat(FlatVector { values: Values::Bool(values), validity, bounds: None })
        }
    };
    match validity {
        None => Ok(result),
        Some(valid) => {
            let on_null = Vector::Constant { value: known.on_null.clone(), len: rows };
            if let (Value::Null, Vector::Flat(mut flat)) = (&known.on_null.value, result.clone()) {
                let both = flat.validity.as_ref().map(|v| v.and(valid, account)).transpose()?;
                flat.validity = Some(both.unwrap_or_else(|| valid.clone()));
                return Ok(Vector::Flat(flat));
            }
            blend(valid, &result, &on_null, data_type, account)
        }
    }
}

/// The bit of each code.
fn bits_of(table: &Bitmap, codes: &[u32], account: &Account) -> Result<Bitmap> {
    let mut out = BitmapMut::with_len(account, codes.len())?;
    let len = codes.len();
    match table.words() {
        // The whole table in a register.
        [word] => {
            dispatch(FillBits { out: out.words_mut(), len, f: |i: usize| word >> (codes[i] & 63) & 1 == 1 });
        }
        words => {
            let f = |i: usize| words[codes[i] as usize / 64] >> (codes[i] % 64) & 1 == 1;
            dispatch(FillBits { out: out.words_mut(), len, f });
        }
    }
    Ok(out.freeze())
}
