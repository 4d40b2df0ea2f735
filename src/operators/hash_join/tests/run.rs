//! Runs of the operator call by call, as pipelines would run it.

use super::super::HashJoinSpec;
use super::super::build::HashJoinBuild;
use super::super::finish::HashJoinShared;
use super::super::plan::Plan;
use super::super::probe::HashJoinProbe;
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::exec::fault::{FaultConfig, Faults};
use crate::exec::{
    Combine, Finish, Flow, Handoff, LaneCx, Need, OpenCx, Output, Pull, QueryCx, Sink, Transform,
};
use crate::mem::{Account, Knobs, Pool, Reservation};
use crate::metrics::OperatorMetrics;
use crate::spill::SpillDirectory;
use std::collections::HashMap;
use std::sync::Arc;
use std::task::Waker;
use tempfile::TempDir;

/// How to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) lanes: usize,
    pub(super) limit_bytes: usize,
    pub(super) batch_rows: usize,
    pub(super) faults: FaultConfig,
}

pub(super) const AMPLE: Setting =
    Setting { lanes: 1, limit_bytes: 1 << 30, batch_rows: 1024, faults: FaultConfig::NONE };
/// Everything spills as soon as it can.
pub(super) const FORCED: Setting = Setting { faults: refusing(u16::MAX, 1), ..AMPLE };

/// Refuses grants so many times in 65536.
pub(super) const fn refusing(refuse_grant: u16, seed: u64) -> FaultConfig {
    FaultConfig { refuse_grant, seed, ..FaultConfig::NONE }
}

/// Named counters of an operator.
pub(super) type Counters = HashMap<&'static str, u64>;

/// A run of the operator as pipelines would run it, all lanes in turn.
pub(super) struct Run {
    pool: Pool,
    query: Arc<QueryCx>,
    pub(super) metrics: Arc<OperatorMetrics>,
    spill: Arc<SpillDirectory>,
    _folder: TempDir,
    setting: Setting,
}

impl Run {
    pub(super) fn new(setting: Setting) -> Self {
        let pool = Pool::new("query", setting.limit_bytes);
        let Setting { lanes, batch_rows, faults, .. } = setting;
        let knobs = Knobs { lanes, batch_rows, block_bytes: 16 << 10, fan_out: 4 };
        let folder = tempfile::tempdir().expect("temporary folder");
        let faults = (faults != FaultConfig::NONE).then(|| Arc::new(Faults::new(faults)));
        let spill = SpillDirectory::new(Some(folder.path().to_owned()), u64::MAX);
        let spill = Arc::new(spill.for_query(faults.as_ref().and_then(Faults::disk_hook)));
        let query = Arc::new(QueryCx::new(pool.clone(), knobs, Arc::clone(&spill), None, faults));
        Self { pool, query, metrics: OperatorMetrics::new("HashJoin"), spill, _folder: folder, setting }
    }

    pub(super) fn accounts(&self, need: Need) -> Result<Vec<Account>> {
        let open = |_| Ok(Account::open(&self.pool, need.lane_bytes, 4096, 64 << 10)?);
        (0..self.setting.lanes).map(open).collect()
    }

