//! Decompression of raw Snappy blocks, the codec most Parquet files are written with.
//!
//! Format: <https://github.com/google/snappy/blob/main/format_description.txt>. A block is the length of what it stands
//! for, then elements: literals, bytes to be copied from the block, and copies of bytes that lie `offset` before the end of
//! the output. Values of eight bytes that differ in their lowest ones become a literal of one to three bytes and a copy,
//! over and over, so what counts is how soon the next element's place is known. A short literal and the copy behind it are
//! read with one load; a copy's kind is used in arithmetic and not in a branch, for the two kinds take turns at random.
//!
//! Invariants:
//! 1. While fast steps are taken at least `INPUT_MARGIN` bytes of input and `OUTPUT_MARGIN` of output are left: a step
//!    reads and writes no further, in whole words.
//! 2. A copy begins within what has been written.

/// A fast step reads at most a tag and a literal of 60 bytes, in steps of 16.
const INPUT_MARGIN: usize = 72;
/// A fast step writes at most a literal of 4 bytes and a copy of 64, in words.
const OUTPUT_MARGIN: usize = 80;
/// The longest literal whose length is in its tag.
const MOST_TAG_LITERAL: usize = 60;
/// The tag of the longest literal of which a word holds the tag, the bytes, and the tag and offset of the copy behind it:
/// 4 bytes.
const MOST_WORD_TAG: u64 = 3 << 2;

/// A short copy from 8 bytes before, whatever its length: tag and offset, and their bits in a word. So are values that ascend.
const BACK_A_WORD: u64 = 0x0801;
const BACK_A_WORD_MASK: u64 = 0xffe3;

/// Bits of a word that hold a copy's offset, but for those in the tag; by the kind of the element.
const OFFSET_MASK: [u32; 4] = [0, 0xff, 0xffff, u32::MAX];
/// By an offset below 8, the bits of a word that repeat.
const PATTERN_MASK: [u64; 8] =
    [0, 0xff, 0xffff, 0xff_ffff, 0xffff_ffff, 0xff_ffff_ffff, 0xffff_ffff_ffff, 0xff_ffff_ffff_ffff];
/// By an offset below 8, what those bits are multiplied with to fill a word.
const PATTERN_REPEAT: [u64; 8] = [
    0,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    1 | 1 << 24 | 1 << 48,
    1 | 1 << 32,
    1 | 1 << 40,
    1 | 1 << 48,
    1 | 1 << 56,
];
/// By an offset below 8, the most bytes of a word after which the pattern begins again.
const PATTERN_STEP: [usize; 8] = [0, 8, 8, 6, 8, 5, 6, 7];

/// What a copy's tag says: its length, and from bit 16 on the high bits of its offset.
static COPIES: [u32; 256] = copies();

const fn copies() -> [u32; 256] {
    let mut all = [0; 256];
    let mut tag = 0;
    while tag < 256 {
        all[tag] = match tag & 3 {
            0 => 0,
            1 => (4 + ((tag >> 2) & 7)) as u32 | ((tag as u32 & 0xe0) << 3) << 16,
            _ => (tag >> 2) as u32 + 1,
        };
        tag += 1;
    }
    all
}

/// Decompresses `input` into all of `out`; else says what is wrong, and the content of `out` is unspecified.
pub(super) fn decompress(input: &[u8], out: &mut [u8]) -> Result<(), String> {
    let Some((len, header_bytes)) = length(input) else {
        return Err("its Snappy block has no valid length".into());
    };
    if len != out.len() as u64 {
        return Err(format!("it decompresses to {len} bytes where its header says {}", out.len()));
    }
    let mut block = Block { input, out, read: header_bytes, written: 0 };
    loop {
        block.take_fast_steps()?;
        if block.read == input.len() {
            break;
        }
        block.step()?;
    }
    match block.written {
        written if written == block.out.len() => Ok(()),
        written => Err(format!("its Snappy block ends after {written} of {len} bytes")),
    }
}

