//! The operator against a nested-loop join by definition, over every kind of join, key, representation and shortage.

pub(in crate::operators) mod definition;
pub(in crate::operators) mod input;
mod large;
pub(in crate::operators) mod pipelines;
mod queue;
mod run;
mod spilling;

use self::definition::{CONDITIONS, KINDS, TOO_MANY, canonical, expected, is_valid, spec};
use self::input::{Draw, MARK, PROBE_IDS, Side, TYPES, side};
use self::run::{AMPLE, FORCED, Setting, refusing, run};
use super::HashJoinSpec;
use crate::data::{Batch, DataType};
use crate::error::{Error, Result};
use crate::expr::ColumnId;
use crate::mem::{Account, Pool};

/// Rows of batches as text.
pub(in crate::operators) struct Printed {
    types: Vec<DataType>,
    rows: Vec<String>,
    account: Account,
}

impl Printed {
    /// Rows of the output of `spec`.
    pub(in crate::operators) fn new(spec: &HashJoinSpec) -> Self {
        let type_of = |id: &ColumnId| match *id {
            MARK => DataType::Boolean,
            ColumnId(id) => TYPES[id as usize % PROBE_IDS].clone(),
        };
        let pool = Pool::new("output", 1 << 30);
        let account = Account::open(&pool, 0, 1 << 20, 0).expect("fits");
        Self { types: spec.output.iter().map(type_of).collect(), rows: Vec::new(), account }
    }

    pub(in crate::operators) fn add(&mut self, batch: Batch) {
        let batch = batch.compact(&self.account).expect("fits");
        for row in 0..batch.rows() {
            let values = batch.columns().iter().zip(&self.types);
            let values = values.map(|(column, data_type)| canonical(&column.scalar(row, data_type).value));
            self.rows.push(values.collect::<Vec<_>>().join("|"));
        }
    }

    /// Number of rows.
    pub(in crate::operators) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(in crate::operators) fn sorted(mut self) -> Vec<String> {
        self.rows.sort_unstable();
        self.rows
    }
}

/// The rows a join gives, sorted.
fn joined(spec: HashJoinSpec, build: &Side, probe: &Side, setting: Setting) -> Result<Vec<String>> {
    let mut printed = Printed::new(&spec);
    run(spec, &build.batches, &probe.batches, setting, &mut |batch| printed.add(batch))?;
    Ok(printed.sorted())
}

fn check(build: &Side, probe: &Side, settings: &[Setting]) {
    for condition in CONDITIONS {
        for kind in KINDS {
            if !is_valid(kind, condition) {
                continue;
            }
            let expected = expected(kind, condition, build, probe);
            for &setting in settings {
                let what = format!("{kind:?} on {condition:?}, {setting:?}");
                match (joined(spec(kind, condition), build, probe, setting), &expected) {
                    (Ok(rows), Some(expected)) => {
                        assert_eq!(rows.len(), expected.len(), "{what}");
                        let differing = rows.iter().zip(expected).find(|(a, b)| a != b);
                        assert!(differing.is_none(), "{what}: {differing:#?}");
                    }
                    (Err(Error::Plan(error)), None) => assert_eq!(error.to_string(), TOO_MANY, "{what}"),
                    (Err(error), _) => panic!("{what}: {error}"),
                    (Ok(_), None) => panic!("{what}: a second match passed"),
                }
            }
        }
    }
}

const SETTINGS: [Setting; 7] = [
    AMPLE,
    Setting { lanes: 3, ..AMPLE },
    Setting { lanes: 2, batch_rows: 7, ..AMPLE },
    FORCED,
    Setting { lanes: 3, ..FORCED },
    Setting { lanes: 2, batch_rows: 7, faults: refusing(16_000, 7), ..AMPLE },
    Setting { faults: refusing(8_000, 11), ..AMPLE },
];

#[test]
fn joins_agree_with_the_definition_with_nulls_and_duplicates() {
    let draw = Draw::new(7, 9);
    for seed in 0..2 {
        check(&side(seed, 4, 40, draw), &side(seed + 100, 5, 40, draw), &SETTINGS);
    }
}

#[test]
fn joins_agree_with_the_definition_without_nulls() {
    let draw = Draw::new(0, 60);
    check(&side(10, 3, 60, draw), &side(11, 4, 60, draw), &SETTINGS);
}

#[test]
fn joins_agree_with_the_definition_where_most_values_are_null() {
    let build = side(20, 2, 20, Draw::new(2, 5));
    let probe = side(21, 3, 20, Draw::new(1, 5));
    check(&build, &probe, &SETTINGS);
    check(&probe, &build, &SETTINGS);
}

#[test]
fn either_side_may_be_empty() {
    let draw = Draw::new(4, 5);
    let (none, some) = (side(0, 0, 1, draw), side(30, 3, 20, draw));
    check(&none, &some, &SETTINGS);
    check(&some, &none, &SETTINGS);
    check(&none, &none, &SETTINGS);
}

#[test]
fn single_build_rows_join_in_every_way() {
    for seed in 40..45 {
        let draw = Draw::new(3, 3);
        check(&side(seed, 1, 1, draw), &side(seed + 100, 2, 30, draw), &[AMPLE]);
    }
}
