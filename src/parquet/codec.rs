//! Decompression of page bodies into buffers of known size.
//!
//! Invariants:
//! 1. The output slice is exactly as long as the header says; a body that yields more or fewer bytes is an error.
//! 2. Contexts that can be reused are kept, one per lane; no codec allocates in proportion to the page. What Brotli,
//!    gzip and LZ4 frames allocate is bounded by the formats (16 MiB, 32 KiB and 8 MiB).

use super::snappy;
use std::io::Read;

/// A page compression the reader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    None,
    Snappy,
    Gzip,
    Brotli,
    Zstd,
    Lz4Raw,
    /// LZ4 by the number that does not say how it is framed: as Hadoop does it, as an LZ4 frame or not at all.
    Lz4,
}

/// Decompression contexts of one lane.
pub(crate) struct Decompressor {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Decompressor {
    /// No context yet; they are made on first use.
    pub(crate) fn new() -> Self {
        Self { zstd: None }
    }

    /// Decompresses `input` into all of `out`; else says what is wrong.
    pub(crate) fn decompress(&mut self, codec: Codec, input: &[u8], out: &mut [u8]) -> Result<(), String> {
        let written = match codec {
            Codec::None => {
                if input.len() == out.len() {
                    out.copy_from_slice(input);
                }
                input.len()
            }
            Codec::Snappy => return snappy::decompress(input, out),
            Codec::Lz4Raw => lz4_flex::block::decompress_into(input, out).map_err(|e| e.to_string())?,
            Codec::Zstd => {
                let context = match &mut self.zstd {
                    Some(context) => context,
                    none => none.insert(zstd::bulk::Decompressor::new().map_err(|e| e.to_string())?),
                };
                context.decompress_to_buffer(input, out).map_err(|e| e.to_string())?
            }
            Codec::Gzip => return fill(flate2::read::MultiGzDecoder::new(input), out),
            Codec::Brotli => return fill(brotli::Decompressor::new(input, 4096), out),
            Codec::Lz4 => return lz4_of_any_framing(input, out),
        };
        if written == out.len() {
            Ok(())
        } else {
            Err(format!("it decompresses to {written} bytes where its header says {}", out.len()))
        }
    }
}

/// Writers agree on no framing, and none can be told from another for certain: what fills `out` exactly is right.
fn lz4_of_any_framing(input: &[u8], out: &mut [u8]) -> Result<(), String> {
    if lz4_of_hadoop(input, out).is_some() || fill(lz4_flex::frame::FrameDecoder::new(input), out).is_ok() {
        return Ok(());
    }
    match lz4_flex::block::decompress_into(input, out) {
        Ok(written) if written == out.len() => Ok(()),
        Ok(written) => Err(format!("it decompresses to {written} bytes where its header says {}", out.len())),
        Err(e) => Err(format!("it is LZ4 in none of the known framings: {e}")),
    }
}

/// Blocks, each after its lengths as big-endian numbers: decompressed and compressed.
fn lz4_of_hadoop(mut input: &[u8], mut out: &mut [u8]) -> Option<()> {
    while let Some((&[a, b, c, d, e, f, g, h], rest)) = input.split_first_chunk::<8>() {
        let (to, out_rest) = out.split_at_mut_checked(u32::from_be_bytes([a, b, c, d]) as usize)?;
        let (from, rest) = rest.split_at_checked(u32::from_be_bytes([e, f, g, h]) as usize)?;
        if lz4_flex::block::decompress_into(from, to).ok()? != to.len() {
            return None;
        }
        (input, out) = (rest, out_rest);
    }
    (input.is_empty() && out.is_empty()).then_some(())
}

fn fill(mut from: impl Read, out: &mut [u8]) -> Result<(), String> {
    from.read_exact(out).map_err(|e| e.to_string())?;
    match from.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(format!("it decompresses to more than the {} bytes its header says", out.len())),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
pub(super) fn compress(codec: Codec, input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    match codec {
        Codec::None => input.to_vec(),
        Codec::Snappy => snap::raw::Encoder::new().compress_vec(input).expect("compresses"),
        Codec::Lz4Raw => lz4_flex::block::compress(input),
        // As Hadoop does it, in blocks.
        Codec::Lz4 => input.chunks(3000).fold(Vec::new(), |mut out, block| {
            let compressed = lz4_flex::block::compress(block);
            out.extend((block.len() as u32).to_be_bytes());
            out.extend((compressed.len() as u32).to_be_bytes());
            out.extend(compressed);
            out
        }),
        Codec::Zstd => zstd::bulk::compress(input, 1).expect("compresses"),
        Codec::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(input).expect("a Vec takes all");
            out.finish().expect("a Vec takes all")
        }
        Codec::Brotli => {
            let mut out = brotli::CompressorWriter::new(Vec::new(), 4096, 1, 20);
            out.write_all(input).expect("a Vec takes all");
            out.into_inner()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Codec; 7] =
        [Codec::None, Codec::Snappy, Codec::Gzip, Codec::Brotli, Codec::Zstd, Codec::Lz4Raw, Codec::Lz4];

    #[test]
    fn every_codec_fills_the_output_exactly_or_fails() {
        let input: Vec<u8> = (0..20_000u32).map(|i| ((i * i) >> 7) as u8).collect();
        let mut decompressor = Decompressor::new();
        for codec in ALL {
            let compressed = compress(codec, &input);
            let mut out = vec![0; input.len()];
            decompressor.decompress(codec, &compressed, &mut out).expect("valid");
            assert_eq!(out, input, "{codec:?}");
            for wrong in [0, 1, input.len() - 1, input.len() + 1] {
                let mut out = vec![0; wrong];
                assert!(decompressor.decompress(codec, &compressed, &mut out).is_err(), "{codec:?} {wrong}");
            }
            if codec != Codec::None {
                for at in (0..compressed.len()).step_by(97) {
                    let mut damaged = compressed.clone();
                    damaged[at] ^= 0x55;
                    // Either an error or other bytes, never a panic.
                    let _ = decompressor.decompress(codec, &damaged, &mut out);
                }
            }
        }
    }
    #[test]
    fn lz4_is_read_in_every_framing() {
        use std::io::Write;
        let input: Vec<u8> = (0..20_000u32).map(|i| ((i * i) >> 9) as u8).collect();
        let mut frame = lz4_flex::frame::FrameEncoder::new(Vec::new());
        frame.write_all(&input).expect("a Vec takes all");
        let framings = [
            compress(Codec::Lz4, &input),
            frame.finish().expect("a Vec takes all"),
            lz4_flex::block::compress(&input),
        ];
        for (at, compressed) in framings.iter().enumerate() {
            let mut out = vec![0; input.len()];
            Decompressor::new().decompress(Codec::Lz4, compressed, &mut out).expect("valid");
            assert_eq!(out, input, "framing {at}");
            for len in [0, 7, 8, compressed.len() / 2, compressed.len() - 9] {
                let cut = Decompressor::new().decompress(Codec::Lz4, &compressed[..len], &mut out);
                assert!(cut.is_err(), "framing {at} cut to {len}");
            }
            for wrong in [0, 1, input.len() - 1, input.len() + 1] {
                let mut out = vec![0; wrong];
                assert!(
                    Decompressor::new().decompress(Codec::Lz4, compressed, &mut out).is_err(),
                    "{at} {wrong}"
                );
            }
        }
    }
}