/// The length at the start of a block, and how many bytes that takes.
fn length(input: &[u8]) -> Option<(u64, usize)> {
    let mut len = 0;
    for (at, &byte) in input.iter().enumerate().take(5) {
        len |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Some((len, at + 1));
        }
    }
    None
}

/// A block that is being decompressed.
struct Block<'a> {
    input: &'a [u8],
    out: &'a mut [u8],
    /// Bytes of `input` before the next element.
    read: usize,
    /// Bytes of `out` that have been written; at most its length.
    written: usize,
}

impl<'a> Block<'a> {
    /// Takes elements while they are common ones and margins are left.
    fn take_fast_steps(&mut self) -> Result<(), String> {
        let input_end = self.input.len().checked_sub(INPUT_MARGIN);
        let out_end = self.out.len().checked_sub(OUTPUT_MARGIN);
        let (Some(input_end), Some(out_end)) = (input_end, out_end) else { return Ok(()) };
        let (from, to) = (self.input.as_ptr(), self.out.as_mut_ptr());
        let (mut read, mut written) = (self.read, self.written);
        while read <= input_end && written <= out_end {
            // SAFETY: invariant 1, as the loop has just asked.
            let mut word = u64::from_le(unsafe { from.add(read).cast::<u64>().read_unaligned() });
            if word & 3 == 0 {
                let tag = word & 0xff;
                let len = (tag >> 2) as usize + 1;
                if tag > MOST_WORD_TAG {
                    if len > MOST_TAG_LITERAL {
                        break;
                    }
                    // SAFETY: invariant 1: 64 bytes behind the tag are input, and 64 of output are left.
                    unsafe { copy_literal(from.add(read + 1), to.add(written), len) };
                    (read, written) = (read + 1 + len, written + len);
                    continue;
                }
                let (bytes, end) = (word >> 8, written + len);
                // By 8 bits for the tag, and 8 for each byte: a tag of so short a literal is four times one less than that.
                word = word >> 16 >> (2 * tag);
                let copied = (COPIES[(word & 0xff) as usize] & 0xff) as usize;
                if word & BACK_A_WORD_MASK == BACK_A_WORD && copied + len <= 8 && end >= 8 {
                    // SAFETY: invariants 1 and 2: the word begins within what has been written.
                    unsafe {
                        // The word before the copy, without the literal, of which no byte is copied: loaded after both the
                        // literal and the copy before it were stored, it would have to wait for them.
                        let before = to.add(end - 8).cast::<u64>().read_unaligned();
                        to.add(written).cast::<u64>().write_unaligned(bytes.to_le());
                        to.add(end).cast::<u64>().write_unaligned(before);
                    }
                    (read, written) = (read + 1 + len + 2, end + copied);
                    continue;
                }
                // SAFETY: invariant 1.
                unsafe { to.add(written).cast::<u64>().write_unaligned(bytes.to_le()) };
                (read, written) = (read + 1 + len, end);
                if word & 3 == 0 {
                    continue;
                }
            }
            let (tag, kind) = ((word & 0xff) as usize, (word & 3) as usize);
            if kind == 3 {
                break;
            }
            let copy = COPIES[tag];
            let len = (copy & 0xff) as usize;
            let offset = ((word >> 8) as u32 & OFFSET_MASK[kind] | copy >> 16) as usize;
            if offset.wrapping_sub(1) >= written {
                return Err(bad_offset(offset, written));
            }
            // SAFETY: `offset` is 1 to `written` (invariant 2), and a literal of at most 4 bytes has taken of the margin of
            // output, of which 64 and another word are left (invariant 1).
            unsafe { copy_back(to.add(written), offset, len) };
            // A tag is followed by as many bytes of offset as its kind says.
            (read, written) = (read + 1 + kind, written + len);
        }
        (self.read, self.written) = (read, written);
        Ok(())
    }

