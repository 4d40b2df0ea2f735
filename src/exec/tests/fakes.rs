//! Operators that do as they are told and keep a log.

use crate::data::Batch;
use crate::error::{Error, Result};
use crate::exec::{
    Combine, Finish, Flow, Handoff, LaneCx, Need, OpenCx, OperatorTask, Output, Pull, Sink, SinkBox, Source,
    SourceBox, Transform, TransformBox, Wait, WaitReason,
};
use crate::mem::{Account, Knobs, Slab};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::Waker;

/// What an operator is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Open,
    Local,
    Pull,
    Push,
    Resume,
    Flush,
    Drain,
    Combine,
    Finish,
    Task,
}

/// The call of an operator that fails, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub(super) operator: &'static str,
    pub(super) call: Call,
    pub(super) panics: bool,
}

/// What all fakes of a test share.
#[derive(Clone, Default)]
pub(super) struct World(Arc<Inner>);

#[derive(Default)]
struct Inner {
    log: Mutex<Vec<String>>,
    live: Arc<AtomicUsize>,
    trouble: Option<Trouble>,
    wakers: Mutex<Vec<Waker>>,
}

/// Counts a state that lives, and holds some memory for it.
pub(super) struct State {
    live: Arc<AtomicUsize>,
    slabs: Vec<Slab>,
}

impl Drop for State {
    fn drop(&mut self) {
        self.live.fetch_sub(1, SeqCst);
    }
}

impl World {
    pub(super) fn with_trouble(trouble: Option<Trouble>) -> Self {
        Self(Arc::new(Inner { trouble, ..Inner::default() }))
    }

