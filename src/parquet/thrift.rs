//! Just enough of Thrift's compact protocol to read page headers and page indexes.
//!
//! Invariants:
//! 1. Nothing is allocated; every length is checked against the bytes at hand before it is used.
//! 2. Unknown fields are skipped; nesting deeper than [`MAX_DEPTH`] is refused, so input cannot exhaust the stack.

/// Nesting accepted in skipped fields. Page headers nest three deep.
const MAX_DEPTH: usize = 16;

/// Why a header could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThriftError {
    /// The bytes end inside the header; more of them may help.
    Truncated,
    /// The bytes are no Thrift structure of the expected shape.
    Malformed(&'static str),
}

type Result<T> = std::result::Result<T, ThriftError>;

/// Compact-protocol type of a field or element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    True,
    False,
    Byte,
    I16,
    I32,
    I64,
    Double,
    Binary,
    List,
    Set,
    Map,
    Struct,
    Uuid,
}

impl Kind {
    fn from_nibble(nibble: u8) -> Result<Self> {
        Ok(match nibble {
            1 => Self::True,
            2 => Self::False,
            3 => Self::Byte,
            4 => Self::I16,
            5 => Self::I32,
            6 => Self::I64,
            7 => Self::Double,
            8 => Self::Binary,
            9 => Self::List,
            10 => Self::Set,
            11 => Self::Map,
            12 => Self::Struct,
            13 => Self::Uuid,
            _ => return Err(ThriftError::Malformed("unknown field type")),
        })
    }
}

/// Reads one structure from the front of some bytes.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the beginning of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    fn byte(&mut self) -> Result<u8> {
        let byte = *self.bytes.get(self.at).ok_or(ThriftError::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn advance(&mut self, bytes: u64) -> Result<()> {
        if bytes > (self.bytes.len() - self.at) as u64 {
            return Err(ThriftError::Truncated);
        }
        self.at += bytes as usize;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ThriftError::Malformed("a number of more than 64 bits"))
    }

    fn zigzag(&mut self) -> Result<i64> {
        let raw = self.varint()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// The value of an `i32` field.
    pub(crate) fn i32(&mut self) -> Result<i32> {
        i32::try_from(self.zigzag()?).map_err(|_| ThriftError::Malformed("a number of more than 32 bits"))
    }

    /// The value of an `i64` field.
    pub(crate) fn i64(&mut self) -> Result<i64> {
        self.zigzag()
    }

    /// The value of a `bool` in a list.
    pub(crate) fn element_bool(&mut self) -> Result<bool> {
        Ok(self.byte()? == 1)
    }

    /// The value of a `binary` field.
    pub(crate) fn binary(&mut self) -> Result<&'a [u8]> {
        let len = self.varint()?;
        let start = self.at;
        self.advance(len)?;
        Ok(&self.bytes[start..self.at])
    }

    /// The kind and the number of a list's elements, which follow. Every element takes at least one byte, so there are
    /// no more than bytes left.
    pub(crate) fn list(&mut self) -> Result<(Kind, usize)> {
        let head = self.byte()?;
        let kind = Kind::from_nibble(head & 0x0f)?;
        let len = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        match usize::try_from(len) {
            Ok(len) if len <= self.bytes.len() - self.at => Ok((kind, len)),
            _ => Err(ThriftError::Truncated),
        }
    }

    /// The next field of the current structure, whose last field id was `last`; `None` at its end.
    pub(crate) fn field(&mut self, last: &mut i16) -> Result<Option<(i16, Kind)>> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        let kind = Kind::from_nibble(head & 0x0f)?;
        let id = match head >> 4 {
            0 => i16::try_from(self.zigzag()?).map_err(|_| ThriftError::Malformed("field id")),
            delta => last.checked_add(delta.into()).ok_or(ThriftError::Malformed("field id")),
        }?;
        *last = id;
        Ok(Some((id, kind)))
    }

    /// Skips the value of a field.
    pub(crate) fn skip(&mut self, kind: Kind) -> Result<()> {
        self.skip_nested(kind, MAX_DEPTH)
    }

    fn skip_nested(&mut self, kind: Kind, depth: usize) -> Result<()> {
        let depth = depth.checked_sub(1).ok_or(ThriftError::Malformed("nested too deep"))?;
        match kind {
            Kind::True | Kind::False => Ok(()),
            Kind::Byte => self.advance(1),
            Kind::I16 | Kind::I32 | Kind::I64 => self.varint().map(|_| ()),
            Kind::Double => self.advance(8),
            Kind::Uuid => self.advance(16),
            Kind::Binary => {
                let len = self.varint()?;
                self.advance(len)
            }
            Kind::List | Kind::Set => {
                let head = self.byte()?;
                let kind = Kind::from_nibble(head & 0x0f)?;
                let len = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                self.skip_elements(len, &[kind], depth)
            }
            Kind::Map => {
                let len = self.varint()?;
                if len == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                let kinds = [Kind::from_nibble(kinds >> 4)?, Kind::from_nibble(kinds & 0x0f)?];
                self.skip_elements(len, &kinds, depth)
            }
            Kind::Struct => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip_nested(kind, depth)?;
                }
                Ok(())
            }
        }
    }

    /// Every element takes at least one byte, so a lying count ends at the end of the bytes.
    fn skip_elements(&mut self, len: u64, kinds: &[Kind], depth: usize) -> Result<()> {
        for _ in 0..len {
            for &kind in kinds {
                match kind {
                    Kind::True | Kind::False => self.advance(1)?,
                    other => self.skip_nested(other, depth)?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_nesting_and_lying_counts_end() {
        let deep = [0x1c; 4096];
        assert_eq!(Reader::new(&deep).skip(Kind::Struct), Err(ThriftError::Malformed("nested too deep")));
        let list = [0xf5, 0xff, 0xff, 0xff, 0xff, 0x7f, 0];
        assert_eq!(Reader::new(&list).skip(Kind::List), Err(ThriftError::Truncated));
        let binary = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Reader::new(&binary).skip(Kind::Binary), Err(ThriftError::Truncated));
    }

    #[test]
    fn numbers_are_zigzag_varints() {
        assert_eq!(Reader::new(&[0x01]).i32(), Ok(-1));
        assert_eq!(Reader::new(&[0xac, 0x02]).i32(), Ok(150));
        assert!(Reader::new(&[0xff; 11]).i32().is_err());
    }
}
