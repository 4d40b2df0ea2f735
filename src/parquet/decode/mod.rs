//! From page bytes to values.
//!
//! Owns: the bit-packed and RLE decoders ([`Hybrid`], [`Kernels`]), the plain ones, those of differences ([`Delta`],
//! [`DeltaLength`], [`DeltaBytes`]) and of split bytes ([`Split`]).
//!
//! Invariants:
//! 1. No index that comes from a file is used unchecked; a page that is too short is an error, not a panic.
//! 2. Every decoder can decode all of the next `n` values, skip them, or decode only some of them, and leaves its
//!    position after the `n` values either way.
//! 3. Kernels chosen at run time give the same values as the portable ones.
//!
//! Must not know: files, chunks, vectors.

mod byte_stream_split;
mod delta;
mod delta_bytes;
mod delta_length;
mod hybrid;
mod plain;
mod unpack;

pub(crate) use byte_stream_split::Split;
pub(crate) use delta::Delta;
pub(crate) use delta_bytes::DeltaBytes;
pub(crate) use delta_length::DeltaLength;
pub(crate) use hybrid::Hybrid;
pub(crate) use plain::{bits, bits_at, decimal_from_be, fixed, fixed_at, for_each_bytes};
pub(crate) use unpack::Kernels;

/// A page's bytes do not hold what its header promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short(pub(crate) &'static str);

pub(crate) type Result<T> = std::result::Result<T, Short>;