    pub(super) fn live(&self) -> impl Fn() -> usize + Send + 'static {
        let live = Arc::clone(&self.0.live);
        move || live.load(SeqCst)
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.0.log.lock().clone()
    }

    pub(super) fn count(&self, entry: &str) -> usize {
        self.0.log.lock().iter().filter(|e| *e == entry).count()
    }

    /// The wakers of all lanes that called a source, for waking them without reason.
    pub(super) fn wakers(&self) -> Vec<Waker> {
        self.0.wakers.lock().clone()
    }

    fn state(&self, account: Option<&Account>) -> Result<State> {
        let slabs = account.map(|a| a.alloc(4096)).transpose()?.into_iter().collect();
        self.0.live.fetch_add(1, SeqCst);
        Ok(State { live: Arc::clone(&self.0.live), slabs })
    }

    fn enter(&self, operator: &str, call: Call, detail: &str) -> Result<()> {
        self.0.log.lock().push(format!("{operator}.{call:?}{detail}"));
        match &self.0.trouble {
            Some(t) if t.operator == operator && t.call == call => {
                assert!(!t.panics, "trouble in {operator}.{call:?}");
                Err(Error::value(format!("trouble in {operator}.{call:?}")))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// How an operator waits before it does what it is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Waits {
    #[default]
    Not,
    /// Once before each answer; woken from another thread.
    Each,
    /// For ever.
    Always,
}

/// Turns `Waits` into answers: every other call waits.
#[derive(Default)]
pub(super) struct Patience(bool);

impl Patience {
    fn ask(&mut self, waits: Waits, waker: &Waker) -> Option<Wait> {
        self.0 = !self.0;
        match waits {
            Waits::Not => None,
            Waits::Each if !self.0 => None,
            Waits::Each => {
                let waker = waker.clone();
                std::thread::spawn(move || waker.wake());
                Some(Wait::registered(WaitReason::Queue, ()))
            }
            Waits::Always => Some(Wait::registered(WaitReason::Queue, ())),
        }
    }
}

/// What each fake needs for a lane.
pub(super) const LANE_BYTES: usize = 16 << 10;

fn need(_knobs: &Knobs) -> Need {
    Need { lane_bytes: LANE_BYTES, shared_bytes: LANE_BYTES }
}

pub(super) fn batch(rows: usize) -> Batch {
    Batch::new(Vec::new(), rows)
}

/// Emits batches of the given rows, shared among its lanes.
#[derive(Clone)]
pub(super) struct FakeSource {
    pub(super) world: World,
    pub(super) name: &'static str,
    pub(super) batches: Vec<usize>,
    pub(super) waits: Waits,
    /// Lanes but the first wait for ever.
    pub(super) only_first_lane: bool,
    /// Begins again at the end.
    pub(super) is_endless: bool,
    /// Takes all the memory it is given before it emits anything.
    pub(super) is_greedy: bool,
    pub(super) row_bytes: usize,
    /// Emits what this breaker took instead.
    pub(super) input: Option<Handoff<SinkShared>>,
}

impl FakeSource {
    pub(super) fn new(world: &World, name: &'static str, batches: &[usize]) -> Self {
        Self {
            world: world.clone(),
            name,
            batches: batches.to_vec(),
            waits: Waits::Not,
            only_first_lane: false,
            is_endless: false,
            is_greedy: false,
            row_bytes: 0,
            input: None,
        }
    }

    pub(super) fn boxed(self) -> SourceBox {
        SourceBox::new(self)
    }
}

pub(super) struct SourceShared {
    next: AtomicUsize,
    batches: Vec<usize>,
    _state: State,
    _account: Account,
}

impl Source for FakeSource {
    type Shared = SourceShared;
    type Local = (Patience, State);

    fn name(&self) -> String {
        self.name.to_owned()
    }
    fn need(&self, knobs: &Knobs) -> Need {
        need(knobs)
    }
    fn mean_row_bytes(&self) -> usize {
        self.row_bytes
    }
    fn open(&self, cx: &OpenCx<'_>) -> Result<SourceShared> {
        self.world.enter(self.name, Call::Open, "")?;
        let account = cx.shared_account(4096, 0);
        let batches = match &self.input {
            Some(input) => vec![1; input.get()?.rows.load(SeqCst)],
            None => self.batches.clone(),
        };
        let state = self.world.state(Some(&account))?;
        Ok(SourceShared { next: AtomicUsize::new(0), batches, _state: state, _account: account })
    }
    fn local(&self, _shared: &SourceShared, cx: &LaneCx<'_>) -> Result<Self::Local> {
        self.world.enter(self.name, Call::Local, "")?;
        Ok((Patience::default(), self.world.state(Some(cx.account))?))
    }
    fn pull(&self, shared: &SourceShared, local: &mut Self::Local, cx: &LaneCx<'_>) -> Result<Pull> {
        self.world.0.wakers.lock().push(cx.waker.clone());
        if self.only_first_lane && cx.lane != 0 {
            return Ok(Pull::Wait(Wait::registered(WaitReason::Queue, ())));
        }
        if let Some(wait) = local.0.ask(self.waits, cx.waker) {
            return Ok(Pull::Wait(wait));
        }
        if !self.is_endless {
            self.world.enter(self.name, Call::Pull, "")?;
        }
        while self.is_greedy
            && let Ok(slab) = cx.account.alloc(4096)
        {
            local.1.slabs.push(slab);
        }
        let at = shared.next.fetch_add(1, SeqCst);
        let at = if self.is_endless { at % shared.batches.len() } else { at };
        Ok(shared.batches.get(at).map_or(Pull::Done, |&rows| Pull::Emit(batch(rows))))
    }
}

/// Splits batches, waits, buffers, drains, limits.
#[derive(Clone)]
pub(super) struct FakeTransform {
    pub(super) world: World,
    pub(super) name: &'static str,
    /// Emits input in batches of so many rows, by `EmitMore`; 0 passes batches on.
    pub(super) piece_rows: usize,
    pub(super) waits: Waits,
    /// Batches of one row that each lane emits when flushed.
    pub(super) flush_batches: usize,
    /// Batches of one row drained over all lanes.
    pub(super) drain_batches: usize,
    /// Rows it lets pass over all lanes.
    pub(super) limit: usize,
    /// Emits an empty batch, which is against the contract.
    pub(super) emits_nothing: bool,
    /// The floors of lanes that drain, call by call.
    pub(super) drain_floors: Arc<Mutex<Vec<usize>>>,
}

impl FakeTransform {
    pub(super) fn new(world: &World, name: &'static str) -> Self {
        Self {
            world: world.clone(),
            name,
            piece_rows: 0,
            waits: Waits::Not,
            flush_batches: 0,
            drain_batches: 0,
            limit: usize::MAX,
            emits_nothing: false,
            drain_floors: Arc::default(),
        }
    }

    pub(super) fn boxed(self) -> TransformBox {
        TransformBox::new(self)
    }
}

pub(super) struct TransformShared {
    left: AtomicUsize,
    to_drain: AtomicUsize,
    _state: State,
    _account: Account,
}

pub(super) struct TransformLocal {
    patience: Patience,
    /// Rows taken and not emitted.
    rows: usize,
    is_last: bool,
    to_flush: usize,
    _state: State,
}

impl FakeTransform {
    fn emit(&self, local: &mut TransformLocal) -> Output {
        let rows = if self.piece_rows == 0 { local.rows } else { local.rows.min(self.piece_rows) };
        local.rows -= rows;
        match (rows, local.rows, local.is_last) {
            (0, _, false) => Output::NeedInput,
            (0, _, true) => Output::Done(None),
            (_, 0, false) => Output::Emit(batch(rows)),
            (_, 0, true) => Output::Done(Some(batch(rows))),
            (_, _, _) => Output::EmitMore(batch(rows)),
        }
    }
}

impl Transform for FakeTransform {
    type Shared = TransformShared;
    type Local = TransformLocal;

    fn name(&self) -> String {
        self.name.to_owned()
    }
    fn need(&self, knobs: &Knobs) -> Need {
        need(knobs)
    }
    fn open(&self, cx: &OpenCx<'_>) -> Result<TransformShared> {
        self.world.enter(self.name, Call::Open, "")?;
        let account = cx.shared_account(4096, 0);
        Ok(TransformShared {
            left: AtomicUsize::new(self.limit),
            to_drain: AtomicUsize::new(self.drain_batches),
            _state: self.world.state(Some(&account))?,
            _account: account,
        })
    }
    fn local(&self, _shared: &TransformShared, cx: &LaneCx<'_>) -> Result<TransformLocal> {
        self.world.enter(self.name, Call::Local, "")?;
        Ok(TransformLocal {
            patience: Patience::default(),
            rows: 0,
            is_last: false,
            to_flush: self.flush_batches,
            _state: self.world.state(Some(cx.account))?,
        })
    }
    fn push(
        &self,
        shared: &TransformShared,
        local: &mut TransformLocal,
        input: Batch,
        cx: &LaneCx<'_>,
    ) -> Result<Output> {
        self.world.enter(self.name, Call::Push, &format!(" {}", input.rows()))?;
        if self.emits_nothing {
            return Ok(Output::Emit(batch(0)));
        }
        let claim = |left: usize| Some(left.saturating_sub(input.rows()));
        let left = shared.left.fetch_update(SeqCst, SeqCst, claim).expect("always answers");
        local.rows = input.rows().min(left);
        local.is_last = self.limit != usize::MAX && left <= input.rows();
        match local.patience.ask(self.waits, cx.waker) {
            Some(wait) => Ok(Output::Wait(wait)),
            None => Ok(self.emit(local)),
        }
    }
    fn resume(
        &self,
        _shared: &TransformShared,
        local: &mut TransformLocal,
        cx: &LaneCx<'_>,
    ) -> Result<Output> {
        self.world.enter(self.name, Call::Resume, "")?;
        match local.patience.ask(self.waits, cx.waker) {
            Some(wait) => Ok(Output::Wait(wait)),
            None => Ok(self.emit(local)),
        }
    }
    fn flush(
        &self,
        _shared: &TransformShared,
        local: &mut TransformLocal,
        cx: &LaneCx<'_>,
    ) -> Result<Output> {
        self.world.enter(self.name, Call::Flush, "")?;
        if let Some(wait) = local.patience.ask(self.waits, cx.waker) {
            return Ok(Output::Wait(wait));
        }
        if local.to_flush == 0 {
            return Ok(Output::NeedInput);
        }
        local.to_flush -= 1;
        Ok(if local.to_flush == 0 { Output::Done(Some(batch(1))) } else { Output::EmitMore(batch(1)) })
    }
    fn has_drain(&self) -> bool {
        self.drain_batches > 0
    }
    fn drain(&self, shared: &TransformShared, local: &mut TransformLocal, cx: &LaneCx<'_>) -> Result<Pull> {
        self.world.enter(self.name, Call::Drain, "")?;
        self.drain_floors.lock().push(cx.account.floor_bytes());
        if let Some(wait) = local.patience.ask(self.waits, cx.waker) {
            return Ok(Pull::Wait(wait));
        }
        let taken = shared.to_drain.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        Ok(taken.map_or(Pull::Done, |_| Pull::Emit(batch(1))))
    }
}

/// Counts rows; ends in tasks.
#[derive(Clone)]
pub(super) struct FakeSink {
    pub(super) world: World,
    pub(super) name: &'static str,
    pub(super) waits: Waits,
    pub(super) tasks: usize,
    pub(super) limit: usize,
    /// Slabs of 64 KiB each lane keeps, and gives back when asked.
    pub(super) slabs: usize,
    /// Gives nothing back.
    pub(super) is_stubborn: bool,
    pub(super) rows: Arc<AtomicUsize>,
    pub(super) output: Option<Handoff<SinkShared>>,
}

impl FakeSink {
    pub(super) fn new(world: &World, name: &'static str) -> Self {
        Self {
            world: world.clone(),
            name,
            waits: Waits::Not,
            tasks: 0,
            limit: usize::MAX,
            slabs: 0,
            is_stubborn: false,
            rows: Arc::default(),
            output: None,
        }
    }

    pub(super) fn boxed(self) -> SinkBox {
        SinkBox::new(self)
    }
}

pub(super) struct SinkShared {
    pub(super) rows: AtomicUsize,
    total: Arc<AtomicUsize>,
    lanes: usize,
    combined: AtomicUsize,
    finishes: Mutex<(Patience, bool)>,
    tasks_done: Arc<AtomicUsize>,
    _state: State,
    _account: Account,
}

pub(super) struct SinkLocal {
    patience: Patience,
    rows: usize,
    state: State,
}

impl Sink for FakeSink {
    type Shared = Arc<SinkShared>;
    type Local = SinkLocal;

    fn name(&self) -> String {
        self.name.to_owned()
    }
    fn need(&self, knobs: &Knobs) -> Need {
        need(knobs)
    }
    fn open(&self, cx: &OpenCx<'_>) -> Result<Arc<SinkShared>> {
        self.world.enter(self.name, Call::Open, "")?;
        let account = cx.shared_account(4096, 0);
        let shared = Arc::new(SinkShared {
            rows: AtomicUsize::new(0),
            total: Arc::clone(&self.rows),
            lanes: cx.lanes,
            combined: AtomicUsize::new(0),
            finishes: Mutex::default(),
            tasks_done: Arc::default(),
            _state: self.world.state(Some(&account))?,
            _account: account,
        });
        if let Some(output) = &self.output {
            output.put(Arc::clone(&shared))?;
        }
        Ok(shared)
    }
    fn local(&self, _shared: &Arc<SinkShared>, cx: &LaneCx<'_>) -> Result<SinkLocal> {
        self.world.enter(self.name, Call::Local, "")?;
        let mut state = self.world.state(Some(cx.account))?;
        for _ in 0..self.slabs {
            state.slabs.push(cx.account.alloc(64 << 10)?);
        }
        Ok(SinkLocal { patience: Patience::default(), rows: 0, state })
    }
    fn push(
        &self,
        shared: &Arc<SinkShared>,
        local: &mut SinkLocal,
        input: Batch,
        cx: &LaneCx<'_>,
    ) -> Result<Flow> {
        self.world.enter(self.name, Call::Push, &format!(" {}", input.rows()))?;
        // What was promised beside its state.
        drop(cx.account.alloc(LANE_BYTES / 2)?);
        local.rows += input.rows();
        let before = shared.total.fetch_add(input.rows(), SeqCst);
        match local.patience.ask(self.waits, cx.waker) {
            Some(wait) => Ok(Flow::Wait(wait)),
            None if before.saturating_add(input.rows()) >= self.limit => Ok(Flow::Done),
            None => Ok(Flow::NeedInput),
        }
    }
    fn resume(&self, _shared: &Arc<SinkShared>, local: &mut SinkLocal, cx: &LaneCx<'_>) -> Result<Flow> {
        self.world.enter(self.name, Call::Resume, "")?;
        Ok(local.patience.ask(self.waits, cx.waker).map_or(Flow::NeedInput, Flow::Wait))
    }
    fn combine(&self, shared: &Arc<SinkShared>, local: &mut SinkLocal, cx: &LaneCx<'_>) -> Result<Combine> {
        self.world.enter(self.name, Call::Combine, "")?;
        if let Some(wait) = local.patience.ask(self.waits, cx.waker) {
            return Ok(Combine::Wait(wait));
        }
        shared.rows.fetch_add(local.rows, SeqCst);
        shared.combined.fetch_add(1, SeqCst);
        Ok(Combine::Ready)
    }
    fn finish(&self, shared: &Arc<SinkShared>, cx: &LaneCx<'_>) -> Result<Finish> {
        self.world.enter(self.name, Call::Finish, "")?;
        assert_eq!(shared.combined.load(SeqCst), shared.lanes, "finish comes after every combine");
        let mut finishes = shared.finishes.lock();
        if let Some(wait) = finishes.0.ask(self.waits, cx.waker) {
            return Ok(Finish::Wait(wait));
        }
        if self.tasks == 0 || finishes.1 {
            assert_eq!(shared.tasks_done.load(SeqCst), self.tasks, "finish comes again after every task");
            return Ok(Finish::Ready);
        }
        finishes.1 = true;
        let task = |_| {
            let (world, name, done) = (self.world.clone(), self.name, Arc::clone(&shared.tasks_done));
            Box::new(move |_: &LaneCx<'_>| {
                world.enter(name, Call::Task, "")?;
                done.fetch_add(1, SeqCst);
                Ok(())
            }) as OperatorTask
        };
        Ok(Finish::Tasks((0..self.tasks).map(task).collect()))
    }
    fn reclaim(
        &self,
        _shared: &Arc<SinkShared>,
        local: &mut SinkLocal,
        target_bytes: usize,
        _cx: &LaneCx<'_>,
    ) -> Result<usize> {
        self.world.0.log.lock().push(format!("{}.reclaim", self.name));
        let mut freed = 0;
        while !self.is_stubborn
            && freed < target_bytes
            && let Some(slab) = local.state.slabs.pop()
        {
            freed += slab.len();
        }
        Ok(freed)
    }
}
