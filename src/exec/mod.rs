//! The contract between operators and what runs them, and what runs them.
//!
//! Owns: the three role traits ([`Source`], [`Transform`], [`Sink`]) and their answers, lanes and their driver,
//! stages, the run of a pipeline, the checker and the fault injector that wrap operators.
//!
//! Invariants:
//! 1. Input moves in by value; an operator keeps any remainder, and the driver calls `resume`. Nothing is offered
//!    twice.
//! 2. A [`Wait`] exists only after its waker has been registered; a resume without reason is harmless.
//! 3. `Done` is final. After an error or the end, state is only dropped.
//! 4. Emitted batches have at least one row.
//! 5. The first error of a query wins and cancels the rest; a panic is such an error.
//!
//! Must not know: expressions, plans, SQL, which operators exist.

mod checked;
mod contract;
mod cx;
mod erased;
pub(crate) mod fault;
mod floors;
mod lane;
mod pipeline;
mod query;
mod resident;
mod shape;
mod slots;
mod victim;
mod wait;

#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use contract::{
    Combine, Finish, Flow, Handoff, Need, OperatorTask, Output, Pull, Sink, Source, Transform,
};
pub(crate) use cx::{LaneCx, OpenCx, QueryCx};
pub(crate) use erased::{InnerLane, InnerRun, SinkBox, SourceBox, TransformBox};
pub(crate) use pipeline::PipelineSpec;
pub(crate) use query::{QueryRun, QuerySpec};
pub(crate) use resident::ResidentMeter;
pub(crate) use shape::{Feed, Shape};
pub(crate) use slots::Slots;
pub(crate) use wait::{Retry, Wait, WaitReason};
