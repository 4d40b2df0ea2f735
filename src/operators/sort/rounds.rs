//! Rounds: what a merge takes of its runs at a time, and how that is put in order.
//!
//! Invariants:
//! 1. Every row of a round comes before all rows of the next one.
//! 2. Rounds and the chunks they are of are enough to put them in order: the merge may go on meanwhile, on another lane.

use super::super::rows::Pick;
use super::cursor::Stretch;
use super::entries::{number_of, sort_by_keys};
use super::run::Chunk;
use std::sync::Arc;

/// Rows that come next, in no order within a round.
#[derive(Default)]
pub(super) struct Rounds {
    stretches: Vec<Stretch>,
    /// Of each round the number of stretches up to its end.
    ends: Vec<usize>,
    rows: usize,
}

impl Rounds {
    pub(super) fn clear(&mut self) {
        self.stretches.clear();
        self.ends.clear();
        self.rows = 0;
    }

    /// Adds rows to the last round.
    pub(super) fn push(&mut self, stretch: Stretch) {
        self.rows += stretch.to - stretch.from;
        self.stretches.push(stretch);
    }

    /// The last round is complete.
    pub(super) fn end_round(&mut self) {
        self.ends.push(self.stretches.len());
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// What was added last to the last round, while that is not complete.
    pub(super) fn last(&self) -> Option<&Stretch> {
        self.stretches[self.ends.last().copied().unwrap_or(0)..].last()
    }
}

/// Puts rounds in order, in memory that it keeps.
#[derive(Default)]
pub(super) struct RoundSorter {
    /// Of each row its key's first bytes above its number among `rows`.
    entries: Vec<u128>,
    rows: Vec<Pick>,
}

impl RoundSorter {
    /// Adds the rows of `rounds`, which are of `chunks`, to `picks`, in order.
    pub(super) fn sort(&mut self, rounds: &mut Rounds, chunks: &[Arc<Chunk>], picks: &mut Vec<Pick>) {
        picks.reserve(rounds.rows);
        let mut from = 0;
        for to in &rounds.ends {
            self.sort_round(&mut rounds.stretches[from..*to], chunks, picks);
            from = *to;
        }
    }

    fn sort_round(&mut self, stretches: &mut [Stretch], chunks: &[Arc<Chunk>], picks: &mut Vec<Pick>) {
        let Some(first) = stretches.first() else { return };
        let chunk_of = |stretch: &Stretch| &*chunks[stretch.source as usize];
        if stretches.iter().all(|stretch| stretch.cursor == first.cursor) {
            for stretch in stretches {
                let chunk = chunk_of(stretch);
                let pick = |row| Pick { source: stretch.source, row: chunk.place(row) as u32 };
                picks.extend((stretch.from..stretch.to).map(pick));
            }
            return;
        }
        let Self { entries, rows } = self;
        // By runs, and within a run as they lie: so numbers tell rows of equal keys apart.
        stretches.sort_by_key(|stretch| stretch.cursor);
        entries.clear();
        rows.clear();
        let are_whole = stretches.iter().all(|stretch| chunk_of(stretch).has_whole_keys());
        let skip = if are_whole { 0 } else { common_bytes(stretches, chunk_of) };
        for stretch in &*stretches {
            chunk_of(stretch).entries(stretch.from..stretch.to, skip, |entry, place| {
                entries.push(entry | rows.len() as u128);
                rows.push(Pick { source: stretch.source, row: place as u32 });
            });
        }
        if are_whole {
            entries.sort_unstable();
        } else {
            let key = |number: usize| {
                let Pick { source, row } = rows[number];
                chunks[source as usize].key_at(row as usize)
            };
            sort_by_keys(entries, skip, &key);
        }
        picks.extend(entries.iter().map(|entry| rows[number_of(*entry)]));
    }
}

/// How many bytes all keys of `stretches` begin with: those that the first ones have in common with the last ones.
fn common_bytes<'a>(stretches: &[Stretch], chunk_of: impl Fn(&Stretch) -> &'a Chunk) -> usize {
    let Some(first) = stretches.first() else { return 0 };
    let mut common = chunk_of(first).key(first.from);
    for stretch in stretches {
        for row in [stretch.from, stretch.to - 1] {
            let key = chunk_of(stretch).key(row);
            let len = common.iter().zip(key).take_while(|(a, b)| a == b).count();
            common = &common[..len];
        }
    }
    common.len()
}
