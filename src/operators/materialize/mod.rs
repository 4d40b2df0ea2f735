//! Rows kept so that they are read more than once.
//!
//! Owns: the sink that keeps the rows of a shared subplan, and the sources that read them, any number of them.
//!
//! Each lane keeps copies of the batches it is given, small ones put together. When memory is refused or asked for, or
//! a lane has its share, everything the lane keeps leaves for its spill file, in the order in which it came.
//!
//! Invariants:
//! 1. Every row is in exactly one place: a lane's blocks or its file; the file's rows came first.
//! 2. Once the sink has finished nothing changes any more: readers share blocks and files, each with a place of its own.
//! 3. Spilling takes memory from the lane's account only, which blocks cannot use up.
//! 4. Blocks and files live as long as a reader that has not ended.
//!
//! Must not know: plans, why rows are read again.

mod keep;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use crate::data::DataType;
use crate::exec::{Handoff, SinkBox, SourceBox};
use std::sync::Arc;

/// What takes the rows, of columns of `types`, and what makes sources of them.
pub(crate) fn materialize(types: Vec<DataType>) -> (SinkBox, Reader) {
    let types: Arc<[DataType]> = types.into();
    let handoff = Handoff::new();
    let sink = sink::MaterializeSink::new(Arc::clone(&types), handoff.clone());
    (SinkBox::new(sink), Reader { types, handoff })
}

/// Makes sources that emit the rows kept.
#[derive(Clone)]
pub(crate) struct Reader {
    types: Arc<[DataType]>,
    handoff: Handoff<sink::Kept>,
}

impl Reader {
    /// One more source of all rows.
    pub(crate) fn source(&self) -> SourceBox {
        SourceBox::new(source::MaterializedSource::new(Arc::clone(&self.types), self.handoff.clone()))
    }
}

/// About the bytes of a row.
fn row_bytes(types: &[DataType]) -> usize {
    /// What a string is guessed to take beside its view.
    const STRING_BYTES: usize = 16;
    let value = |t: &DataType| {
        let string = if t.physical() == crate::data::PhysicalType::View { STRING_BYTES } else { 0 };
        t.value_bytes() + 1 + string
    };
    types.iter().map(value).sum::<usize>().max(1)
}

/// A buffer is at least this large.
const BUFFER_BYTES: usize = 4 << 10;
