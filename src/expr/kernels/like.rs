//! LIKE patterns, compiled to the cheapest search that answers them.

use super::operand::Operand;
use super::simd::{FillBits, Kernel};
use crate::data::{BitmapMut, Buf, StringViews, view_bytes};
use crate::mem::{Account, Denied};
use memchr::memmem::Finder;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    shape: Shape,
    ignore_case: bool,
}

#[derive(Clone, Debug)]
enum Shape {
    /// No wildcard.
    Exact(Box<[u8]>),
    /// `abc%`.
    Prefix(Box<[u8]>),
    /// `%abc`.
    Suffix(Box<[u8]>),
    /// `%abc%`, and `%a%b%` with all parts in order.
    Contains(Vec<Finder<'static>>),
    /// Anything else.
    General { is_open_start: bool, is_open_end: bool, segments: Vec<Segment> },
}

/// What stands between two `%`.
#[derive(Clone, Debug)]
struct Segment {
    /// `None` is `_`: any one character.
    units: Vec<Option<u8>>,
    has_wildcard: bool,
}

impl Matcher {
    /// Compiles a pattern. An escape character at its end stands for itself.
    pub(crate) fn new(pattern: &str, escape: Option<char>, ignore_case: bool) -> Self {
        let lowered;
        let pattern = if ignore_case {
            lowered = pattern.to_lowercase();
            &lowered
        } else {
            pattern
        };
        let mut segments = vec![Segment { units: Vec::new(), has_wildcard: false }];
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            let last = segments.len() - 1;
            let segment = &mut segments[last];
            let literal = match c {
                _ if Some(c) == escape => chars.next().unwrap_or(c),
                '%' => {
                    segments.push(Segment { units: Vec::new(), has_wildcard: false });
                    continue;
                }
                '_' => {
                    segment.units.push(None);
                    segment.has_wildcard = true;
                    continue;
                }
                other => other,
            };
            let mut bytes = [0; 4];
            segment.units.extend(literal.encode_utf8(&mut bytes).bytes().map(Some));
        }
        Self { shape: Shape::of(segments), ignore_case }
    }

    /// Whether the pattern matches the whole of `text`.
    pub(crate) fn matches(&self, text: &[u8]) -> bool {
        if self.ignore_case {
            let lowered = match std::str::from_utf8(text) {
                Ok(text) => text.to_lowercase().into_bytes(),
                Err(_) => text.to_ascii_lowercase(),
            };
            return self.shape.matches(&lowered);
        }
        self.shape.matches(text)
    }

    /// A bit per string.
    pub(crate) fn bits(&self, strings: &StringViews, account: &Account) -> Result<BitmapMut, Denied> {
        let mut bits = BitmapMut::with_len(account, strings.len())?;
        let (views, buffers): (&[u128], &[Buf<u8>]) = (&strings.views, &strings.buffers);
        let out = bits.words_mut();
        match &self.shape {
            Shape::Prefix(prefix) if !self.ignore_case && prefix.len() <= 12 => {
                // The view alone tells for up to four bytes, and for short strings always.
                let wanted = view_prefix(prefix);
                let inline = prefix.len().min(4);
                let mask = view_mask(inline);
                let f = |row: usize| {
                    let view = views[row];
                    view & mask == wanted & mask
                        && view as u32 as usize >= prefix.len()
                        && (prefix.len() <= 4 || view_bytes(&view, buffers).starts_with(prefix))
                };
                FillBits { out, len: views.len(), f }.run();
            }
            Shape::Exact(_)
            | Shape::Prefix(_)
            | Shape::Suffix(_)
            | Shape::Contains(_)
            | Shape::General { .. } => {
                let f = |row: usize| self.matches(view_bytes(&views[row], buffers));
                FillBits { out, len: views.len(), f }.run();
            }
        }
        Ok(bits)
    }
}

/// The bytes after a view's length as they lie in the view.
fn view_prefix(bytes: &[u8]) -> u128 {
    bytes.iter().take(4).enumerate().fold(0, |view, (i, b)| view | u128::from(*b) << (32 + i * 8))
}

/// The bits of a view's first `bytes` bytes of content.
fn view_mask(bytes: usize) -> u128 {
    ((1u128 << (bytes * 8)) - 1) << 32
}

impl Shape {
    fn of(segments: Vec<Segment>) -> Self {
        let is_plain = segments.iter().all(|s| !s.has_wildcard);
        let literal = |s: &Segment| -> Box<[u8]> { s.units.iter().flatten().copied().collect() };
        if is_plain {
            match &segments[..] {
                [only] => return Self::Exact(literal(only)),
                [first, last] if last.units.is_empty() => return Self::Prefix(literal(first)),
                [first, last] if first.units.is_empty() => return Self::Suffix(literal(last)),
                [first, middle @ .., last] if first.units.is_empty() && last.units.is_empty() => {
                    let parts = middle.iter().filter(|s| !s.units.is_empty());
                    return Self::Contains(parts.map(|s| Finder::new(&literal(s)).into_owned()).collect());
                }
                _ => {}
            }
        }
        let is_open_start = segments.first().is_some_and(|s| s.units.is_empty()) && segments.len() > 1;
        let is_open_end = segments.last().is_some_and(|s| s.units.is_empty()) && segments.len() > 1;
        let segments = segments.into_iter().filter(|s| !s.units.is_empty()).collect();
        Self::General { is_open_start, is_open_end, segments }
    }

    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(literal) => text == &**literal,
            Self::Prefix(literal) => text.starts_with(literal),
            Self::Suffix(literal) => text.ends_with(literal),
            Self::Contains(parts) => {
                let mut rest = text;
                parts.iter().all(|part| match part.find(rest) {
                    Some(at) => {
                        rest = &rest[at + part.needle().len()..];
                        true
                    }
                    None => false,
                })
            }
            Self::General { is_open_start, is_open_end, segments } => {
                general(segments, *is_open_start, *is_open_end, text)
            }
        }
    }
}

