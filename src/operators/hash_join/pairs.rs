//! Pairs of rows that may match, a batch of them at a time.
//!
//! Invariants:
//! 1. Candidates are in the order of the probe rows, and so are the pairs of a round.
//! 2. No call walks more than a bounded number of entries: see [`MOST_ENTRIES`].

use super::directory::{Directory, Found};
use super::keys::KeyEncoder;
use super::roles::Roles;
use super::store::{NO_ROW, row_id};
use super::table::{Lookup, Table};
use crate::data::key_bits::resize;
use crate::data::{BitmapMut, BufMut};
use crate::mem::{Account, Denied};

/// Entries walked in a call at most: of a key with very many rows most may have another key's word.
const MOST_ENTRIES: usize = 256 << 10;

/// Candidates whose entries are fetched ahead of the one at hand.
const PREFETCH_CANDIDATES: usize = 16;

/// Pairs of a probe row, by position, and a build row.
pub(super) struct Pairs {
    positions: BufMut<u32>,
    rows: BufMut<u32>,
}

impl Pairs {
    /// None.
    pub(super) const fn new() -> Self {
        Self { positions: BufMut::empty(), rows: BufMut::empty() }
    }

    /// Forgets them and makes room for `most`.
    fn restart(&mut self, most: usize, account: &Account) -> Result<(), Denied> {
        resize(&mut self.positions, most, account)?;
        resize(&mut self.rows, most, account)?;
        self.set_len(0);
        Ok(())
    }

    /// The probe rows.
    pub(super) fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// The build rows.
    pub(super) fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Number of pairs.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Each pair.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.positions.iter().zip(self.rows.iter()).map(|(&position, &row)| (position as usize, row))
    }

    /// Keeps the pairs for which `keep` is true.
    #[inline(always)]
    pub(super) fn retain(&mut self, keep: impl Fn(usize, u32) -> bool) {
        let (positions, rows): (&mut [u32], &mut [u32]) = (&mut self.positions, &mut self.rows);
        let mut kept = 0;
        for at in 0..rows.len() {
            let (position, row) = (positions[at], rows[at]);
            positions[kept] = position;
            rows[kept] = row;
            kept += usize::from(keep(position as usize, row));
        }
        self.set_len(kept);
    }

    /// Keeps the pairs at ascending `places`.
    pub(super) fn keep(&mut self, places: &[u32]) {
        for (to, &from) in places.iter().enumerate() {
            self.positions[to] = self.positions[from as usize];
            self.rows[to] = self.rows[from as usize];
        }
        self.set_len(places.len());
    }

    fn set_len(&mut self, len: usize) {
        self.positions.set_len(len);
        self.rows.set_len(len);
    }

    /// Whether no probe row comes twice.
    pub(super) fn are_unique(&self) -> bool {
        self.positions.is_sorted_by(|a, b| a < b)
    }
}

/// Probe rows whose keys are there, and their rows of the build side.
pub(super) struct Hits<'a> {
    pub(super) positions: &'a mut [u32],
    pub(super) rows: &'a mut [u32],
}

/// What a batch's rows are still to be paired with.
pub(super) struct Candidates {
    /// Probe rows.
    positions: BufMut<u32>,
    /// For each the next entry and the end of its slot, or the one row it has; without keys all rows of the store are
    /// its candidates.
    next: BufMut<u32>,
    ends: BufMut<u32>,
    /// The candidate at hand.
    at: usize,
    /// Without keys, the next row of the store for it: chunk and place.
    row: (usize, usize),
}

/// How a round of pairs is made.
pub(super) struct Round<'a> {
    pub(super) roles: &'a Roles,
    pub(super) table: &'a Table,
    pub(super) keys: &'a KeyEncoder,
    /// Probe rows whose answer is known already, if that settles it.
    pub(super) settled: Option<&'a BitmapMut>,
    pub(super) most: usize,
    pub(super) account: &'a Account,
}

impl Candidates {
    /// None.
    pub(super) const fn new() -> Self {
        Self { positions: BufMut::empty(), next: BufMut::empty(), ends: BufMut::empty(), at: 0, row: (0, 0) }
    }

    /// Starts with the rows of the batch that `keys` has encoded.
    pub(super) fn start(
        &mut self,
        table: &Table,
        keys: &KeyEncoder,
        account: &Account,
    ) -> Result<(), Denied> {
        (self.at, self.row) = (0, (0, 0));
        let positions = keys.positions();
        let most = if table.lookup_rows == 0 { 0 } else { positions.len() };
        resize(&mut self.positions, most, account)?;
        let count = match &table.lookup {
            None => {
                self.positions.copy_from_slice(&positions[..most]);
                return Ok(());
            }
            Some(Lookup::Hashed(directory)) => {
                resize(&mut self.next, most, account)?;
                resize(&mut self.ends, most, account)?;
                let mut found =
                    Found { positions: &mut self.positions, starts: &mut self.next, ends: &mut self.ends };
                directory.look_up(keys.words(), &positions[..most], &mut found)
            }
            Some(Lookup::Direct(directory)) => {
                resize(&mut self.next, most, account)?;
                self.ends.set_len(0);
                let mut hits = Hits { positions: &mut self.positions, rows: &mut self.next };
                directory.look_up(keys.words(), &positions[..most], &mut hits)
            }
        };
        self.set_len(count);
        Ok(())
    }

