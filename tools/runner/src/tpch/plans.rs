//! `gristmill tpch-plans`: how good the planner is. For its developers; not listed by `--help`.
//!
//! Owns: the q-errors of joins, the comparison of the chosen join orders with others.
//!
//! Invariants:
//! 1. Rows count what joins emitted in a complete run; a plan that stops early shows in its figures.
//! 2. Orders are compared by the fastest of several runs, taken in turns, so that a busy machine slows all alike.

use super::files::{QUERIES, QueryText};
use crate::engine::EngineArgs;
use crate::folder::open_folders;
use crate::generate::parse_scale;
use crate::interrupt::Interrupt;
use crate::print::outln;
use clap::Args;
use gristmill::{Engine, Error, OperatorProfile, Session, TestKnobs};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Runs of the chosen order and of the best others, in turns.
const TURNS: usize = 5;
/// Others that are timed again.
const FINALISTS: usize = 3;
/// An order is given up when it takes so many times as long as the chosen one,
const PATIENCE: f64 = 4.0;
/// and at least so long.
const LEAST_TIMEOUT: Duration = Duration::from_millis(200);

/// Flags of `gristmill tpch-plans`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Scale factor of the data
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = parse_scale)]
    sf: f64,
    /// Folder of the tables [default: data/tpch-sfN]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Only this query
    #[arg(long, value_name = "NUMBER")]
    query: Option<usize>,
    /// Compare with so many random join orders instead of printing the q-errors of joins
    #[arg(long, value_name = "N")]
    orders: Option<u64>,
    #[command(flatten)]
    engine: EngineArgs,
}

/// Runs the command.
pub fn run(args: &PlanArgs, interrupt: &Interrupt) -> anyhow::Result<()> {
    let folder = args.data.clone().unwrap_or_else(|| Path::new("data").join(format!("tpch-sf{}", args.sf)));
    let engine = args.engine.build()?;
    let session = engine.session();
    open_folders(&session, &[&folder])?;
    let is_asked = |(at, _): &(usize, &QueryText)| args.query.is_none_or(|number| number == at + 1);
    let queries =
        QUERIES.iter().enumerate().filter(is_asked).map(|(_, query)| (query.name, query.sql_at(args.sf)));
    let queries: Vec<(&str, String)> = queries.collect();
    match args.orders {
        None => print_errors(&session, &queries, interrupt),
        Some(orders) => compare_orders(args, &folder, &session, &queries, orders, interrupt),
    }
}

/// How long a query took, and what its operators did.
fn timed(
    session: &Session,
    sql: &str,
    timeout: Option<Duration>,
    interrupt: &Interrupt,
) -> Result<(f64, Vec<OperatorProfile>), Error> {
    let mut query = session.query(sql)?;
    if let Some(timeout) = timeout {
        query = query.with_timeout(timeout);
    }
    let start = Instant::now();
    let mut stream = query.stream()?;
    let _watch = interrupt.watch(stream.handle());
    for batch in stream.by_ref() {
        batch?;
    }
    Ok((start.elapsed().as_secs_f64(), stream.profile()))
}

fn print_errors(session: &Session, queries: &[(&str, String)], interrupt: &Interrupt) -> anyhow::Result<()> {
    outln!("| query | join | estimated rows | rows | q-error |\n|---|---|---:|---:|---:|")?;
    let mut all = vec![];
    for (name, sql) in queries {
        interrupt.check()?;
        let (_, profile) = timed(session, sql, None, interrupt)?;
        for operator in profile.iter().filter(|operator| operator.build_rows.is_some()) {
            let Some(estimate) = operator.estimated_rows else { continue };
            let (a, b) = (estimate.max(1) as f64, operator.rows.max(1) as f64);
            let error = (a / b).max(b / a);
            outln!("| {name} | {} | {estimate} | {} | {error:.2} |", operator.title, operator.rows)?;
            all.push(error);
        }
    }
    all.sort_by(f64::total_cmp);
    let quantile =
        |part: f64| all.get((all.len() as f64 * part) as usize).or(all.last()).copied().unwrap_or(1.0);
    outln!(
        "{} joins: median {:.2}, 90 % {:.2}, worst {:.2}",
        all.len(),
        quantile(0.5),
        quantile(0.9),
        quantile(1.0)
    )?;
    Ok(())
}