    /// Takes one element, whatever it is and whatever is left.
    fn step(&mut self) -> Result<(), String> {
        let tag = usize::from(self.take(1)?[0]);
        let kind = tag & 3;
        let more_bytes = if kind == 3 { 4 } else { kind };
        if kind == 0 {
            let mut len = tag >> 2;
            if len >= MOST_TAG_LITERAL {
                len = little_endian(self.take(len + 1 - MOST_TAG_LITERAL)?);
            }
            let literal = self.take(len.saturating_add(1))?;
            self.room(literal.len())?.copy_from_slice(literal);
            self.written += literal.len();
            return Ok(());
        }
        let copy = COPIES[tag];
        let offset = little_endian(self.take(more_bytes)?) | (copy >> 16) as usize;
        let len = (copy & 0xff) as usize;
        if offset.wrapping_sub(1) >= self.written {
            return Err(bad_offset(offset, self.written));
        }
        self.room(len)?;
        for at in self.written..self.written + len {
            self.out[at] = self.out[at - offset];
        }
        self.written += len;
        Ok(())
    }

    /// The next bytes of input.
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], String> {
        let taken = self.input[self.read..].get(..bytes);
        self.read += bytes;
        taken.ok_or_else(|| "its Snappy block ends within an element".into())
    }

    /// The next bytes of output.
    fn room(&mut self, bytes: usize) -> Result<&mut [u8], String> {
        let len = self.out.len();
        let room = self.out[self.written..].get_mut(..bytes);
        room.ok_or_else(|| format!("its Snappy block stands for more than its {len} bytes"))
    }
}

