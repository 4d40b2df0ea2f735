//! Merging runs, from memory and from disk.
//!
//! Rows are picked by rounds: stretches of runs in the order of their last keys, until there are rows enough, and of the
//! other runs what does not come after the last of them. All of these come before what is left, so sorting them is all
//! that remains. That takes a comparison per run and stretch where a merge by rows takes one per level and row, and it
//! reads each run by several rows at a time.
//!
//! Invariants:
//! 1. Among equal keys the run given first comes first.
//! 2. Each run has one chunk in hand, and a second one only while rows of the first are being laid out.
//! 3. A call that was refused memory can be repeated, and between two calls the merge can be taken apart into what is
//!    left of its runs: no row is lost or comes twice.

use super::super::rows::Pick;
use super::cursor::{Cursor, KeyAt, Source};
use super::picked::{Picked, PickedRows, Portion, Rows, Widths, gather, without_keys};
use super::rounds::{RoundSorter, Rounds};
use super::run::{Chunk, Run};
use crate::data::DictionaryIds;
use crate::error::Result;
use crate::mem::Account;
use std::sync::Arc;

/// Rows of a round: sorted in the fastest cache, and several of each run.
const ROUND_ROWS: usize = 2048;
const MOST_ROUND_ROWS: usize = 16 << 10;
const LONGEST_STRETCH_ROWS: usize = 64;

