//! How the operators of a pipeline hang together, and the stages that follow from it.
//!
//! A pipeline is a tree whose root is its sink: each source and each transform has one operator its rows go to, and
//! an operator that several feed is where branches meet. Transforms are numbered by position, the sink's number is the
//! one after the last.
//!
//! Invariants:
//! 1. A transform's number is less than that of the operator it feeds, so walks along the tree end.
//! 2. A transform's drain is a stage of its own, after all stages that feed the transform.
//! 3. An operator lives, on each lane, from the first stage that feeds it to the last one or its drain.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

/// The tree of a pipeline's operators.
pub(crate) struct Shape {
    /// For each source, how its rows leave it.
    pub(crate) feeds: Vec<Feed>,
    /// For each transform, the number of the operator its rows go to.
    pub(crate) next: Vec<usize>,
}

/// How the rows of a source leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Feed {
    /// The number of the operator they go to.
    pub(crate) next: usize,
    /// The most lanes that may read it; 1 keeps the order of its rows.
    pub(crate) max_lanes: usize,
}

/// Where rows of a stage come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A main source.
    Source(usize),
    /// The drain of a transform.
    Drain(usize),
}

/// One stage: where rows come from, and the transforms they go through on their way to the sink.
pub(super) struct Stage {
    pub(super) origin: Origin,
    pub(super) path: Vec<usize>,
    /// Lanes from this number on have nothing to do in it.
    pub(super) max_lanes: usize,
}

/// A pipeline's stages in order.
pub(super) struct Stages {
    pub(super) list: Vec<Stage>,
    /// For each transform, the stages through which it lives.
    pub(super) lives: Vec<RangeInclusive<usize>>,
}

impl Shape {
    /// Sources that all feed the first of a chain of transforms.
    #[cfg(test)]
    pub(crate) fn chain(sources: usize, transforms: usize) -> Self {
        let feed = Feed { next: 0, max_lanes: usize::MAX };
        Self { feeds: vec![feed; sources], next: (1..=transforms).collect() }
    }

    /// The transforms from number `from` on to the sink.
    fn path(&self, from: usize) -> Vec<usize> {
        std::iter::successors(Some(from), |&at| self.next.get(at).copied())
            .take_while(|&at| at < self.next.len())
            .collect()
    }

    /// The stages: each source, and each transform's drain, if it has one, as soon as nothing feeds the transform any
    /// more.
    pub(super) fn stages(&self, has_drain: &dyn Fn(usize) -> bool) -> Stages {
        let sink = self.next.len();
        let mut feeding = vec![0; sink + 1];
        for next in self.next.iter().copied().chain(self.feeds.iter().map(|feed| feed.next)) {
            feeding[next] += 1;
        }
        let mut list = Vec::new();
        let mut begins = vec![usize::MAX; sink];
        let mut ends = vec![0; sink];
        for (source, feed) in self.feeds.iter().enumerate() {
            let path = self.path(feed.next);
            for &at in &path {
                begins[at] = begins[at].min(list.len());
            }
            list.push(Stage { origin: Origin::Source(source), path, max_lanes: feed.max_lanes });
            let mut fed = feed.next;
            feeding[fed] -= 1;
            while fed < sink && feeding[fed] == 0 {
                let next = self.next[fed];
                if has_drain(fed) {
                    let (origin, path) = (Origin::Drain(fed), self.path(next));
                    list.push(Stage { origin, path, max_lanes: usize::MAX });
                }
                ends[fed] = list.len() - 1;
                feeding[next] -= 1;
                fed = next;
            }
        }
        let lives = begins.into_iter().zip(ends).map(|(begin, end)| begin..=end).collect();
        Stages { list, lives }
    }
}

impl Stages {
    /// For each stage, the most that is alive at once in it or any later one, of sources and of transforms, given what
    /// each of them takes.
    pub(super) fn peaks(
        &self,
        source: &dyn Fn(usize) -> usize,
        transform: &dyn Fn(usize) -> usize,
    ) -> Vec<(usize, usize)> {
        let at_stage = |(at, stage): (usize, &Stage)| {
            let of_source = match stage.origin {
                Origin::Source(number) => source(number),
                Origin::Drain(_) => 0,
            };
            let live = self.lives.iter().enumerate().filter(|(_, life)| life.contains(&at));
            (of_source, live.map(|(number, _)| transform(number)).sum::<usize>())
        };
        let mut peaks: Vec<(usize, usize)> = self.list.iter().enumerate().map(at_stage).collect();
        for at in (1..peaks.len()).rev() {
            let ((source, transforms), later) = (peaks[at - 1], peaks[at]);
            peaks[at - 1] = (source.max(later.0), transforms.max(later.1));
        }
        peaks
    }
}