fn little_endian(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

#[cold]
fn bad_offset(offset: usize, written: usize) -> String {
    format!("its Snappy block copies from {offset} bytes before byte {written}")
}

/// Copies `len` bytes, at most 64, in pieces of 16.
///
/// # Safety
/// 64 bytes can be read and written.
#[inline(always)]
unsafe fn copy_literal(from: *const u8, to: *mut u8, len: usize) {
    let copy = |at: usize| {
        // SAFETY: the caller's; `at` is at most 48.
        unsafe { to.add(at).cast::<u128>().write_unaligned(from.add(at).cast::<u128>().read_unaligned()) };
    };
    copy(0);
    if len > 16 {
        copy(16);
        if len > 32 {
            copy(32);
            copy(48);
        }
    }
}

/// Copies `len` bytes, at most 64, from `offset` before `to`, as if one by one; what lies behind them may be overwritten.
///
/// # Safety
/// `offset` bytes before `to` are of the same buffer, `offset` is not 0, and 72 bytes can be written.
#[inline(always)]
unsafe fn copy_back(to: *mut u8, offset: usize, len: usize) {
    // SAFETY: the caller's, for this and all below: reads begin at or after `from`, and end before what they write.
    let from = unsafe { to.sub(offset) }.cast_const();
    if offset >= 8 {
        let copy = |at: usize| {
            // SAFETY: as above; what is read was written before, for it ends where this writes at the latest.
            unsafe { to.add(at).cast::<u64>().write_unaligned(from.add(at).cast::<u64>().read_unaligned()) };
        };
        copy(0);
        copy(8);
        let mut at = 16;
        while at < len {
            copy(at);
            at += 8;
        }
    } else {
        // SAFETY: as above; of the word only the `offset` bytes that have been written are used.
        let word = u64::from_le(unsafe { from.cast::<u64>().read_unaligned() });
        let pattern = (word & PATTERN_MASK[offset]).wrapping_mul(PATTERN_REPEAT[offset]);
        let mut at = 0;
        while at < len {
            // SAFETY: as above.
            unsafe { to.add(at).cast::<u64>().write_unaligned(pattern.to_le()) };
            at += PATTERN_STEP[offset];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(block: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut out = vec![0; len];
        (snap::raw::Decoder::new().decompress(block, &mut out).ok()? == len).then_some(out)
    }

    /// Compares with the reference decoder, in a buffer whose ends show what is written beyond.
    fn same(block: &[u8], len: usize) {
        let mut guarded = vec![0xa5; len + 128];
        let ours = decompress(block, &mut guarded[64..64 + len]);
        assert!(guarded[..64].iter().chain(&guarded[64 + len..]).all(|&byte| byte == 0xa5));
        match reference(block, len) {
            Some(out) => {
                ours.expect("the reference reads it");
                assert!(out == guarded[64..64 + len]);
            }
            None => assert!(ours.is_err(), "the reference does not read it"),
        }
    }

    fn random(state: &mut u64) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize
    }

    /// A block of random elements, and the length it stands for; few of its offsets are wrong.
    fn random_block(state: &mut u64) -> (Vec<u8>, usize) {
        let (mut body, mut len) = (Vec::new(), 0usize);
        for _ in 0..random(state) % 200 {
            match random(state) % 5 {
                0 | 1 => {
                    let most = [3, 20, 70, 300][random(state) % 4];
                    let literal = random(state) % most + 1;
                    if literal <= MOST_TAG_LITERAL {
                        body.push(((literal - 1) << 2) as u8);
                    } else {
                        let bytes = 2 + random(state) % 3;
                        body.push(((59 + bytes) << 2) as u8);
                        body.extend(&((literal - 1) as u32).to_le_bytes()[..bytes]);
                    }
                    body.extend((0..literal).map(|_| random(state) as u8));
                    len += literal;
                }
                kind => {
                    let most = [1, 9, 40, 3000, 100_000][random(state) % 5].min(len.max(1));
                    let mut offset = random(state) % most + 1;
                    if random(state).is_multiple_of(2000) {
                        offset = len + random(state) % 2;
                    }
                    let kind = if offset >= 1 << 16 { 4 } else { kind };
                    let copied = if kind == 2 && offset < 2048 {
                        let copied = 4 + random(state) % 8;
                        body.push((1 | (copied - 4) << 2 | offset >> 8 << 5) as u8);
                        body.push(offset as u8);
                        copied
                    } else {
                        let copied = 1 + random(state) % 64;
                        let long = kind == 4;
                        body.push(((copied - 1) << 2 | if long { 3 } else { 2 }) as u8);
                        body.extend(&(offset as u32).to_le_bytes()[..if long { 4 } else { 2 }]);
                        copied
                    };
                    len += copied;
                }
            }
        }
        let mut block = Vec::new();
        let mut rest = len;
        while rest >= 0x80 {
            block.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        block.push(rest as u8);
        block.extend(body);
        (block, len)
    }

    #[test]
    fn random_elements_are_read_as_by_the_reference() {
        let mut state = 1;
        let rounds = if cfg!(miri) { 20 } else { 5000 };
        for _ in 0..rounds {
            let (mut block, len) = random_block(&mut state);
            same(&block, len);
            for wrong in [0, len.wrapping_sub(1).min(len), len + 1] {
                same(&block, wrong);
            }
            same(&block[..random(&mut state) % (block.len() + 1)], len);
            let at = random(&mut state) % block.len();
            block[at] ^= 1 << (random(&mut state) % 8);
            same(&block, len);
        }
    }

    #[test]
    fn values_that_differ_in_their_lowest_bytes_are_read() {
        let mut state = 7;
        for range in [1, 2, 200, 60_000, 10_000_000, usize::MAX] {
            let values = (0..5000).map(|_| (random(&mut state) % range) as u64);
            let input: Vec<u8> = values.flat_map(u64::to_le_bytes).collect();
            let block = snap::raw::Encoder::new().compress_vec(&input).expect("compresses");
            let mut out = vec![0; input.len()];
            decompress(&block, &mut out).expect("valid");
            assert!(out == input, "{range}");
        }
    }

    #[test]
    fn lengths_that_do_not_end_are_errors() {
        for block in [&[][..], &[0x80], &[0x80; 9], &[0xff; 4]] {
            let error = decompress(block, &mut [0; 4]).expect_err("no length");
            assert!(error.contains("length"), "{error}");
        }
    }
}
