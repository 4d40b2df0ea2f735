//! The table of a comparison: a line for each query, means and totals, and what must be said below.
//!
//! Invariants:
//! 1. An answer counts if it has as many rows as ours. The decode floor has no answer, and is nobody's peer.
//! 2. Means and totals of seconds are over the queries that all engines answered, an engine that answered none left out
//!    of that: they are comparable. Means of ratios are over all queries that have one.
//!
//! Must not know: how figures are measured.

use crate::engine::Engine;
use crate::support::figures::Spread;
use crate::support::report::{Baseline, Measurement};
use crate::support::table::{Table, mebibytes};
use std::fmt::Write;

/// Characters of `123.456 / 123.456`.
const SECONDS_WIDTH: usize = 15;

/// The queries so far.
pub struct Comparison {
    /// Ours first.
    engines: Vec<Engine>,
    table: Table,
    baseline: Option<Baseline>,
    rows: Vec<Row>,
}

/// A query's measurements, one for each engine.
struct Row {
    engines: Vec<Engine>,
    measurements: Vec<Measurement>,
}

impl Row {
    fn ours(&self) -> &Measurement {
        &self.measurements[0]
    }

    /// Each engine with what was measured of it.
    fn each(&self) -> impl Iterator<Item = (Engine, &Measurement)> {
        self.engines.iter().copied().zip(&self.measurements)
    }

    /// Whether an engine answers with other rows than we do.
    fn differs(&self, engine: Engine, measurement: &Measurement) -> bool {
        let answered = measurement.error.is_none() && self.ours().error.is_none();
        answered && engine != Engine::Floor && measurement.rows != self.ours().rows
    }

    /// The times of each engine, `None` where there is no answer that counts.
    fn spreads(&self) -> Vec<Option<Spread>> {
        self.each().map(|(engine, m)| if self.differs(engine, m) { None } else { m.spread() }).collect()
    }

    /// The best time of the fastest peer.
    fn best_peer(&self) -> Option<f64> {
        let peers = self.engines.iter().zip(self.spreads()).filter(|(engine, _)| engine.is_peer());
        peers.filter_map(|(_, spread)| spread).map(|spread| spread.best).reduce(f64::min)
    }

    /// Our best time by that of the fastest peer.
    fn ratio(&self) -> Option<f64> {
        Some(self.spreads()[0]?.best / self.best_peer()?)
    }
}

impl Comparison {
    /// A comparison of these engines, ours first, and with an earlier report.
    pub fn new(engines: Vec<Engine>, baseline: Option<Baseline>) -> Self {
        let mut columns = vec![(String::from("query"), 15)];
        columns.extend(engines.iter().map(|engine| (format!("{} s", engine.title()), SECONDS_WIDTH)));
        if engines.len() > 1 {
            columns.push((String::from("ratio to best peer"), 0));
        }
        columns.extend(engines.iter().map(|engine| (format!("{} MiB", engine.title()), 0)));
        if baseline.is_some() {
            columns.push((String::from("vs. baseline"), 0));
        }
        Self { engines, table: Table::new(columns), baseline, rows: Vec::new() }
    }

    /// The lines the table begins with.
    pub fn heading(&self) -> String {
        self.table.heading()
    }

    /// Adds a query's measurements, one for each engine; its line.
    pub fn add(&mut self, measurements: Vec<Measurement>) -> String {
        let row = Row { engines: self.engines.clone(), measurements };
        let seconds = row.each().map(|(engine, measurement)| match measurement.spread() {
            Some(spread) if row.differs(engine, measurement) => {
                format!("{} ≠", pair(spread.best, spread.median))
            }
            Some(spread) => pair(spread.best, spread.median),
            None if measurement.error.as_ref().is_some_and(|error| error.starts_with("timeout")) => {
                String::from("timeout")
            }
            None => String::from("error"),
        });
        let seconds = seconds.collect();
        let memory = row
            .measurements
            .iter()
            .map(|m| m.peak_anonymous_bytes.map_or_else(String::new, mebibytes))
            .collect();
        let mut line = self.cells(&row.ours().statement, seconds, row.ratio(), memory);
        line.extend(self.baseline.as_ref().map(|baseline| baseline.change(row.ours())));
        let line = self.table.line(&line);
        self.rows.push(row);
        line
    }

