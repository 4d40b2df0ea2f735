//! Assertions of the contract around every operator, and the faults a test asks for.
//!
//! Owns: wrappers of erased lanes, put around every lane in debug builds and wherever faults are injected; then
//! sources split batches into rows and everything waits now and then.
//!
//! Invariants:
//! 1. A checked lane behaves as the lane inside, or panics with the rule that was broken.
//! 2. An injected wait has its waker called before it is answered, so nothing hangs.
//! 3. An injected panic is an operator's that panics in a call.

use super::contract::{Combine, Flow, Output, Pull};
use super::cx::LaneCx;
use super::erased::{SinkLane, SourceLane, TransformLane};
use super::wait::{Wait, WaitReason};
use crate::data::Batch;
use crate::error::Result;
use crate::mem::{Account, Pool, Reservation};

/// Where an operator stands in its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// May be given input.
    Ready,
    /// Owes a `resume` first.
    Owing,
    /// Is being flushed; only `flush` may follow.
    Flushing,
    /// Answered `Done` or failed.
    Over,
}

fn is_checked(cx: &LaneCx<'_>) -> bool {
    cfg!(debug_assertions) || cx.query.faults.is_some()
}

/// Whether the call is to wait first. Panics where a panic is to be injected.
fn fault_wait(cx: &LaneCx<'_>) -> Option<Wait> {
    let faults = cx.query.faults.as_ref()?;
    assert!(!faults.panics(), "injected into {}", cx.metrics.name);
    faults.waits().then(|| {
        cx.waker.wake_by_ref();
        Wait::registered(WaitReason::Fault, ())
    })
}

fn assert_rows(batch: &Batch, name: &str) {
    assert!(batch.rows() > 0, "contract: {name} emitted an empty batch");
}

/// A checked source.
pub(super) struct CheckedSource {
    inner: Box<dyn SourceLane>,
    standing: Standing,
    /// A batch of which single rows are still to be emitted, and the next row.
    single: Option<(Batch, usize)>,
    /// For what single rows take: no floor has room for it.
    singles: Account,
}

impl CheckedSource {
    /// Checks `inner` where lanes are checked.
    pub(super) fn wrap(inner: Box<dyn SourceLane>, cx: &LaneCx<'_>) -> Box<dyn SourceLane> {
        if !is_checked(cx) {
            return inner;
        }
        let singles =
            Account::from_reservation(Reservation::empty(&Pool::new("single rows", usize::MAX)), 0, 0);
        Box::new(Self { inner, standing: Standing::Ready, single: None, singles })
    }

    fn next_single(&mut self) -> Result<Option<Batch>> {
        let Some((batch, row)) = &mut self.single else { return Ok(None) };
        let one = batch.slice(*row, 1, &self.singles)?;
        *row += 1;
        if *row == batch.rows() {
            self.single = None;
        }
        Ok(Some(one))
    }
}

impl SourceLane for CheckedSource {
    fn pull(&mut self, cx: &LaneCx<'_>) -> Result<Pull> {
        if let Some(one) = self.next_single()? {
            return Ok(Pull::Emit(one));
        }
        assert_ne!(self.standing, Standing::Over, "contract: {} is pulled after its end", cx.metrics.name);
        if let Some(wait) = fault_wait(cx) {
            return Ok(Pull::Wait(wait));
        }
        let answer = self.inner.pull(cx).inspect_err(|_| self.standing = Standing::Over)?;
        match answer {
            Pull::Emit(batch) => {
                assert_rows(&batch, &cx.metrics.name);
                if cx.query.faults.as_ref().is_some_and(|f| f.config().one_row_batches) {
                    self.single = Some((batch, 0));
                    return Ok(self.next_single()?.map_or(Pull::Done, Pull::Emit));
                }
                Ok(Pull::Emit(batch))
            }
            Pull::Done => {
                self.standing = Standing::Over;
                Ok(Pull::Done)
            }
            Pull::Wait(wait) => Ok(Pull::Wait(wait)),
        }
    }

    fn reclaim(&mut self, target_bytes: usize, cx: &LaneCx<'_>) -> Result<usize> {
        assert_ne!(self.standing, Standing::Over, "contract: {} is reclaimed after its end", cx.metrics.name);
        self.inner.reclaim(target_bytes, cx)
    }
}

/// A checked transform.
pub(super) struct CheckedTransform {
    inner: Box<dyn TransformLane>,
    standing: Standing,
    /// A batch held back by an injected wait.
    held: Option<Batch>,
}

impl CheckedTransform {
    /// Checks `inner` where lanes are checked.
    pub(super) fn wrap(inner: Box<dyn TransformLane>, cx: &LaneCx<'_>) -> Box<dyn TransformLane> {
        if is_checked(cx) { Box::new(Self { inner, standing: Standing::Ready, held: None }) } else { inner }
    }

    fn note(&mut self, answer: Result<Output>, cx: &LaneCx<'_>) -> Result<Output> {
        self.standing = match &answer {
            Err(_) | Ok(Output::Done(_)) => Standing::Over,
            Ok(Output::EmitMore(_) | Output::Wait(_)) => Standing::Owing,
            Ok(Output::NeedInput | Output::Emit(_)) => Standing::Ready,
        };
        Self::assert_emitted(answer, cx)
    }

