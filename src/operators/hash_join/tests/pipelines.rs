//! The operator in pipelines of many lanes on many threads, with faults.

use super::super::{HashJoinKind, HashJoinSpec, hash_join};
use super::Printed;
use super::definition::{CONDITIONS, KINDS, expected, is_valid, spec};
use super::input::{Draw, Side, side};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::exec::fault::{FaultConfig, Faults};
use crate::exec::{
    Combine, Finish, Flow, LaneCx, Need, OpenCx, PipelineSpec, Pull, QueryCx, QueryRun, QuerySpec, Shape,
    Sink, SinkBox, Source, SourceBox,
};
use crate::mem::{Knobs, Pool};
use crate::sched::{Priority, Scheduler, SchedulerConfig};
use crate::spill::SpillDirectory;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Gives its batches to whichever lane asks.
pub(in crate::operators) struct BatchSource(pub(in crate::operators) Vec<Batch>);

impl Source for BatchSource {
    type Shared = AtomicUsize;
    type Local = ();

    fn name(&self) -> String {
        "Batches".to_owned()
    }

    fn need(&self, _knobs: &Knobs) -> Need {
        Need::default()
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<AtomicUsize> {
        Ok(AtomicUsize::new(0))
    }

    fn local(&self, _next: &AtomicUsize, _cx: &LaneCx<'_>) -> Result<()> {
        Ok(())
    }

    fn pull(&self, next: &AtomicUsize, (): &mut (), _cx: &LaneCx<'_>) -> Result<Pull> {
        Ok(self.0.get(next.fetch_add(1, SeqCst)).map_or(Pull::Done, |batch| Pull::Emit(batch.clone())))
    }
}

/// Prints what comes.
pub(in crate::operators) struct PrintingSink(pub(in crate::operators) Arc<Mutex<Printed>>);

impl Sink for PrintingSink {
    type Shared = ();
    type Local = ();

    fn name(&self) -> String {
        "Print".to_owned()
    }

    fn need(&self, _knobs: &Knobs) -> Need {
        Need::default()
    }

    fn open(&self, _cx: &OpenCx<'_>) -> Result<()> {
        Ok(())
    }

    fn local(&self, (): &(), _cx: &LaneCx<'_>) -> Result<()> {
        Ok(())
    }

    fn push(&self, (): &(), (): &mut (), batch: Batch, _cx: &LaneCx<'_>) -> Result<Flow> {
        self.0.lock().add(batch);
        Ok(Flow::NeedInput)
    }

    fn combine(&self, (): &(), (): &mut (), _cx: &LaneCx<'_>) -> Result<Combine> {
        Ok(Combine::Ready)
    }

    fn finish(&self, (): &(), _cx: &LaneCx<'_>) -> Result<Finish> {
        Ok(Finish::Ready)
    }
}

fn run(
    spec: HashJoinSpec,
    build: &Side,
    probe: &Side,
    lanes: usize,
    faults: FaultConfig,
) -> Result<Vec<String>> {
    let printed = Arc::new(Mutex::new(Printed::new(&spec)));
    let (sink, transform) = hash_join(spec);
    let pipeline = |side: &Side, transforms: Vec<_>, sink, depends_on| PipelineSpec {
        sources: vec![SourceBox::new(BatchSource(side.batches.clone()))],
        shape: Shape::chain(1, transforms.len()),
        transforms,
        sink,
        max_lanes: usize::MAX,
        depends_on,
    };
    let print = SinkBox::new(PrintingSink(Arc::clone(&printed)));
    let pipelines =
        vec![pipeline(build, Vec::new(), sink, Vec::new()), pipeline(probe, vec![transform], print, vec![0])];
    let pool = Pool::new("query", 256 << 20);
    let knobs = Knobs { lanes, batch_rows: 64, block_bytes: 64 << 10, fan_out: 4 };
    let faults = (faults != FaultConfig::NONE).then(|| Arc::new(Faults::new(faults)));
    let folder = tempfile::tempdir().expect("temporary folder");
    let spill = Arc::new(SpillDirectory::new(Some(folder.path().to_owned()), u64::MAX));
    let cx = Arc::new(QueryCx::new(pool.clone(), knobs, spill, None, faults));
    let config = SchedulerConfig { threads: 2, ..SchedulerConfig::default() };
    let scheduler = Scheduler::new(config).expect("threads can be started");
    let (send, ended) = channel();
    let on_end = move |outcome| {
        // The receiver is gone once a test has failed.
        let _ = send.send(outcome);
    };
    let group = scheduler.group(Priority::DEFAULT);
    let query = QueryRun::start(QuerySpec { pipelines }, cx, group, on_end)?;
    ended.recv_timeout(Duration::from_secs(60)).expect("the query ends")?;
    drop(query);
    drop(scheduler);
    assert_eq!(pool.granted_bytes(), 0, "all memory returns");
    let printed = Arc::into_inner(printed).expect("the sink is gone");
    Ok(printed.into_inner().sorted())
}

#[test]
fn pipelines_of_many_lanes_join_as_defined_with_and_without_faults() {
    let draw = Draw::new(6, 12);
    let (build, probe) = (side(60, 12, 20, draw), side(61, 16, 20, draw));
    let none = side(0, 0, 1, draw);
    let waits = FaultConfig { wait: 16_000, seed: 3, ..FaultConfig::NONE };
    let singles = FaultConfig { one_row_batches: true, ..waits };
    let spills = FaultConfig { refuse_grant: u16::MAX, seed: 5, ..FaultConfig::NONE };
    let all = FaultConfig { refuse_grant: 20_000, ..singles };
    for kind in KINDS {
        for condition in CONDITIONS.into_iter().filter(|&condition| is_valid(kind, condition)) {
            let expected_rows = expected(kind, condition, &build, &probe);
            for faults in [FaultConfig::NONE, waits, singles, spills, all] {
                let what = format!("{kind:?} on {condition:?}, {faults:?}");
                match (run(spec(kind, condition), &build, &probe, 3, faults), &expected_rows) {
                    (Ok(rows), Some(expected)) => assert!(rows == *expected, "{what}"),
                    (Err(Error::Plan(_)), None) => assert_eq!(kind, HashJoinKind::ProbeSingle, "{what}"),
                    (other, _) => panic!("{what}: {other:?}"),
                }
            }
        }
        let condition = CONDITIONS[0];
        let rows = run(spec(kind, condition), &none, &probe, 2, waits).expect("nothing to fail");
        assert!(Some(rows) == expected(kind, condition, &none, &probe), "{kind:?} of nothing");
    }
}