    /// The table's last lines and, below it, what they are and what failed.
    pub fn footer(&self) -> String {
        let common = self.answered_by_all();
        let over_common = |mean: fn(&[f64]) -> f64| {
            self.each(|engine| {
                let spreads: Vec<_> = common.iter().filter_map(|row| row.spreads()[engine]).collect();
                let figure = |get: fn(&Spread) -> f64| mean(&spreads.iter().map(get).collect::<Vec<_>>());
                if spreads.is_empty() {
                    String::from("-")
                } else {
                    pair(figure(|s| s.best), figure(|s| s.median))
                }
            })
        };
        let most = |get: fn(&Measurement) -> Option<u64>| {
            self.each(|engine| {
                let most = self.rows.iter().filter_map(|row| get(&row.measurements[engine])).max();
                most.map_or_else(String::new, mebibytes)
            })
        };
        let by_each = self.each(|engine| {
            let ratios = ratios(&self.rows, |row| Some(row.spreads()[engine]?.best));
            if engine == 0 || ratios.is_empty() {
                return String::new();
            }
            format!("{:.2} ({} of {})", geometric_mean(&ratios), ratios.len(), self.rows.len())
        });
        let answered = self.each(|engine| {
            let answered = self.rows.iter().filter(|row| row.spreads()[engine].is_some()).count();
            format!("{answered} of {}", self.rows.len())
        });
        let nothing = self.each(|_| String::new());
        let best = ratios(&self.rows, Row::best_peer);
        let best_mean = (!best.is_empty()).then(|| geometric_mean(&best));

        let peak = most(|measurement| measurement.peak_anonymous_bytes);
        let rest = most(|measurement| measurement.rest_anonymous_bytes);
        let mut lines = vec![
            self.cells("geometric mean", over_common(geometric_mean), None, nothing.clone()),
            self.cells("total, peak", over_common(total), None, peak),
            self.cells("at rest", nothing.clone(), None, rest),
        ];
        if self.engines.len() > 1 {
            lines.push(self.cells("Gristmill by it", by_each, best_mean, nothing.clone()));
            lines.push(self.cells("answered", answered, None, nothing));
        }
        let mut text: Vec<String> = lines.iter().map(|line| self.table.line(line)).collect();
        text.push(String::new());
        text.push(self.explanation(common.len(), &best));
        text.extend(self.rows.iter().flat_map(|row| self.notes(row)));
        text.join("\n")
    }

    /// Names of the queries our engine did not answer.
    pub fn failures(&self) -> Vec<&str> {
        let failed = self.rows.iter().map(Row::ours).filter(|ours| ours.error.is_some());
        failed.map(|ours| ours.statement.as_str()).collect()
    }

    /// A cell for each engine, by its place.
    fn each(&self, cell: impl Fn(usize) -> String) -> Vec<String> {
        (0..self.engines.len()).map(cell).collect()
    }

    fn cells(
        &self,
        name: &str,
        seconds: Vec<String>,
        ratio: Option<f64>,
        memory: Vec<String>,
    ) -> Vec<String> {
        let mut cells = vec![name.to_owned()];
        cells.extend(seconds);
        if self.engines.len() > 1 {
            cells.push(ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
        }
        cells.extend(memory);
        cells
    }

    /// The queries that every engine answered which answered any.
    fn answered_by_all(&self) -> Vec<&Row> {
        let answers: Vec<Vec<bool>> =
            self.rows.iter().map(|row| row.spreads().iter().map(Option::is_some).collect()).collect();
        let is_alive = |engine: usize| answers.iter().any(|row| row[engine]);
        let alive: Vec<usize> = (0..self.engines.len()).filter(|engine| is_alive(*engine)).collect();
        let by_all = |row: &Vec<bool>| !alive.is_empty() && alive.iter().all(|engine| row[*engine]);
        self.rows.iter().zip(&answers).filter(|(_, row)| by_all(row)).map(|(row, _)| row).collect()
    }

    fn explanation(&self, common: usize, ratios: &[f64]) -> String {
        let mut text = format!(
            "Means and totals are over the {common} of {} queries answered by every engine that answered any. MiB are the \
             most anonymous memory of the process.",
            self.rows.len()
        );
        if self.engines.len() > 1 {
            let faster = ratios.iter().filter(|ratio| **ratio < 1.0).count();
            write!(
                text,
                " A ratio is our best time by that of the fastest peer of the query: below 1 in {faster} of {}. The line \
                 'Gristmill by it' has the geometric means of such ratios, for each peer over the queries it and we \
                 answered. A peer's MiB include its interpreter.",
                ratios.len()
            )
            .expect("a string takes what is written");
        }
        text
    }

    /// What went wrong in a query.
    fn notes(&self, row: &Row) -> Vec<String> {
        let note = |(engine, measurement): (Engine, &Measurement)| {
            let what = match &measurement.error {
                Some(error) => error.lines().next().unwrap_or_default().to_owned(),
                None if row.differs(engine, measurement) => format!(
                    "≠ {} rows, Gristmill has {}",
                    measurement.rows.unwrap_or_default(),
                    row.ours().rows.unwrap_or_default()
                ),
                None => return None,
            };
            Some(format!("- {} {}: {what}", measurement.statement, engine.title()))
        };
        row.each().filter_map(note).collect()
    }
}

/// Our best times by `theirs`, of the queries that have both.
fn ratios(rows: &[Row], theirs: impl Fn(&Row) -> Option<f64>) -> Vec<f64> {
    rows.iter().filter_map(|row| Some(row.spreads()[0]?.best / theirs(row)?)).collect()
}

fn pair(best: f64, median: f64) -> String {
    format!("{best:.3} / {median:.3}")
}

fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.max(1e-9).ln()).sum::<f64>() / values.len() as f64).exp()
}

fn total(values: &[f64]) -> f64 {
    values.iter().sum()
}
