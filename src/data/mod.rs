//! What flows through pipelines: types, vectors, selections, batches.
//!
//! Owns: logical [`DataType`]s, [`Scalar`]s, typed buffers in slabs ([`Buf`], [`BufMut`]), [`Bitmap`]s, the
//! [`Vector`] representations, [`Batch`]es, hashes and key bits of values, and the bridge to and from Arrow.
//!
//! Invariants:
//! 1. Vectors are immutable once built and cheap to clone (reference counts only).
//! 2. Large bytes live in slabs or in Arrow buffers someone else accounts for; never in a `Vec`.
//! 3. A vector's representation (flat, constant, dictionary) and the width of a decimal's values may change from one
//!    batch to the next; its logical type may not.
//! 4. Values at null or unselected positions are unspecified but readable.
//!
//! Must not know: expressions, operators, files.

mod arrow_bridge;
mod batch;
mod bitmap;
mod buffer;
mod dictionary;
pub(crate) mod hash;
pub(crate) mod key_bits;
mod scalar;
mod types;
mod vector;
mod views;
mod words;

pub(crate) use arrow_bridge::{arrow_schema, copy_arrow_array, from_arrow_array, to_record_batch};
pub(crate) use batch::{Batch, Cluster, Selection};
pub(crate) use bitmap::{Bitmap, BitmapMut};
pub(crate) use buffer::{Buf, BufMut, Plain};
pub(crate) use dictionary::{Dictionary, DictionaryIds};
pub use scalar::civil_from_days;
pub use scalar::{Scalar, Value};
pub(crate) use scalar::{days_from_civil, format_decimal};
pub use types::{DataType, Field, TimeUnit};
pub(crate) use types::{PhysicalType, Schema};
pub(crate) use vector::{Bounds, FlatVector, Values, Vector, for_each_values};
pub(crate) use views::{
    MAX_INLINE_BYTES, SHARED_BYTES, StringViews, ViewBuilder, view_bytes, view_inline, view_len, view_of,
};
pub(crate) use words::AtomicWords;