/// Merges any number of runs. Stretches come in order by a tree of losers (Knuth, TAOCP vol. 3, 5.4.1).
pub(super) struct Merge {
    cursors: Vec<Cursor>,
    /// At 0 the cursor whose stretch ends first; at every other node the loser of the comparison made there. The cursors
    /// are the leaves, beginning at node `cursors.len()`. Empty until every cursor has its first chunk.
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
    widths: Option<Widths>,
    rounds: Rounds,
    sorter: RoundSorter,
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
            rounds: Rounds::default(),
            sorter: RoundSorter::default(),
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
        let is_due = self.owed_picks().is_empty();
        if is_due && let Some(chunk) = self.refill(portion, ids, blocks)? {
            return Ok(Some((chunk.rows(), without_keys(&chunk, portion.has_keys).to_vec())));
        }
        let chunks = self.chunks();
        if is_due {
            self.sorter.sort(&mut self.rounds, &chunks, &mut self.picks);
        }
        let picks = self.owed_picks();
        let picks = &picks[..picks.len().min(portion.rows)];
        let rows = gather(&chunks, picks, portion.has_keys, account)?;
        self.taken += rows.as_ref().map_or(0, |(rows, _)| *rows);
        Ok(rows)
    }

    /// The next rows, not in order yet; `None` at the end. They are about as many as `portion` asks for, and never more
    /// than `most_rows`.
    pub(super) fn next_picked(
        &mut self,
        portion: Portion,
        most_rows: usize,
        ids: &DictionaryIds,
        blocks: &Account,
    ) -> Result<Option<(usize, Picked)>> {
        let owed = self.owed_picks();
        let (chunks, rows) = if owed.is_empty() {
            match self.refill(portion, ids, blocks)? {
                Some(chunk) => (vec![chunk], PickedRows::Whole),
                None => (self.chunks(), PickedRows::Rounds(std::mem::take(&mut self.rounds), most_rows)),
            }
        } else {
            let picks = owed[..owed.len().min(most_rows)].to_vec();
            self.taken += picks.len();
            (self.chunks(), PickedRows::Picks(picks, 0))
        };
        let picked = Picked::new(chunks, rows, self.reads_disk());
        let rows = picked.rows();
        Ok((rows > 0).then_some((rows, picked)))
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
        self.cursors.iter().any(Cursor::is_in_memory)
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

    /// Takes the next rounds, after all picks are laid out; or answers a chunk that comes next as it is.
    fn refill(
        &mut self,
        portion: Portion,
        ids: &DictionaryIds,
        blocks: &Account,
    ) -> Result<Option<Arc<Chunk>>> {
        self.picks.clear();
        self.sources.clear();
        self.rounds.clear();
        self.taken = 0;
        self.prepare(ids, blocks)?;
        let whole = self.whole_chunk(portion, ids, blocks)?;
        if whole.is_none() {
            self.take_rounds(portion, ids, blocks)?;
        }
        Ok(whole)
    }

    /// The picks that are not laid out.
    fn owed_picks(&self) -> &[Pick] {
        &self.picks[self.taken..]
    }

    /// The chunks that picks are of.
    fn chunks(&self) -> Vec<Arc<Chunk>> {
        self.sources.iter().map(|source| Arc::clone(&source.chunk)).collect()
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
                cursor.load(1, ids, blocks)?;
            }
            self.live = self.cursors.iter().filter(|c| c.current.is_some()).count();
            self.build();
        }
        if let Some(stalled) = self.stalled {
            self.cursors[stalled].load(1, ids, blocks)?;
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
        let is_at_start = cursor.is_at_start();
        let is_whole = |chunk: &Arc<Chunk>| chunk.rows() <= portion.rows && chunk.is_in_place();
        let Some(chunk) = cursor.current.take_if(|chunk| self.live == 1 && is_at_start && is_whole(chunk))
        else {
            return Ok(None);
        };
        cursor.run.rows -= chunk.rows() as u64;
        self.advance(winner as usize, 1, ids, blocks)?;
        self.cursors[winner as usize].free_behind();
        Ok(Some(chunk))
    }

    /// Gives the winner its next chunk, now or, if that is refused, when it is needed.
    fn advance(&mut self, winner: usize, step: usize, ids: &DictionaryIds, blocks: &Account) -> Result<bool> {
        match self.cursors[winner].load(step, ids, blocks) {
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

    /// Sets `rounds` to the next rows and `sources` to their chunks.
    fn take_rounds(&mut self, portion: Portion, ids: &DictionaryIds, blocks: &Account) -> Result<()> {
        for (index, cursor) in self.cursors.iter_mut().enumerate() {
            cursor.free_behind();
            cursor.enlist(index, &mut self.sources);
        }
        let widths = self.widths.take();
        let widths = widths.or_else(|| self.sources.first().map(|source| Widths::of(&source.chunk)));
        let mut rounds = std::mem::take(&mut self.rounds);
        let mut bytes_left = portion.bytes;
        // The last round may bring more than there is room for, so a batch or block need not be quite full.
        let enough_rows = portion.rows - portion.rows / 8;
        let most_left = portion.bytes / 8;
        while let Some(widths) = &widths
            && rounds.rows() < enough_rows
            && (bytes_left > most_left || rounds.rows() == 0)
            && self.live > 0
            && self.stalled.is_none()
        {
            let left = Portion { rows: portion.rows - rounds.rows(), bytes: bytes_left, ..portion };
            let taken_bytes = self.take_round(&mut rounds, left, widths, ids, blocks)?;
            rounds.end_round();
            bytes_left = bytes_left.saturating_sub(taken_bytes);
        }
        (self.rounds, self.widths) = (rounds, widths);
        Ok(())
    }

    /// Takes the next rows of all runs, at least one and about as many as `portion` asks for, in no order; answers
    /// about how many bytes they take.
    fn take_round(
        &mut self,
        rounds: &mut Rounds,
        portion: Portion,
        widths: &Widths,
        ids: &DictionaryIds,
        blocks: &Account,
    ) -> Result<usize> {
        let row_bytes = widths.mean_bytes(self.cursors[self.tree[0] as usize].current.as_deref());
        let most_rows = (portion.bytes / row_bytes).saturating_add(1).min(portion.rows);
        let (wanted_rows, step) = match self.live {
            1 => (most_rows, most_rows),
            live => {
                // What other runs have before the end of the last stretch is up to half as much again.
                let round_rows = (4 * live).clamp(ROUND_ROWS, MOST_ROUND_ROWS);
                let wanted_rows = (most_rows - most_rows / 3).min(round_rows);
                (wanted_rows, (wanted_rows / (2 * live)).clamp(1, LONGEST_STRETCH_ROWS))
            }
        };
        let (mut rows, mut bytes) = (0, 0);
        while rows < wanted_rows && bytes < portion.bytes && self.live > 0 {
            let winner = self.tree[0] as usize;
            let (stretch, has_more) = self.cursors[winner].take_stretch(winner, step);
            rows += stretch.to - stretch.from;
            bytes = widths.add(bytes, &self.sources[stretch.source as usize].chunk, stretch.from..stretch.to);
            rounds.push(stretch);
            if has_more {
                self.settle(winner);
            } else if self.advance(winner, step, ids, blocks)? {
                self.cursors[winner].enlist(winner, &mut self.sources);
            } else {
                break;
            }
        }
        // The last stretch taken ends last: what comes before its end is all that may still be missing.
        let Some(last) = rounds.last() else { return Ok(bytes) };
        let last_cursor = last.cursor as usize;
        let bound = KeyAt::new(&self.sources[last.source as usize].chunk, last.to - 1);
        for (index, cursor) in self.cursors.iter_mut().enumerate().filter(|(index, _)| *index != last_cursor)
        {
            if let Some(stretch) = cursor.take_before(index, &bound, index < last_cursor) {
                let chunk = &self.sources[stretch.source as usize].chunk;
                bytes = widths.add(bytes, chunk, stretch.from..stretch.to);
                rounds.push(stretch);
            }
        }
        Ok(bytes)
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