    fn set_len(&mut self, len: usize) {
        self.positions.set_len(len);
        self.next.set_len(len);
        self.ends.set_len(len.min(self.ends.len()));
    }

    /// Whether all pairs have been made. Where one match settles a row, only after the round in which none was made.
    pub(super) fn are_done(&self) -> bool {
        self.at == self.positions.len()
    }

    /// The next pairs, at most as many as the round allows; their keys are still to be compared unless words tell.
    pub(super) fn pair(&mut self, round: &Round<'_>, pairs: &mut Pairs) -> Result<(), Denied> {
        pairs.restart(round.most, round.account)?;
        match &round.table.lookup {
            Some(Lookup::Hashed(directory)) => self.pair_by_word(directory, round, pairs),
            Some(Lookup::Direct(_)) => self.pair_with_hits(round, pairs),
            None => self.pair_with_all(round, pairs),
        }
        Ok(())
    }

    /// Each candidate has one row, and its key is the same.
    fn pair_with_hits(&mut self, round: &Round<'_>, pairs: &mut Pairs) {
        let end = self.positions.len().min(self.at + round.most);
        let hits = self.at..end;
        self.at = end;
        pairs.set_len(hits.len());
        pairs.positions.copy_from_slice(&self.positions[hits.clone()]);
        pairs.rows.copy_from_slice(&self.next[hits]);
        if let Some(settled) = round.settled {
            pairs.retain(|position, _| !settled.get(position));
        }
    }

    fn pair_by_word(&mut self, directory: &Directory, round: &Round<'_>, pairs: &mut Pairs) {
        let one_each = round.roles.is_settled_by_first_match();
        if one_each && self.are_done() && !round.roles.key_columns.is_empty() {
            self.keep_open(round);
        }
        let words = round.keys.words();
        pairs.set_len(round.most);
        let (to_positions, to_rows): (&mut [u32], &mut [u32]) = (&mut pairs.positions, &mut pairs.rows);
        let (positions, nexts, ends): (&[u32], &mut [u32], &[u32]) =
            (&self.positions, &mut self.next, &self.ends);
        let (mut at, mut count, mut budget) = (self.at, 0, MOST_ENTRIES);
        while at < positions.len() && count < round.most && budget > 0 {
            let position = positions[at];
            if round.settled.is_some_and(|settled| settled.get(position as usize)) {
                at += 1;
                continue;
            }
            if let Some(&ahead) = nexts.get(at + PREFETCH_CANDIDATES) {
                directory.fetch_entry(ahead as usize);
            }
            let word = words[position as usize];
            let (start, end) = (nexts[at] as usize, ends[at] as usize);
            let stop = end.min(start + budget);
            let mut next = start;
            let mut is_settled = false;
            while next < stop && count < round.most && !is_settled {
                let (found, row) = directory.entry(next);
                next += 1;
                to_positions[count] = position;
                to_rows[count] = row;
                count += usize::from(found == word);
                is_settled = one_each && found == word;
            }
            budget -= next - start;
            nexts[at] = next as u32;
            at += usize::from(next == end || is_settled);
        }
        self.at = at;
        pairs.set_len(count);
    }

    /// Starts again with the candidates that have entries left and no match: words were equal, keys were not.
    fn keep_open(&mut self, round: &Round<'_>) {
        let mut kept = 0;
        for at in 0..self.positions.len() {
            let (position, next, end) = (self.positions[at], self.next[at], self.ends[at]);
            (self.positions[kept], self.next[kept], self.ends[kept]) = (position, next, end);
            let is_settled = round.settled.is_some_and(|settled| settled.get(position as usize));
            kept += usize::from(next < end && !is_settled);
        }
        self.set_len(kept);
        self.at = 0;
    }

    fn pair_with_all(&mut self, round: &Round<'_>, pairs: &mut Pairs) {
        let chunks = &round.table.store.chunk_rows;
        let one_each = round.roles.is_settled_by_first_match();
        while self.at < self.positions.len() && pairs.len() < round.most {
            let position = self.positions[self.at];
            let is_settled = round.settled.is_some_and(|settled| settled.get(position as usize));
            let (chunk, place) = self.row;
            if is_settled || chunk == chunks.len() || one_each && (chunk, place) != (0, 0) {
                (self.at, self.row) = (self.at + 1, (0, 0));
                continue;
            }
            let room = if one_each { 1 } else { round.most - pairs.len() };
            let end = chunks[chunk].min(place + room);
            let from = pairs.len();
            pairs.set_len(from + end - place);
            pairs.positions[from..].fill(position);
            for (to, place) in pairs.rows[from..].iter_mut().zip(place..end) {
                *to = row_id(chunk, place);
            }
            self.row = if end == chunks[chunk] { (chunk + 1, 0) } else { (chunk, end) };
        }
        if self.at + 1 == self.positions.len() && self.row.0 == chunks.len() {
            self.at += 1;
        }
    }
}

/// For each of `len` positions the build row it is paired with; [`NO_ROW`] for the others.
pub(super) fn rows_by_position(pairs: &Pairs, len: usize, account: &Account) -> Result<BufMut<u32>, Denied> {
    let mut rows = BufMut::with_len(account, len)?;
    rows.fill(NO_ROW);
    for (position, row) in pairs.iter() {
        rows[position] = row;
    }
    Ok(rows)
}
