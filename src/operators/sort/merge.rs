//! Merging runs.

use super::super::rows::{Pick, gather_column};
use super::keys::{Keys, prefix};
use super::run::{Chunk, Run, rest_of};
use crate::data::FlatVector;
use crate::error::{Error, Result};
use crate::mem::Account;
use std::collections::VecDeque;
use std::sync::Arc;

/// Merges any number of runs by a tree of losers: a comparison per level and row (Knuth, TAOCP vol. 3, 5.4.1).
///
/// Among equal keys the run given first comes first.
pub(super) struct Merge {
    cursors: Vec<Cursor>,
    /// At 0 the cursor of the least row; at every other node the loser of the comparison made there. The cursors are
    /// the leaves, beginning at node `cursors.len()`.
    tree: Vec<u32>,
    /// Cursors that have rows.
    live: usize,
    /// The chunks that rows of the batch being made come from.
    sources: Vec<Arc<Chunk>>,
    picks: Vec<Pick>,
}

/// A number of rows, and their columns.
pub(super) type Rows = (usize, Vec<FlatVector>);

/// Where a run stands.
struct Cursor {
    rest: VecDeque<Chunk>,
    /// `None` at the end.
    current: Option<Arc<Chunk>>,
    row: usize,
    /// Of the key of `row`.
    prefix: u64,
    /// Place of `current` among the merge's sources.
    source: u32,
}

impl Cursor {
    fn new(run: Run) -> Self {
        let mut cursor = Self { rest: run.chunks, current: None, row: 0, prefix: 0, source: 0 };
        cursor.next_chunk();
        cursor
    }

    fn next_chunk(&mut self) {
        self.current = self.rest.pop_front().map(Arc::new);
        self.row = 0;
        self.note_prefix();
    }

    fn note_prefix(&mut self) {
        if let Some(chunk) = &self.current {
            self.prefix = prefix(chunk.keys.get(self.row));
        }
    }

    fn key(&self) -> Option<&[u8]> {
        self.current.as_ref().map(|chunk| chunk.keys.get(self.row))
    }

    /// Whether its row comes before that of `other`; one at its end comes last.
    fn is_less(&self, other: &Self) -> Option<bool> {
        let (Some(key), Some(other_key)) = (self.key(), other.key()) else {
            return Some(self.current.is_some());
        };
        let order = self.prefix.cmp(&other.prefix).then_with(|| rest_of(key).cmp(rest_of(other_key)));
        (!order.is_eq()).then_some(order.is_lt())
    }
}

impl Merge {
    /// A merge of `runs`.
    pub(super) fn new(runs: Vec<Run>) -> Self {
        let cursors: Vec<Cursor> = runs.into_iter().map(Cursor::new).collect();
        let live = cursors.iter().filter(|c| c.current.is_some()).count();
        let mut merge = Self { cursors, tree: Vec::new(), live, sources: Vec::new(), picks: Vec::new() };
        merge.build();
        merge
    }

    /// The next rows in order, at most `max_rows` and at least one; `None` at the end.
    pub(super) fn next_rows(&mut self, max_rows: usize, account: &Account) -> Result<Option<Rows>> {
        if let Some(chunk) = self.whole_chunk(max_rows) {
            return Ok(Some((chunk.rows(), chunk.columns)));
        }
        self.pick(max_rows);
        if self.picks.is_empty() {
            return Ok(None);
        }
        let columns = self.gather(account)?;
        self.sources.clear();
        Ok(Some((self.picks.len(), columns)))
    }

    /// As `next_rows`, with the rows' keys.
    pub(super) fn next_chunk(&mut self, max_rows: usize, account: &Account) -> Result<Option<Chunk>> {
        if let Some(chunk) = self.whole_chunk(max_rows) {
            return Ok(Some(chunk));
        }
        self.pick(max_rows);
        if self.picks.is_empty() {
            return Ok(None);
        }
        let columns = self.gather(account)?;
        let key = |pick: &Pick| self.sources[pick.source as usize].keys.get(pick.row as usize);
        let mut keys = Keys::new(account)?;
        keys.reserve(self.picks.len(), self.picks.iter().map(|p| key(p).len()).sum(), account)?;
        self.picks.iter().for_each(|pick| keys.push(key(pick)));
        self.sources.clear();
        Ok(Some(Chunk { columns, keys }))
    }

    /// A chunk that no other run interferes with, as it is.
    fn whole_chunk(&mut self, max_rows: usize) -> Option<Chunk> {
        let winner = *self.tree.first()? as usize;
        let cursor = &mut self.cursors[winner];
        let fits = cursor.current.as_ref().is_some_and(|chunk| chunk.rows() <= max_rows);
        if self.live != 1 || cursor.row != 0 || !fits {
            return None;
        }
        let chunk = cursor.current.take().and_then(Arc::into_inner);
        cursor.next_chunk();
        self.settle(winner);
        chunk
    }

    /// Sets `picks` to the next rows and `sources` to their chunks.
    fn pick(&mut self, max_rows: usize) {
        self.picks.clear();
        self.sources.clear();
        for cursor in &mut self.cursors {
            if let Some(chunk) = &cursor.current {
                cursor.source = self.sources.len() as u32;
                self.sources.push(Arc::clone(chunk));
            }
        }
        while self.picks.len() < max_rows && self.live > 0 {
            let winner = self.tree[0] as usize;
            let cursor = &mut self.cursors[winner];
            self.picks.push(Pick { source: cursor.source, row: cursor.row as u32 });
            cursor.row += 1;
            if cursor.current.as_ref().is_some_and(|chunk| cursor.row < chunk.rows()) {
                cursor.note_prefix();
            } else {
                cursor.next_chunk();
                if let Some(chunk) = &cursor.current {
                    cursor.source = self.sources.len() as u32;
                    self.sources.push(Arc::clone(chunk));
                }
            }
            self.settle(winner);
        }
    }

    fn gather(&self, account: &Account) -> Result<Vec<FlatVector>> {
        let sources: Vec<&[FlatVector]> = self.sources.iter().map(|chunk| &chunk.columns[..]).collect();
        let Some(first) = sources.first() else { return Err(Error::internal("rows without a source")) };
        (0..first.len()).map(|column| gather_column(&sources, column, &self.picks, account)).collect()
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