/// A join order of a query: its plan's text, the engine that makes it, how long it took.
struct Order {
    seed: u64,
    seconds: f64,
}

fn compare_orders(
    args: &PlanArgs,
    folder: &Path,
    session: &Session,
    queries: &[(&str, String)],
    orders: u64,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let with_seed = |seed: u64| -> anyhow::Result<(Engine, Session)> {
        let knobs = TestKnobs { join_order_seed: Some(seed), ..TestKnobs::default() };
        let engine = args.engine.builder().testing(knobs).build()?;
        let session = engine.session();
        open_folders(&session, &[folder])?;
        Ok((engine, session))
    };
    let mut ours = vec![];
    for (_, sql) in queries {
        let first = timed(session, sql, None, interrupt)?.0;
        ours.push(timed(session, sql, None, interrupt)?.0.min(first));
    }
    let mut seen: Vec<HashMap<String, Order>> = vec![];
    for (_, sql) in queries {
        let chosen = without_estimates(&session.query(sql)?.explain());
        seen.push(HashMap::from([(chosen, Order { seed: 0, seconds: f64::INFINITY })]));
    }
    for seed in 1..=orders {
        let (_engine, other) = with_seed(seed)?;
        for (at, (_, sql)) in queries.iter().enumerate() {
            interrupt.check()?;
            let plan = without_estimates(&other.query(sql)?.explain());
            if seen[at].contains_key(&plan) {
                continue;
            }
            let timeout = Duration::from_secs_f64(ours[at] * PATIENCE).max(LEAST_TIMEOUT);
            let seconds = match timed(&other, sql, Some(timeout), interrupt) {
                Ok((seconds, _)) => seconds,
                Err(Error::Timeout { .. }) => f64::INFINITY,
                Err(error) => return Err(error.into()),
            };
            seen[at].insert(plan, Order { seed, seconds });
        }
    }
    outln!(
        "| query | other orders | chosen, ms | best other, ms | ratio | seed |\n|---|---:|---:|---:|---:|---:|"
    )?;
    for (at, (name, sql)) in queries.iter().enumerate() {
        let mut others: Vec<&Order> = seen[at].values().filter(|order| order.seconds.is_finite()).collect();
        others.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        let finalists = others.iter().take(FINALISTS).map(|order| Ok((order.seed, with_seed(order.seed)?)));
        let finalists = finalists.collect::<anyhow::Result<Vec<_>>>()?;
        let mut best = vec![f64::INFINITY; finalists.len()];
        for _ in 0..TURNS {
            interrupt.check()?;
            ours[at] = ours[at].min(timed(session, sql, None, interrupt)?.0);
            for (best, (_, (_, other))) in best.iter_mut().zip(&finalists) {
                *best = best.min(timed(other, sql, None, interrupt)?.0);
            }
        }
        let best = best.into_iter().zip(&finalists).min_by(|a, b| a.0.total_cmp(&b.0));
        let count = seen[at].len() - 1;
        match best {
            Some((seconds, (seed, _))) => outln!(
                "| {name} | {count} | {:.1} | {:.1} | {:.2} | {seed} |",
                ours[at] * 1e3,
                seconds * 1e3,
                ours[at] / seconds
            )?,
            None => outln!("| {name} | {count} | {:.1} | – | – | – |", ours[at] * 1e3)?,
        }
    }
    Ok(())
}

fn without_estimates(plan: &str) -> String {
    plan.lines().map(|line| line.split(" (about ").next().unwrap_or(line).to_owned() + "\n").collect()
}
