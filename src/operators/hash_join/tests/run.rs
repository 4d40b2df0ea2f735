//! Runs of the operator call by call, as pipelines would run it.

use super::super::HashJoinSpec;
use super::super::build::{HashJoinBuild, HashJoinShared};
use super::super::plan::Plan;
use super::super::probe::HashJoinProbe;
use crate::data::Batch;
use crate::error::Result;
use crate::exec::{
    Combine, Finish, Flow, Handoff, LaneCx, Need, OpenCx, Output, Pull, QueryCx, Sink, Transform,
};
use crate::mem::{Account, Knobs, Pool};
use crate::metrics::OperatorMetrics;
use crate::spill::SpillDirectory;
use std::sync::Arc;
use std::task::Waker;

/// How to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) lanes: usize,
    pub(super) limit_bytes: usize,
    pub(super) batch_rows: usize,
}

pub(super) const AMPLE: Setting = Setting { lanes: 1, limit_bytes: 1 << 30, batch_rows: 1024 };

/// A run of the operator as pipelines would run it, all lanes in turn.
pub(super) struct Run {
    pool: Pool,
    query: Arc<QueryCx>,
    metrics: Arc<OperatorMetrics>,
    setting: Setting,
}

impl Run {
    pub(super) fn new(setting: Setting) -> Self {
        let pool = Pool::new("query", setting.limit_bytes);
        let Setting { lanes, batch_rows, .. } = setting;
        let knobs = Knobs { lanes, batch_rows, block_bytes: 32 << 10, fan_out: 8 };
        let spill = Arc::new(SpillDirectory::new(None, 0));
        let query = Arc::new(QueryCx::new(pool.clone(), knobs, spill, None, None));
        Self { pool, query, metrics: OperatorMetrics::new("HashJoin"), setting }
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
            match sink.push(&shared, &mut locals[lane], batch.clone(), &cx)? {
                Flow::NeedInput => {}
                Flow::Done => break,
                Flow::Wait(wait) => panic!("{wait:?}"),
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
        if probe.has_drain() {
            let mut open = vec![true; self.setting.lanes];
            while open.contains(&true) {
                for (lane, local) in locals.iter_mut().enumerate().filter(|(lane, _)| open[*lane]) {
                    match probe.drain(&table, local, &self.cx(&accounts[lane], lane))? {
                        Pull::Emit(batch) => emit(batch, 0),
                        Pull::Wait(wait) => panic!("{wait:?}"),
                        Pull::Done => {}
                    }
                }
                // A lane that is done stays done: ask each until all say so in one round.
                for (lane, local) in locals.iter_mut().enumerate() {
                    if let Pull::Emit(batch) = probe.drain(&table, local, &self.cx(&accounts[lane], lane))? {
                        emit(batch, 0);
                    } else {
                        open[lane] = false;
                    }
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
    let run = Run::new(setting);
    let outcome = {
        let plan = Arc::new(Plan::new(spec));
        let handoff: Handoff<HashJoinShared> = Handoff::new();
        let sink = HashJoinBuild::new(Arc::clone(&plan), handoff.clone());
        let transform = HashJoinProbe::new(plan, handoff);
        run.build(&sink, build).and_then(|()| run.probe(&transform, probe, emit))
    };
    let Run { pool, query, .. } = run;
    drop(query);
    assert_eq!(pool.granted_bytes(), 0, "all memory returns");
    outcome
}
