//! What part of a table's rows satisfies a predicate, told by a few of its rows.
//!
//! Owns: [`Sampler`].
//!
//! Invariants:
//! 1. At most [`GROUPS`] row groups are looked at, of each the first rows; what is decoded is charged to the pool and
//!    freed. Only answers are kept, [`MOST_ANSWERS`] at most.
//! 2. Equal questions have equal answers: the rows looked at are always the same.
//! 3. It is a hint: whatever fails here means "unknown", and shows when the table is read.
//!
//! Must not know: plans.

use super::fallback::{CrateMetadata, FallbackColumn};
use super::table_file::{Place, TableFile};
use crate::catalog::Sampled;
use crate::data::{Batch, DictionaryIds};
use crate::error::{Error, Result};
use crate::expr::{ColumnId, EvalCx, Expr, Predicate};
use crate::mem::{Account, Pool};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Row groups rows are taken from, evenly spread.
const GROUPS: usize = 4;
/// Rows taken in all.
const ROWS: usize = 4096;
/// Questions whose answers are kept.
const MOST_ANSWERS: usize = 256;

/// Answers for one table.
#[derive(Debug)]
pub(super) struct Sampler {
    pool: Pool,
    answers: Mutex<HashMap<String, Option<Sampled>>>,
}

impl Sampler {
    /// One that reads within `pool`.
    pub(super) fn new(pool: &Pool) -> Self {
        Self { pool: pool.clone(), answers: Mutex::default() }
    }

    /// How many of the sampled rows satisfy all `predicates`; `columns` says where in the schema their columns are.
    pub(super) fn ask(
        &self,
        files: &[TableFile],
        predicates: &[Expr],
        columns: &[(ColumnId, usize)],
    ) -> Option<Sampled> {
        // Queries name columns as they like; the question is the same.
        let place = |id: ColumnId| columns.iter().find(|(known, _)| *known == id).map(|(_, at)| *at);
        let mut read = BTreeSet::new();
        let mut all_known = true;
        for predicate in predicates {
            predicate.for_each_column(&mut |id| match place(id) {
                Some(at) => {
                    read.insert(at);
                }
                None => all_known = false,
            });
        }
        if !all_known {
            return None;
        }
        let predicates: Vec<Expr> = predicates.iter().cloned().map(|e| by_place(e, &place)).collect();
        let question = format!("{predicates:?}");
        if let Some(answer) = self.answers.lock().get(&question) {
            return *answer;
        }
        let read: Vec<usize> = read.into_iter().collect();
        let answer = self.count(files, &predicates, &read).ok().filter(|sampled| sampled.rows > 0);
        let mut answers = self.answers.lock();
        if answers.len() >= MOST_ANSWERS {
            answers.clear();
        }
        answers.insert(question, answer);
        answer
    }

    fn count(&self, files: &[TableFile], predicates: &[Expr], read: &[usize]) -> Result<Sampled> {
        // Files that have the columns as the table has them.
        let place = |file: &TableFile, at: usize| match file.place(at) {
            Place::Same(at) => Some(at),
            Place::Missing | Place::Widened(_) => None,
        };
        let groups: Vec<(&TableFile, usize)> = files
            .iter()
            .filter(|file| read.iter().all(|at| place(file, *at).is_some()))
            .flat_map(|file| (0..file.file.footer.row_groups()).map(move |group| (file, group)))
            .filter(|(file, group)| file.file.footer.row_group_rows[*group] > 0)
            .collect();
        let picked = groups.len().min(GROUPS);
        let layout: Vec<ColumnId> = read.iter().map(|at| ColumnId(*at as u32)).collect();
        let mut predicate = Predicate::new(predicates, &layout)?;
        let account = Account::open(&self.pool, 0, 64 << 10, 0)?;
        let ids = DictionaryIds::default();
        let mut sampled = Sampled { rows: 0, passing: 0 };
        for (placed, group) in (0..picked).map(|i| groups[i * groups.len() / picked]) {
            let file = &placed.file;
            let rows = (ROWS / picked).min(file.footer.row_group_rows[group] as usize);
            let metadata = Arc::new(CrateMetadata::read(file, &self.pool)?);
            let column = |at: &usize| {
                let at = place(placed, *at).ok_or_else(|| Error::internal("a column is not in its file"))?;
                let mut column = FallbackColumn::new(file, &metadata, group, at, rows, &self.pool)?;
                column.read(rows, None, &ids, &account)
            };
            let batch = Batch::new(read.iter().map(column).collect::<Result<_>>()?, rows);
            let selection = predicate.select(&batch, &mut EvalCx { account: &account, ids: &ids })?;
            sampled.rows += rows;
            sampled.passing += selection.map_or(rows, |selection| selection.len());
        }
        Ok(sampled)
    }
}

/// `expr` with columns named by their place in the table.
fn by_place(expr: Expr, place: &dyn Fn(ColumnId) -> Option<usize>) -> Expr {
    match expr {
        Expr::Column { id, data_type, nullable } => {
            let id = place(id).map_or(id, |at| ColumnId(at as u32));
            Expr::Column { id, data_type, nullable }
        }
        other => other.map_children(&mut |child| by_place(child, place)),
    }
}
