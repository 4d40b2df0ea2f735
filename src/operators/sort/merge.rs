//! Merging runs, from memory and from disk.
//!
//! Invariants:
//! 1. Among equal keys the run given first comes first.
//! 2. Each run has one chunk in hand, and a second one only while rows of the first are being laid out.
//! 3. A call that was refused memory can be repeated, and between two calls the merge can be taken apart into what is
//!    left of its runs: no row is lost or comes twice.

use super::super::rows::{Pick, gather_column};
use super::keys::WIDE_PREFIX_BYTES;
use super::run::{Chunk, Run};
use crate::data::{
    BitmapMut, Buf, BufMut, DictionaryIds, FlatVector, MAX_INLINE_BYTES, SHARED_BYTES, StringViews, Values,
    for_each_values, view_inline, view_len, view_of,
};
use crate::error::{Error, Result};
use crate::mem::Account;
use crate::spill::{ReadBehind, SpillReader};
use arrow::array::Array;
use std::sync::Arc;

/// How much of a merge to lay out at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portion {
    /// At most so many rows.
    pub(super) rows: usize,
    /// About so many bytes, but at least one row.
    pub(super) bytes: usize,
    /// Whether the keys come along, as a last column.
    pub(super) has_keys: bool,
}

/// A number of rows, and their columns.
pub(super) type Rows = (usize, Vec<FlatVector>);

/// The next rows of a merge before they are laid out. The merge may go on meanwhile.
pub(super) struct Picked {
    chunks: Vec<Arc<Chunk>>,
    /// Rows of the chunks; `None` for a whole chunk as it is.
    picks: Option<Vec<Pick>>,
    /// Picks laid out already.
    taken: usize,
}

impl Picked {
    fn rows(&self) -> usize {
        self.picks.as_ref().map_or_else(|| self.chunks.iter().map(|chunk| chunk.rows()).sum(), Vec::len)
    }