/// Segments in order, the leftmost place for each; the last one, if it must end the text, at its end.
fn general(segments: &[Segment], is_open_start: bool, is_open_end: bool, text: &[u8]) -> bool {
    let mut at = 0;
    for (i, segment) in segments.iter().enumerate() {
        let is_anchored_start = i == 0 && !is_open_start;
        let is_anchored_end = i + 1 == segments.len() && !is_open_end;
        if is_anchored_start {
            match segment.end_of_match(text, at) {
                Some(end) if !is_anchored_end || end == text.len() => at = end,
                _ => return false,
            }
            continue;
        }
        let found = (at..=text.len())
            .filter(|start| is_boundary(text, *start))
            .filter_map(|start| segment.end_of_match(text, start))
            .find(|end| !is_anchored_end || *end == text.len());
        match found {
            Some(end) => at = end,
            None => return false,
        }
    }
    // Without segments the pattern is empty or only `%`s.
    is_open_end || !segments.is_empty() || text.is_empty()
}

/// Whether a character begins at `at`, or the text ends there.
fn is_boundary(text: &[u8], at: usize) -> bool {
    text.get(at).is_none_or(|b| *b & 0xC0 != 0x80)
}

impl Segment {
    fn end_of_match(&self, text: &[u8], start: usize) -> Option<usize> {
        let mut at = start;
        for unit in &self.units {
            let byte = *text.get(at)?;
            at += 1;
            match unit {
                Some(wanted) if *wanted == byte => {}
                Some(_) => return None,
                None => {
                    while !is_boundary(text, at) {
                        at += 1;
                    }
                }
            }
        }
        Some(at)
    }
}

/// A bit per row for patterns that differ from row to row.
pub(crate) fn dynamic_bits(
    strings: (Operand<'_, u128>, &[Buf<u8>]),
    patterns: (Operand<'_, u128>, &[Buf<u8>]),
    rows: usize,
    (escape, ignore_case): (Option<char>, bool),
    account: &Account,
) -> Result<BitmapMut, Denied> {
    let mut bits = BitmapMut::with_len(account, rows)?;
    let mut last: Option<(Vec<u8>, Matcher)> = None;
    bits.fill_from(|row| {
        let (text, pattern) = (strings.0.get(row), patterns.0.get(row));
        let pattern = view_bytes(&pattern, patterns.1);
        if last.as_ref().is_none_or(|(bytes, _)| bytes != pattern) {
            let matcher = Matcher::new(&String::from_utf8_lossy(pattern), escape, ignore_case);
            last = Some((pattern.to_vec(), matcher));
        }
        last.as_ref().is_some_and(|(_, matcher)| matcher.matches(view_bytes(&text, strings.1)))
    });
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{DataType, FlatVector, Scalar, Values, Vector};
    use crate::expr::kernels::testing::{Lab, Random};

    /// Straight from the definition.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['%', rest @ ..], _) => naive(rest, text) || (!text.is_empty() && naive(pattern, &text[1..])),
            (['_', rest @ ..], [_, tail @ ..]) => naive(rest, tail),
            ([c, rest @ ..], [t, tail @ ..]) => c == t && naive(rest, tail),
            _ => false,
        }
    }

    #[test]
    fn every_shape_agrees_with_the_definition() {
        let lab = Lab::new();
        let mut random = Random::new(23);
        let mut word = |alphabet: &[char], max: u64| -> String {
            (0..random.below(max)).map(|_| alphabet[random.below(alphabet.len() as u64) as usize]).collect()
        };
        let texts: Vec<String> = (0..150).map(|_| word(&['a', 'b', 'ä'], 20)).collect();
        let scalars: Vec<_> = texts.iter().map(|t| Scalar::utf8(t.as_str())).collect();
        let Vector::Flat(FlatVector { values: Values::View(views), .. }) =
            lab.flat(&DataType::Utf8, &scalars)
        else {
            panic!("strings are views")
        };
        for _ in 0..400 {
            let pattern = word(&['a', 'b', 'ä', '%', '%', '_'], 8);
            let chars: Vec<char> = pattern.chars().collect();
            let bits = Matcher::new(&pattern, None, false).bits(&views, &lab.account).expect("fits").freeze();
            for (row, text) in texts.iter().enumerate() {
                let want = naive(&chars, &text.chars().collect::<Vec<_>>());
                assert_eq!(bits.get(row), want, "'{text}' LIKE '{pattern}'");
            }
        }
    }

    #[test]
    fn escapes_and_case() {
        let is = |p, escape, ignore, t: &str| Matcher::new(p, escape, ignore).matches(t.as_bytes());
        assert!(is("a$%b", Some('$'), false, "a%b"));
        assert!(!is("a$%b", Some('$'), false, "axb"));
        assert!(is("a$_%", Some('$'), false, "a_x"));
        assert!(is("%ÄB_", None, true, "xäbC"));
        assert!(!is("ab", None, false, "AB"));
    }
}