/// The operators of a run that want no more input, on any lane.
pub(super) struct Cut {
    /// How often one was closed; tells a lane to look again.
    count: AtomicUsize,
    closed: Box<[AtomicBool]>,
}

impl Cut {
    /// All operators of a pipeline of so many transforms want input.
    pub(super) fn new(transforms: usize) -> Self {
        let closed = (0..=transforms).map(|_| AtomicBool::new(false)).collect();
        Self { count: AtomicUsize::new(0), closed }
    }

    /// How often an operator was closed.
    pub(super) fn count(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// An operator wants no more. That is counted every time: of two lanes that close one together, neither may go on before
    /// it has looked.
    pub(super) fn close(&self, operator: usize) {
        self.closed[operator].store(true, SeqCst);
        self.count.fetch_add(1, SeqCst);
    }

    /// How many operators of a path, sink included, get no more input: the last of them is closed.
    pub(super) fn unwanted(&self, path: &[usize]) -> usize {
        let sink = self.closed.len() - 1;
        let operators = path.iter().copied().chain([sink]);
        let closed = operators.enumerate().filter(|(_, operator)| self.closed[*operator].load(SeqCst));
        closed.last().map_or(0, |(position, _)| position + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(next: usize) -> Feed {
        Feed { next, max_lanes: usize::MAX }
    }

    /// `s0 → 0 ─┐`, `s1 → 1 → 2 ─┴→ 4 → sink`, with `s2` and `3` between.
    fn tree() -> Shape {
        Shape { feeds: vec![feed(0), feed(1), feed(2), feed(3)], next: vec![4, 2, 4, 4, 5] }
    }

    fn origins(stages: &Stages) -> Vec<Origin> {
        stages.list.iter().map(|stage| stage.origin).collect()
    }

    #[test]
    fn drains_follow_the_last_stage_that_feeds_them() {
        use Origin::{Drain, Source};
        let all = tree().stages(&|_| true);
        let expected =
            [Source(0), Drain(0), Source(1), Drain(1), Source(2), Drain(2), Source(3), Drain(3), Drain(4)];
        assert_eq!(origins(&all), expected);
        assert_eq!(all.list[3].path, [2, 4]);
        assert_eq!(all.list[8].path, [0; 0]);
        assert_eq!(all.lives, [0..=1, 2..=3, 2..=5, 6..=7, 0..=8]);
        let none = Shape::chain(2, 2).stages(&|_| false);
        assert_eq!(origins(&none), [Source(0), Source(1)]);
        assert_eq!(none.lives, [0..=1, 0..=1]);
        let drained = Shape::chain(2, 2).stages(&|at| at == 0);
        assert_eq!(origins(&drained), [Source(0), Source(1), Drain(0)]);
        assert_eq!(drained.lives, [0..=2, 0..=2]);
    }

    #[test]
    fn peaks_are_what_lives_at_once_from_then_on() {
        let stages = tree().stages(&|at| at == 2);
        // In the third stage: its source, 2, and 4.
        let peaks = stages.peaks(&|source| source * 10, &|at| [0, 7, 100, 1, 5][at]);
        assert_eq!(peaks, [(30, 112), (30, 112), (30, 105), (30, 105), (30, 6)]);
        assert_eq!(Shape::chain(3, 0).stages(&|_| false).peaks(&|source| source + 1, &|_| 0), [(3, 0); 3]);
    }

    #[test]
    fn a_cut_is_felt_on_the_paths_through_it() {
        let cut = Cut::new(5);
        assert_eq!((cut.count(), cut.unwanted(&[1, 2, 4])), (0, 0));
        for lane in 0..2 {
            let seen = cut.count();
            cut.close(2);
            assert_ne!(cut.count(), seen, "lane {lane} looks again");
        }
        assert_eq!((cut.unwanted(&[1, 2, 4]), cut.unwanted(&[0, 4]), cut.unwanted(&[2, 4])), (2, 0, 1));
        cut.close(5);
        assert_eq!((cut.unwanted(&[0, 4]), cut.unwanted(&[])), (3, 1));
    }
}
