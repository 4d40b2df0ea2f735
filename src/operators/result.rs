//! The end of a query: rows as record batches in a bounded queue, from which a client takes them.
//!
//! Invariants:
//! 1. A lane that finds the queue full has registered its waker under the same lock that taking a batch locks, so
//!    that its wake cannot be lost.
//! 2. Queued batches live in slabs and stay charged to the query. A batch that is handed out has been copied out of
//!    them: what a client holds never keeps a query from its memory.
//! 3. One batch always fits: a query whose every batch exceeds the capacity goes on, batch by batch.
//! 4. While memory is short, a lane makes no batch before all those queued have been taken: floors have room for one, not
//!    for what a client leaves lying. What they had no room for is made when there is memory again.

use crate::data::{Batch, Field, to_record_batch};
use crate::error::{Error, Result};
use crate::exec::{Combine, Finish, Flow, LaneCx, Need, OpenCx, Retry, Sink, SinkBox, Wait, WaitReason};
use crate::mem::{Knobs, Pool};
use arrow::array::{Array, ArrayData, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::datatypes::{DataType as ArrowType, SchemaRef};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

/// Batches a queue holds at most.
const CAPACITY_BATCHES: usize = 16;
const LEAST_CAPACITY_BYTES: usize = 64 << 10;
const LARGEST_CAPACITY_BYTES: usize = 16 << 20;

/// Record batches on their way from the lanes of a query to its client.
pub(crate) struct ResultQueue {
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    batches: VecDeque<(RecordBatch, usize)>,
    bytes: usize,
    capacity_bytes: usize,
    /// Lanes that found it full, or too full while memory is short.
    waiting: Vec<Waker>,
    /// What queued batches are charged to; `None` before the query starts.
    pool: Option<Pool>,
    /// How the query ended, once it has; taken by the client.
    outcome: Option<Result<()>>,
    is_closed: bool,
}

impl ResultQueue {
    /// An empty queue.
    pub(crate) fn new() -> Arc<Self> {
        let state = State {
            batches: VecDeque::new(),
            bytes: 0,
            capacity_bytes: LEAST_CAPACITY_BYTES,
            waiting: Vec::new(),
            pool: None,
            outcome: None,
            is_closed: false,
        };
        Arc::new(Self { state: Mutex::new(state), arrived: Condvar::new() })
    }

    /// Ends the queue with the query's outcome. Rows still queued are handed out before the end, but an error is
    /// handed out at once and they are dropped. Later calls change nothing.
    pub(crate) fn close(&self, outcome: Result<()>) {
        let mut state = self.state.lock();
        if state.is_closed {
            return;
        }
        state.is_closed = true;
        let dropped = if outcome.is_err() { std::mem::take(&mut state.batches) } else { VecDeque::new() };
        state.outcome = Some(outcome);
        state.note_untaken();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.arrived.notify_all();
        waiting.into_iter().for_each(Waker::wake);
        drop(dropped);
    }

    /// The next rows, waiting for them; `None` at the end. After an error comes the end. Once it has waited until
    /// `deadline` it calls `expire`, which should make the query end, and waits on. Not to be called by a worker.
    pub(crate) fn next_blocking(
        &self,
        mut deadline: Option<Instant>,
        expire: impl Fn(),
    ) -> Option<Result<RecordBatch>> {
        let mut state = self.state.lock();
        loop {
            if let Some((batch, bytes)) = state.batches.pop_front() {
                state.bytes -= bytes;
                state.note_untaken();
                let waiting = std::mem::take(&mut state.waiting);
                drop(state);
                waiting.into_iter().for_each(Waker::wake);
                return Some(detach(&batch));
            }
            if state.is_closed {
                return state.outcome.take()?.err().map(Err);
            }
            match deadline {
                None => self.arrived.wait(&mut state),
                Some(at) => {
                    if self.arrived.wait_until(&mut state, at).timed_out() {
                        deadline = None;
                        MutexGuard::unlocked(&mut state, &expire);
                    }
                }
            }
        }
    }

    /// Takes a batch, or gives it back; whether the lane may make its next one now. If it may not, or had its batch back,
    /// it is woken when it should ask again. Rows after the end go nowhere.
    fn offer(&self, batch: RecordBatch, waker: &Waker) -> Result<bool, RecordBatch> {
        let bytes = batch.get_array_memory_size();
        let mut state = self.state.lock();
        if state.is_closed {
            return Ok(true);
        }
        let fits = state.batches.len() < CAPACITY_BATCHES && state.bytes + bytes <= state.capacity_bytes;
        if !fits && !state.batches.is_empty() {
            state.wait(waker);
            return Err(batch);
        }
        state.bytes += bytes;
        state.batches.push_back((batch, bytes));
        state.note_untaken();
        let is_clear = state.is_clear(waker);
        drop(state);
        self.arrived.notify_one();
        Ok(is_clear)
    }

    /// Whether the lane may make its next batch now; else it is woken when it should ask again.
    fn is_clear(&self, waker: &Waker) -> bool {
        self.state.lock().is_clear(waker)
    }
}

impl State {
    fn is_clear(&mut self, waker: &Waker) -> bool {
        if self.batches.is_empty() || self.pool.as_ref().is_none_or(|pool| !pool.is_short()) {
            return true;
        }
        self.wait(waker);
        false
    }

    fn wait(&mut self, waker: &Waker) {
        if !self.waiting.iter().any(|w| w.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
    }

    fn note_untaken(&self) {
        if let Some(pool) = &self.pool {
            pool.set_untaken(!self.batches.is_empty());
        }
    }
}

/// A sink that hands rows of `fields` to `queue` as record batches of `schema`. Whoever started the query closes it.
pub(crate) fn result_sink(fields: Vec<Field>, schema: SchemaRef, queue: Arc<ResultQueue>) -> SinkBox {
    SinkBox::new(ResultSink { fields, schema, queue })
}

struct ResultSink {
    fields: Vec<Field>,
    schema: SchemaRef,
    queue: Arc<ResultQueue>,
}

/// What a lane could not hand on.
#[derive(Default)]
enum Held {
    #[default]
    Nothing,
    /// A batch the queue had no room for.
    Made(RecordBatch),
    /// Rows there was no memory to make a batch of: those made before may have it, until the client takes them.
    Rows(Batch, Retry),
}

impl ResultSink {
    /// Makes a batch of rows and offers it; `waiting` is for the memory to make it.
    fn make(&self, rows: Batch, mut waiting: Retry, held: &mut Held, cx: &LaneCx<'_>) -> Result<Flow> {
        match to_record_batch(&rows, &self.fields, &self.schema, cx.account) {
            Ok(batch) => Ok(self.offer(batch, held, cx)),
            Err(error) if error.is_refusal() => {
                let wait = waiting.wait(error.refused_bytes(), cx).ok_or(error)?;
                *held = Held::Rows(rows, waiting);
                Ok(Flow::Wait(wait))
            }
            Err(error) => Err(error),
        }
    }

    fn offer(&self, batch: RecordBatch, held: &mut Held, cx: &LaneCx<'_>) -> Flow {
        match self.queue.offer(batch, cx.waker) {
            Ok(is_clear) => Self::go_on(is_clear),
            Err(batch) => {
                *held = Held::Made(batch);
                Flow::Wait(Wait::registered(WaitReason::Queue, ()))
            }
        }
    }

    fn go_on(is_clear: bool) -> Flow {
        if is_clear { Flow::NeedInput } else { Flow::Wait(Wait::registered(WaitReason::Queue, ())) }
    }
}

impl Sink for ResultSink {
    type Shared = ();
    type Local = Held;

    fn name(&self) -> String {
        "Result".to_owned()
    }

    fn need(&self, knobs: &Knobs) -> Need {
        // A batch being made; 64-bit decimals become 128 bits wide.
        let width: usize = self.fields.iter().map(|f| f.data_type.value_bytes().max(8) * 2).sum();
        Need { lane_bytes: knobs.batch_rows * width, shared_bytes: 0 }
    }

    fn open(&self, cx: &OpenCx<'_>) -> Result<()> {
        let pool = cx.query.pool.clone();
        let mut state = self.queue.state.lock();
        state.capacity_bytes = (pool.limit_bytes() / 32).clamp(LEAST_CAPACITY_BYTES, LARGEST_CAPACITY_BYTES);
        state.pool = Some(pool);
        Ok(())
    }

    fn local(&self, _shared: &(), _cx: &LaneCx<'_>) -> Result<Held> {
        Ok(Held::default())
    }

    fn push(&self, _shared: &(), held: &mut Held, batch: Batch, cx: &LaneCx<'_>) -> Result<Flow> {
        self.make(batch, Retry::default(), held, cx)
    }

    fn resume(&self, _shared: &(), held: &mut Held, cx: &LaneCx<'_>) -> Result<Flow> {
        match std::mem::take(held) {
            Held::Rows(rows, waiting) => self.make(rows, waiting, held, cx),
            Held::Made(batch) => Ok(self.offer(batch, held, cx)),
            Held::Nothing => Ok(Self::go_on(self.queue.is_clear(cx.waker))),
        }
    }

    fn combine(&self, _shared: &(), _held: &mut Held, _cx: &LaneCx<'_>) -> Result<Combine> {
        Ok(Combine::Ready)
    }

    fn finish(&self, _shared: &(), _cx: &LaneCx<'_>) -> Result<Finish> {
        Ok(Finish::Ready)
    }
}

/// The same rows in memory of their own, strings with no bytes but theirs.
fn detach(batch: &RecordBatch) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(detach_array).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
        .map_err(|e| Error::internal(format!("a result cannot be copied: {e}")))
}

fn detach_array(array: &ArrayRef) -> ArrayRef {
    let compact = match array.data_type() {
        ArrowType::Utf8View => Arc::new(array.as_string_view().gc()) as ArrayRef,
        ArrowType::BinaryView => Arc::new(array.as_binary_view().gc()),
        _ => Arc::clone(array),
    };
    make_array(detach_data(&compact.to_data()))
}

fn detach_data(data: &ArrayData) -> ArrayData {
    let copy = |buffer: &Buffer| Buffer::from_slice_ref(buffer.as_slice());
    let nulls = data.nulls().map(|n| {
        let bits = BooleanBuffer::new(copy(n.inner().inner()), n.inner().offset(), n.len());
        NullBuffer::new(bits)
    });
    let copied = data
        .clone()
        .into_builder()
        .nulls(nulls)
        .buffers(data.buffers().iter().map(copy).collect())
        .child_data(data.child_data().iter().map(detach_data).collect());
    // SAFETY: the same type, length, offset and bytes as an array that is valid.
    unsafe { copied.build_unchecked() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Harness, ints};
    use super::*;
    use crate::data::{DataType, FlatVector, Values, Vector, ViewBuilder, arrow_schema};
    use arrow::datatypes::Int64Type;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::Wake;

    struct Counter(AtomicUsize);
    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn sink(data_type: DataType) -> (ResultSink, Arc<ResultQueue>) {
        let fields = vec![Field { name: "x".to_owned(), data_type, nullable: true }];
        let (schema, queue) = (arrow_schema(&fields), ResultQueue::new());
        (ResultSink { fields, schema, queue: Arc::clone(&queue) }, queue)
    }

    #[test]
    fn a_full_queue_makes_its_lane_wait_and_taking_a_batch_wakes_it() {
        let harness = Harness::new(16 << 20);
        let (sink, queue) = sink(DataType::Int64);
        sink.open(&harness.open()).expect("opens");
        let counter = Arc::new(Counter(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&counter));
        let cx = harness.lane_woken_by(&waker);
        let mut local = sink.local(&(), &cx).expect("starts");
        let mut next = 0;
        let last = loop {
            let answer = sink.push(&(), &mut local, ints(&harness, [Some(next)]), &cx).expect("no error");
            next += 1;
            if !matches!(answer, Flow::NeedInput) {
                break answer;
            }
        };
        assert!(matches!(last, Flow::Wait(_)));
        assert_eq!(next, CAPACITY_BATCHES as i64 + 1);
        let again = sink.resume(&(), &mut local, &cx).expect("no error");
        assert!(matches!(again, Flow::Wait(_)), "a resume without reason is harmless");
        assert_eq!(counter.0.load(SeqCst), 0);
        let first = queue.next_blocking(None, || ()).expect("rows").expect("no error");
        assert_eq!(first.column(0).as_primitive::<Int64Type>().values(), &[0]);
        assert_eq!(counter.0.load(SeqCst), 1);
        assert!(matches!(sink.resume(&(), &mut local, &cx).expect("no error"), Flow::NeedInput));
        queue.close(Ok(()));
        queue.close(Err(Error::Cancelled));
        let rest = std::iter::from_fn(|| queue.next_blocking(None, || ())).map(|b| b.expect("no error"));
        let rest: Vec<i64> = rest.map(|b| b.column(0).as_primitive::<Int64Type>().value(0)).collect();
        assert_eq!(rest, (1..next).collect::<Vec<_>>());
    }

    #[test]
    fn an_error_comes_at_once_and_ends_the_queue() {
        let harness = Harness::new(16 << 20);
        let (sink, queue) = sink(DataType::Int64);
        let cx = harness.lane();
        let mut local = Held::default();
        sink.push(&(), &mut local, ints(&harness, [Some(1)]), &cx).expect("no error");
        queue.close(Err(Error::Cancelled));
        assert!(matches!(queue.next_blocking(None, || ()), Some(Err(Error::Cancelled))));
        assert!(queue.next_blocking(None, || ()).is_none());
        let late = sink.push(&(), &mut local, ints(&harness, [Some(2)]), &cx).expect("no error");
        assert!(matches!(late, Flow::NeedInput));
        assert!(queue.next_blocking(None, || ()).is_none());
    }

    #[test]
    fn rows_without_memory_for_a_batch_wait_for_it() {
        let harness = Harness::new(1 << 20);
        let (sink, queue) = sink(DataType::Int64);
        let cx = harness.lane();
        let mut local = Held::default();
        // The rows alive have to be copied.
        let rows = harness.select(ints(&harness, (0..3).map(Some)), &[0, 2]);
        let taken: Vec<_> = std::iter::from_fn(|| harness.account.alloc(4096).ok()).collect();
        assert!(matches!(sink.push(&(), &mut local, rows, &cx).expect("no error"), Flow::Wait(_)));
        assert!(matches!(sink.resume(&(), &mut local, &cx).expect("no error"), Flow::Wait(_)));
        drop(taken);
        assert!(matches!(sink.resume(&(), &mut local, &cx).expect("no error"), Flow::NeedInput));
        assert!(matches!(sink.resume(&(), &mut local, &cx).expect("no error"), Flow::NeedInput));
        sink.queue.close(Ok(()));
        let rows = queue.next_blocking(None, || ()).expect("rows").expect("no error");
        assert_eq!(rows.column(0).as_primitive::<Int64Type>().values(), &[0, 2]);
        assert!(queue.next_blocking(None, || ()).is_none());
    }

    #[test]
    fn a_client_waits_for_rows_and_for_the_end() {
        let harness = Harness::new(16 << 20);
        let (sink, queue) = sink(DataType::Int64);
        let client =
            std::thread::spawn(move || std::iter::from_fn(|| queue.next_blocking(None, || ())).count());
        let mut local = Held::default();
        for i in 0..100 {
            let mut answer = sink.push(&(), &mut local, ints(&harness, [Some(i)]), &harness.lane());
            while let Flow::Wait(_) = answer.expect("no error") {
                std::thread::yield_now();
                answer = sink.resume(&(), &mut local, &harness.lane());
            }
        }
        sink.queue.close(Ok(()));
        assert_eq!(client.join().expect("the client lives"), 100);
    }

    #[test]
    fn what_a_client_holds_is_not_charged() {
        let harness = Harness::new(16 << 20);
        let (sink, queue) = sink(DataType::Utf8);
        let mut builder = ViewBuilder::new(&harness.account, 3).expect("fits");
        for value in ["short", "a value that does not fit into a view", ""] {
            builder.push(&harness.account, value.as_bytes()).expect("fits");
        }
        let strings = FlatVector::new(Values::View(builder.freeze()));
        let batch = harness.select(Batch::new(vec![Vector::Flat(strings)], 3), &[1, 2]);
        sink.push(&(), &mut Held::default(), batch, &harness.lane()).expect("no error");
        assert!(harness.account.used_bytes() > 0, "queued rows are charged");
        let rows = queue.next_blocking(None, || ()).expect("rows").expect("no error");
        assert_eq!(harness.account.used_bytes(), 0);
        assert_eq!(rows.column(0).as_string_view().value(0), "a value that does not fit into a view");
        assert_eq!(rows.num_rows(), 2);
    }
}