    pub(super) fn open(&self, need: Need) -> Result<OpenCx<'_>> {
        OpenCx::granted(&self.query, self.setting.lanes, &self.metrics, need.shared_bytes)
    }

    pub(super) fn cx<'a>(&'a self, account: &'a Account, lane: usize) -> LaneCx<'a> {
        LaneCx { query: &self.query, account, lane, waker: Waker::noop(), metrics: &self.metrics }
    }

    pub(super) fn build(&self, sink: &HashJoinBuild, batches: &[Batch]) -> Result<()> {
        let need = sink.need(&self.query.knobs);
        let accounts = self.accounts(need)?;
        let shared = sink.open(&self.open(need)?)?;
        let mut locals = Vec::new();
        for (lane, account) in accounts.iter().enumerate() {
            locals.push(sink.local(&shared, &self.cx(account, lane))?);
        }
        for (number, batch) in batches.iter().enumerate() {
            let lane = number % self.setting.lanes;
            let cx = self.cx(&accounts[lane], lane);
            let mut flow = sink.push(&shared, &mut locals[lane], batch.clone(), &cx)?;
            while let Flow::Wait(_) = flow {
                flow = sink.resume(&shared, &mut locals[lane], &cx)?;
            }
            if let Flow::Done = flow {
                break;
            }
        }
        for (lane, local) in locals.iter_mut().enumerate() {
            let combined = sink.combine(&shared, local, &self.cx(&accounts[lane], lane))?;
            assert!(matches!(combined, Combine::Ready));
        }
        drop(locals);
        let cx = self.cx(&accounts[0], 0);
        while let Finish::Tasks(tasks) = sink.finish(&shared, &cx)? {
            // In any order.
            for task in tasks.into_iter().rev() {
                task(&cx)?;
            }
        }
        Ok(())
    }

    pub(super) fn probe(
        &self,
        probe: &HashJoinProbe,
        batches: &[Batch],
        emit: &mut dyn FnMut(Batch),
    ) -> Result<()> {
        let need = probe.need(&self.query.knobs);
        let accounts = self.accounts(need)?;
        let table = probe.open(&self.open(need)?)?;
        let mut locals = Vec::new();
        for (lane, account) in accounts.iter().enumerate() {
            locals.push(probe.local(&table, &self.cx(account, lane))?);
        }
        let mut emit = |batch: Batch, most_rows: usize| {
            assert!(batch.rows() > 0 && batch.rows() <= most_rows.max(self.setting.batch_rows));
            emit(batch);
        };
        'batches: for (number, batch) in batches.iter().enumerate() {
            let lane = number % self.setting.lanes;
            let cx = self.cx(&accounts[lane], lane);
            let mut output = probe.push(&table, &mut locals[lane], batch.clone(), &cx)?;
            loop {
                match output {
                    Output::NeedInput => break,
                    Output::Emit(joined) => {
                        emit(joined, batch.rows());
                        break;
                    }
                    Output::EmitMore(joined) => emit(joined, batch.rows()),
                    Output::Wait(_) => {}
                    Output::Done(last) => {
                        assert!(last.is_none());
                        break 'batches;
                    }
                }
                output = probe.resume(&table, &mut locals[lane], &cx)?;
            }
        }
        for (lane, local) in locals.iter_mut().enumerate() {
            let flushed = probe.flush(&table, local, &self.cx(&accounts[lane], lane))?;
            assert!(matches!(flushed, Output::Done(None)));
        }
        let mut open = vec![true; self.setting.lanes];
        // Lanes also wait to give others their turn.
        let mut idle_rounds = 0;
        while open.contains(&true) {
            let mut all_wait = true;
            for (lane, local) in locals.iter_mut().enumerate().filter(|(lane, _)| open[*lane]) {
                match probe.drain(&table, local, &self.cx(&accounts[lane], lane))? {
                    Pull::Emit(batch) => emit(batch, 0),
                    Pull::Wait(_) => continue,
                    Pull::Done => {}
                }
                all_wait = false;
            }
            idle_rounds = if all_wait { idle_rounds + 1 } else { 0 };
            assert!(idle_rounds < 10_000, "every lane waits for another");
            // A lane that is done stays done.
            for (lane, local) in locals.iter_mut().enumerate() {
                match probe.drain(&table, local, &self.cx(&accounts[lane], lane))? {
                    Pull::Emit(batch) => emit(batch, 0),
                    Pull::Wait(_) => {}
                    Pull::Done => open[lane] = false,
                }
            }
        }
        Ok(())
    }
}

/// Runs a join; batches that come out go to `emit`. Memory must have returned in any case.
pub(super) fn run(
    spec: HashJoinSpec,
    build: &[Batch],
    probe: &[Batch],
    setting: Setting,
    emit: &mut dyn FnMut(Batch),
) -> Result<()> {
    counted_run(spec, build, probe, setting, emit).0
}

/// The same, with the operator's counters.
pub(super) fn counted_run(
    spec: HashJoinSpec,
    build: &[Batch],
    probe: &[Batch],
    setting: Setting,
    emit: &mut dyn FnMut(Batch),
) -> (Result<()>, Counters) {
    let run = Run::new(setting);
    let outcome = {
        let plan = Arc::new(Plan::new(spec));
        let handoff: Handoff<HashJoinShared> = Handoff::new();
        let sink = HashJoinBuild::new(Arc::clone(&plan), handoff.clone());
        let transform = HashJoinProbe::new(plan, handoff);
        // All floors are granted before anything starts.
        let mut floor = Reservation::empty(&run.pool);
        let need = transform.need(&run.query.knobs);
        floor
            .try_grow(setting.lanes * need.lane_bytes + need.shared_bytes)
            .map_err(Error::from)
            .and_then(|()| run.build(&sink, build))
            .and_then(|()| {
                drop(floor);
                run.probe(&transform, probe, emit)
            })
    };
    let Run { pool, query, spill, metrics, .. } = run;
    drop(query);
    assert_eq!(pool.granted_bytes(), 0, "all memory returns");
    assert_eq!(spill.used_bytes(), 0, "all disk space returns");
    (outcome, metrics.counters().into_iter().collect())
}