    /// Lays the next of the rows out in `account`, fewer of them where memory is short; `None` when all are. After a
    /// refusal it may be called again.
    pub(super) fn next_rows(&mut self, has_keys: bool, account: &Account) -> Result<Option<Rows>> {
        let Some(picks) = &self.picks else {
            let chunk = self.chunks.pop();
            return Ok(chunk.map(|chunk| (chunk.rows(), without_keys(&chunk, has_keys).to_vec())));
        };
        let mut rows = picks.len() - self.taken;
        while rows > 0 {
            match gather(&self.chunks, &picks[self.taken..self.taken + rows], has_keys, account) {
                Ok(columns) => {
                    self.taken += rows;
                    return Ok(Some((rows, columns)));
                }
                Err(error) if rows > 1 && error.is_refusal() => rows /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// The columns of a chunk.
fn without_keys(chunk: &Chunk, has_keys: bool) -> &[FlatVector] {
    &chunk.columns()[..chunk.columns().len() - usize::from(!has_keys)]
}

/// Lays out rows of chunks.
fn gather(
    chunks: &[Arc<Chunk>],
    picks: &[Pick],
    has_keys: bool,
    account: &Account,
) -> Result<Vec<FlatVector>> {
    let sources: Vec<&[FlatVector]> = chunks.iter().map(|chunk| without_keys(chunk, has_keys)).collect();
    let Some(first) = sources.first() else { return Err(Error::internal("rows without a source")) };
    let is_alike = chunks.iter().all(|chunk| chunk.mean_long_bytes().is_some());
    let column = |column: usize| match is_alike {
        true => gather_column(&sources, column, picks, account),
        false => lay_out(&sources, column, picks, account),
    };
    (0..first.len()).map(column).collect()
}

/// Merges any number of runs by a tree of losers: a comparison per level and row (Knuth, TAOCP vol. 3, 5.4.1).
pub(super) struct Merge {
    cursors: Vec<Cursor>,
    /// At 0 the cursor of the least row; at every other node the loser of the comparison made there. The cursors are
    /// the leaves, beginning at node `cursors.len()`. Empty until every cursor has its first chunk.
    tree: Vec<u32>,
    /// The winner, if it must get its next chunk before anything else.
    stalled: Option<usize>,
    /// Cursors that have rows.
    live: usize,
    /// The chunks that rows of the batch being made come from.
    sources: Vec<Source>,
    picks: Vec<Pick>,
    /// Picks laid out already.
    taken: usize,
    /// Bytes of a row, strings at the size of their views, and the columns that have strings.
    widths: Option<(usize, Vec<usize>)>,
}

/// A chunk while rows of it are being laid out.
struct Source {
    chunk: Arc<Chunk>,
    cursor: usize,
    /// The first row that was picked of it.
    first_row: usize,
    /// Where the reader was before it read the chunk.
    before: Option<SpillReader>,
}

/// Where a run stands.
struct Cursor {
    /// What comes after `current`.
    run: Run,
    /// `None` at the end, and before the first chunk.
    current: Option<Arc<Chunk>>,
    /// Where the reader was before it read `current`.
    before: Option<SpillReader>,
    /// Frees what lies before `before`.
    behind: Option<ReadBehind>,
    row: usize,
    /// What the key of `row` begins with, and whether there is more of it.
    prefix: u128,
    has_rest: bool,
    /// Place of `current` among the merge's sources.
    source: u32,
}

impl Cursor {
    fn new(run: Run) -> Self {
        let behind = run.reader.as_ref().map(SpillReader::behind);
        Self { run, current: None, before: None, behind, row: 0, prefix: 0, has_rest: false, source: 0 }
    }

    /// Gets the next chunk; `current` stays empty at the end. After an error nothing has changed but that.
    fn load(&mut self, ids: &DictionaryIds, account: &Account) -> Result<()> {
        self.current = None;
        self.before = self.run.reader.clone();
        let chunk = match (self.run.chunks.pop_front(), &mut self.run.reader) {
            (Some(chunk), _) => Some(chunk),
            (None, Some(reader)) => {
                reader.next(account, ids)?.map(|block| Chunk::of_block(&block).map(Arc::new)).transpose()?
            }
            (None, None) => None,
        };
        self.row = std::mem::take(&mut self.run.skip);
        self.current = chunk;
        self.note_prefix();
        Ok(())
    }

    fn note_prefix(&mut self) {
        if let Some(chunk) = &self.current {
            (self.prefix, self.has_rest) = chunk.prefix(self.row);
        }
    }

    /// Whether its row comes before that of `other`; one at its end comes last.
    fn is_less<'a>(&'a self, other: &'a Self) -> Option<bool> {
        let (Some(chunk), Some(other_chunk)) = (&self.current, &other.current) else {
            return Some(self.current.is_some());
        };
        let mut order = self.prefix.cmp(&other.prefix);
        // One that ends within its prefix equals every key of the same prefix.
        if order.is_eq() && self.has_rest && other.has_rest {
            // Keys lie scattered: few comparisons should look at them.
            let rest = |chunk: &'a Chunk, row| chunk.key(row).get(WIDE_PREFIX_BYTES..).unwrap_or_default();
            order = rest(chunk, self.row).cmp(rest(other_chunk, other.row));
        }
        (!order.is_eq()).then_some(order.is_lt())
    }

    /// Adds its chunk to the sources of the batch being made.
    fn enlist(&mut self, cursor: usize, sources: &mut Vec<Source>) {
        self.source = sources.len() as u32;
        if let Some(chunk) = &self.current {
            let (chunk, before) = (Arc::clone(chunk), self.before.clone());
            sources.push(Source { chunk, cursor, first_row: self.row, before });
        }
    }

    /// No row before its current chunk is wanted again.
    fn free_behind(&mut self) {
        if let (Some(behind), Some(before)) = (&mut self.behind, &self.before) {
            behind.advance(before);
        }
    }

    /// What is left of the run, with no block in memory.
    fn into_run(mut self) -> Run {
        let Some(chunk) = self.current else { return self.run };
        self.run.skip = self.row;
        match self.before {
            Some(before) => self.run.reader = Some(before),
            None => self.run.chunks.push_front(chunk),
        }
        self.run
    }
}

impl Merge {
    /// A merge of `runs`; nothing is read yet.
    pub(super) fn new(runs: Vec<Run>) -> Self {
        Self {
            cursors: runs.into_iter().map(Cursor::new).collect(),
            tree: Vec::new(),
            stalled: None,
            live: 0,
            sources: Vec::new(),
            picks: Vec::new(),
            taken: 0,
            widths: None,
        }
    }

    /// The next rows in order; `None` at the end. Blocks are read into `blocks`, rows laid out in `account`.
    pub(super) fn next_rows(
        &mut self,
        portion: Portion,
        ids: &DictionaryIds,
        blocks: &Account,
        account: &Account,
    ) -> Result<Option<Rows>> {
        if self.taken == self.picks.len() {
            self.picks.clear();
            self.sources.clear();
            self.taken = 0;
            self.prepare(ids, blocks)?;
            if let Some(chunk) = self.whole_chunk(portion, ids, blocks)? {
                return Ok(Some((chunk.rows(), without_keys(&chunk, portion.has_keys).to_vec())));
            }
            self.pick(portion, ids, blocks)?;
        }
        let chunks: Vec<_> = self.sources.iter().map(|source| Arc::clone(&source.chunk)).collect();
        let mut rows = (self.picks.len() - self.taken).min(portion.rows);
        while rows > 0 {
            let picks = &self.picks[self.taken..self.taken + rows];
            match gather(&chunks, picks, portion.has_keys, account) {
                Ok(columns) => {
                    self.taken += rows;
                    return Ok(Some((rows, columns)));
                }
                Err(error) if rows > 1 && error.is_refusal() => rows /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The next rows as `next_rows` would return them, not laid out.
    pub(super) fn next_picked(
        &mut self,
        portion: Portion,
        ids: &DictionaryIds,
        blocks: &Account,
    ) -> Result<Option<(usize, Picked)>> {
        if self.taken == self.picks.len() {
            self.picks.clear();
            self.sources.clear();
            self.taken = 0;
            self.prepare(ids, blocks)?;
            if let Some(chunk) = self.whole_chunk(portion, ids, blocks)? {
                let picked = Picked { chunks: vec![chunk], picks: None, taken: 0 };
                return Ok(Some((picked.rows(), picked)));
            }
            self.pick(portion, ids, blocks)?;
        }
        let picks = self.picks.split_off(std::mem::take(&mut self.taken));
        self.picks.clear();
        let chunks = self.sources.drain(..).map(|source| source.chunk).collect();
        let picked = Picked { chunks, picks: Some(picks), taken: 0 };
        Ok((picked.rows() > 0).then(|| (picked.rows(), picked)))
    }

    /// As `next_rows` with keys, as a chunk.
    pub(super) fn next_chunk(
        &mut self,
        rows: usize,
        ids: &DictionaryIds,
        account: &Account,
    ) -> Result<Option<Chunk>> {
        let portion = Portion { rows, bytes: usize::MAX, has_keys: true };
        let rows = self.next_rows(portion, ids, account, account)?;
        rows.map(|(_, columns)| Chunk::new(columns, None)).transpose()
    }

    /// How many of its runs have rows left.
    pub(super) fn runs(&self) -> usize {
        self.cursors.iter().filter(|cursor| cursor.current.is_some() || cursor.run.rows > 0).count()
    }

    /// Whether some of its rows are in memory without being on disk.
    pub(super) fn is_in_memory(&self) -> bool {
        let is_in_memory = |cursor: &Cursor| {
            cursor.run.is_in_memory() || (cursor.before.is_none() && cursor.current.is_some())
        };
        self.cursors.iter().any(is_in_memory)
    }

    /// Whether runs on disk are among those merged.
    pub(super) fn reads_disk(&self) -> bool {
        self.cursors.iter().any(|cursor| cursor.run.reader.is_some())
    }

    /// Whether no chunk in hand has a long string.
    pub(super) fn is_alike(&self) -> bool {
        let mut chunks = self.cursors.iter().filter_map(|cursor| cursor.current.as_ref());
        chunks.all(|chunk| chunk.mean_long_bytes().is_some())
    }

    /// What is left of the runs, in their order; blocks read go and are read again.
    pub(super) fn into_runs(self) -> Vec<Run> {
        let Self { cursors, sources, picks, taken, .. } = self;
        let (laid_out, owed) = picks.split_at(taken);
        let cursor_of = |pick: &&Pick| sources[pick.source as usize].cursor;
        let run = |(index, cursor): (usize, Cursor)| {
            let Some(first) = owed.iter().find(|pick| cursor_of(pick) == index) else {
                return cursor.into_run();
            };
            // Rows picked and not laid out come first again.
            let owed_rows = owed.iter().filter(|pick| cursor_of(pick) == index).count();
            let source = &sources[first.source as usize];
            let mut run = cursor.run;
            run.rows += owed_rows as u64;
            run.skip = source.first_row + laid_out.iter().filter(|pick| pick.source == first.source).count();
            if source.before.is_some() {
                run.reader.clone_from(&source.before);
            } else {
                let again = sources[first.source as usize..].iter().filter(|source| source.cursor == index);
                for (at, source) in again.enumerate() {
                    run.chunks.insert(at, Arc::clone(&source.chunk));
                }
            }
            run
        };
        cursors.into_iter().enumerate().map(run).filter(|run| run.rows > 0).collect()
    }

    /// Gets every cursor its chunk.
    fn prepare(&mut self, ids: &DictionaryIds, blocks: &Account) -> Result<()> {
        if self.tree.is_empty() {
            for cursor in self.cursors.iter_mut().filter(|cursor| cursor.current.is_none()) {
                cursor.load(ids, blocks)?;
            }
            self.live = self.cursors.iter().filter(|c| c.current.is_some()).count();
            self.build();
        }
        if let Some(stalled) = self.stalled {
            self.cursors[stalled].load(ids, blocks)?;
            self.stalled = None;
            self.settle(stalled);
        }
        Ok(())
    }

    /// A chunk that no other run interferes with, as it is.
    fn whole_chunk(
        &mut self,
        portion: Portion,
        ids: &DictionaryIds,
        blocks: &Account,
    ) -> Result<Option<Arc<Chunk>>> {
        let Some(&winner) = self.tree.first() else { return Ok(None) };
        let cursor = &mut self.cursors[winner as usize];
        let is_whole = |chunk: &Arc<Chunk>| chunk.rows() <= portion.rows && chunk.is_in_place();
        let Some(chunk) =
            cursor.current.take_if(|chunk| self.live == 1 && cursor.row == 0 && is_whole(chunk))
        else {
            return Ok(None);
        };
        cursor.run.rows -= chunk.rows() as u64;
        self.advance(winner as usize, ids, blocks)?;
        self.cursors[winner as usize].free_behind();
        Ok(Some(chunk))
    }

    /// Gives the winner its next chunk, now or, if that is refused, when it is needed.
    fn advance(&mut self, winner: usize, ids: &DictionaryIds, blocks: &Account) -> Result<bool> {
        match self.cursors[winner].load(ids, blocks) {
            Ok(()) => {
                self.settle(winner);
                Ok(true)
            }
            Err(error) if error.is_refusal() => {
                self.stalled = Some(winner);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Sets `picks` to the next rows and `sources` to their chunks.
    fn pick(&mut self, portion: Portion, ids: &DictionaryIds, blocks: &Account) -> Result<()> {
        for (index, cursor) in self.cursors.iter_mut().enumerate() {
            cursor.free_behind();
            cursor.enlist(index, &mut self.sources);
        }
        let (width, strings) = match &mut self.widths {
            Some(widths) => widths,
            none => none.insert(self.sources.first().map_or((0, Vec::new()), |source| widths(&source.chunk))),
        };
        let (width, strings) = (*width, std::mem::take(strings));
        let mut bytes = 0;
        while self.picks.len() < portion.rows && bytes < portion.bytes && self.live > 0 {
            let winner = self.tree[0] as usize;
            let cursor = &mut self.cursors[winner];
            let Some(chunk) = &cursor.current else { break };
            let place = chunk.place(cursor.row);
            if portion.bytes < usize::MAX {
                let long = || strings.iter().map(|at| long_bytes(&chunk.columns()[*at], place)).sum();
                bytes += width + chunk.mean_long_bytes().unwrap_or_else(long);
            }
            self.picks.push(Pick { source: cursor.source, row: place as u32 });
            cursor.row += 1;
            cursor.run.rows -= 1;
            if cursor.row < chunk.rows() {
                cursor.note_prefix();
                self.settle(winner);
            } else if self.advance(winner, ids, blocks)? {
                self.cursors[winner].enlist(winner, &mut self.sources);
            } else {
                break;
            }
        }
        self.widths = Some((width, strings));
        Ok(())
    }

    /// Whether cursor `a` is ahead of cursor `b`.
    fn is_ahead(&self, a: u32, b: u32) -> bool {
        self.cursors[a as usize].is_less(&self.cursors[b as usize]).unwrap_or(a < b)
    }

    /// Plays all matches.
    fn build(&mut self) {
        let leaves = self.cursors.len();
        let mut winners = vec![0; 2 * leaves];
        self.tree = vec![0; leaves];
        for node in (1..2 * leaves).rev() {
            winners[node] = if node >= leaves {
                (node - leaves) as u32
            } else {
                let (left, right) = (winners[2 * node], winners[2 * node + 1]);
                let (winner, loser) = if self.is_ahead(right, left) { (right, left) } else { (left, right) };
                self.tree[node] = loser;
                winner
            };
        }
        if leaves > 0 {
            self.tree[0] = winners[1];
        }
    }

    /// Plays the matches of the last winner again, after it has moved on.
    fn settle(&mut self, moved: usize) {
        if self.cursors[moved].current.is_none() {
            self.live -= 1;
        }
        let mut winner = moved as u32;
        let mut node = (moved + self.cursors.len()) / 2;
        while node > 0 {
            if self.is_ahead(self.tree[node], winner) {
                std::mem::swap(&mut self.tree[node], &mut winner);
            }
            node /= 2;
        }
        self.tree[0] = winner;
    }
}

/// Bytes of a row of the chunk, strings at the size of their views, and which columns have strings.
fn widths(chunk: &Chunk) -> (usize, Vec<usize>) {
    let columns = chunk.columns();
    let width_of = |values: &Values| {
        for_each_values!(
            values,
            fixed(v, V) => size_of_val(&**v) / v.len().max(1),
            bool(_b) => 1,
            view(_s) => 16,
            nested(n) => n.get_array_memory_size() / n.len().max(1),
        )
    };
    let width = columns.iter().map(|column| 1 + width_of(&column.values)).sum();
    let is_string = |at: &usize| matches!(columns[*at].values, Values::View(_));
    (width, (0..columns.len()).filter(is_string).collect())
}

/// Bytes of a string that are not in its view.
fn long_bytes(column: &FlatVector, row: usize) -> usize {
    match &column.values {
        Values::View(strings) => {
            Some(view_len(strings.views[row])).filter(|len| *len > MAX_INLINE_BYTES).unwrap_or(0)
        }
        _ => 0,
    }
}

/// Column `column` of the rows `picks`. Where strings are long they are not copied.
fn lay_out(
    sources: &[&[FlatVector]],
    column: usize,
    picks: &[Pick],
    account: &Account,
) -> Result<FlatVector> {
    let of = |pick: &Pick| &sources[pick.source as usize][column];
    let long: usize = picks.iter().map(|pick| long_bytes(of(pick), pick.row as usize)).sum();
    if long < SHARED_BYTES * picks.len() {
        return gather_column(sources, column, picks, account);
    }
    let mut views = BufMut::with_len(account, picks.len())?;
    let mut buffers: Vec<Buf<u8>> = Vec::new();
    for (to, pick) in views.iter_mut().zip(picks) {
        let (vector, row) = (of(pick), pick.row as usize);
        let Values::View(from) = &vector.values else {
            return Err(Error::internal("a column of strings holds something else"));
        };
        *to = match from.get(row) {
            _ if vector.is_null(row) => view_inline(&[]),
            short if short.len() <= MAX_INLINE_BYTES => view_inline(short),
            long => {
                buffers.push(from.shared_bytes(row));
                view_of(long, buffers.len() as u32 - 1, 0)
            }
        };
    }
    let has_nulls = sources.iter().any(|source| source[column].validity.is_some());
    let validity = if has_nulls {
        let mut bits = BitmapMut::with_len(account, picks.len())?;
        bits.fill_from(|at| !of(&picks[at]).is_null(picks[at].row as usize));
        Some(bits.freeze())
    } else {
        None
    };
    let strings = StringViews { views: views.freeze(), buffers: buffers.into() };
    Ok(FlatVector { values: Values::View(strings), validity, bounds: None })
}