    fn note_flush(&mut self, answer: Result<Output>, cx: &LaneCx<'_>) -> Result<Output> {
        self.standing = match &answer {
            Err(_) => Standing::Over,
            Ok(Output::Emit(_) | Output::EmitMore(_) | Output::Wait(_)) => Standing::Flushing,
            // Input may come again in the next stage.
            Ok(Output::NeedInput | Output::Done(_)) => Standing::Ready,
        };
        Self::assert_emitted(answer, cx)
    }

    fn assert_emitted(answer: Result<Output>, cx: &LaneCx<'_>) -> Result<Output> {
        if let Ok(Output::Emit(batch) | Output::EmitMore(batch) | Output::Done(Some(batch))) = &answer {
            assert_rows(batch, &cx.metrics.name);
        }
        answer
    }
}

impl TransformLane for CheckedTransform {
    fn push(&mut self, batch: Batch, cx: &LaneCx<'_>) -> Result<Output> {
        assert_rows(&batch, &cx.metrics.name);
        assert_eq!(
            self.standing,
            Standing::Ready,
            "contract: {} is pushed to while not ready",
            cx.metrics.name
        );
        if let Some(wait) = fault_wait(cx) {
            self.held = Some(batch);
            self.standing = Standing::Owing;
            return Ok(Output::Wait(wait));
        }
        let answer = self.inner.push(batch, cx);
        self.note(answer, cx)
    }

    fn resume(&mut self, cx: &LaneCx<'_>) -> Result<Output> {
        assert_eq!(
            self.standing,
            Standing::Owing,
            "contract: {} is resumed but owes nothing",
            cx.metrics.name
        );
        let answer = match self.held.take() {
            Some(batch) => self.inner.push(batch, cx),
            None => self.inner.resume(cx),
        };
        self.note(answer, cx)
    }

    fn flush(&mut self, cx: &LaneCx<'_>) -> Result<Output> {
        assert!(
            matches!(self.standing, Standing::Ready | Standing::Flushing),
            "contract: {} is flushed while it owes a batch or after its end",
            cx.metrics.name
        );
        if let Some(wait) = fault_wait(cx) {
            self.standing = Standing::Flushing;
            return Ok(Output::Wait(wait));
        }
        let answer = self.inner.flush(cx);
        self.note_flush(answer, cx)
    }

    fn drain(&mut self, cx: &LaneCx<'_>) -> Result<Pull> {
        if let Some(wait) = fault_wait(cx) {
            return Ok(Pull::Wait(wait));
        }
        let answer = self.inner.drain(cx)?;
        if let Pull::Emit(batch) = &answer {
            assert_rows(batch, &cx.metrics.name);
        }
        Ok(answer)
    }

    fn reclaim(&mut self, target_bytes: usize, cx: &LaneCx<'_>) -> Result<usize> {
        self.inner.reclaim(target_bytes, cx)
    }
}

/// A checked sink.
pub(super) struct CheckedSink {
    inner: Box<dyn SinkLane>,
    standing: Standing,
    held: Option<Batch>,
}

impl CheckedSink {
    /// Checks `inner` where lanes are checked.
    pub(super) fn wrap(inner: Box<dyn SinkLane>, cx: &LaneCx<'_>) -> Box<dyn SinkLane> {
        if is_checked(cx) { Box::new(Self { inner, standing: Standing::Ready, held: None }) } else { inner }
    }

    fn note(&mut self, answer: Result<Flow>) -> Result<Flow> {
        self.standing = match &answer {
            Err(_) | Ok(Flow::Done) => Standing::Over,
            Ok(Flow::Wait(_)) => Standing::Owing,
            Ok(Flow::NeedInput) => Standing::Ready,
        };
        answer
    }
}

impl SinkLane for CheckedSink {
    fn push(&mut self, batch: Batch, cx: &LaneCx<'_>) -> Result<Flow> {
        assert_rows(&batch, &cx.metrics.name);
        assert_eq!(
            self.standing,
            Standing::Ready,
            "contract: {} is pushed to while not ready",
            cx.metrics.name
        );
        if let Some(wait) = fault_wait(cx) {
            self.held = Some(batch);
            self.standing = Standing::Owing;
            return Ok(Flow::Wait(wait));
        }
        let answer = self.inner.push(batch, cx);
        self.note(answer)
    }

    fn resume(&mut self, cx: &LaneCx<'_>) -> Result<Flow> {
        assert_eq!(
            self.standing,
            Standing::Owing,
            "contract: {} is resumed but owes nothing",
            cx.metrics.name
        );
        let answer = match self.held.take() {
            Some(batch) => self.inner.push(batch, cx),
            None => self.inner.resume(cx),
        };
        self.note(answer)
    }

    fn combine(&mut self, cx: &LaneCx<'_>) -> Result<Combine> {
        assert_ne!(self.standing, Standing::Owing, "contract: {} is combined while it owes", cx.metrics.name);
        if let Some(wait) = fault_wait(cx) {
            return Ok(Combine::Wait(wait));
        }
        self.inner.combine(cx)
    }

    fn reclaim(&mut self, target_bytes: usize, cx: &LaneCx<'_>) -> Result<usize> {
        self.inner.reclaim(target_bytes, cx)
    }
}
