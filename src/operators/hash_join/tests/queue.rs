//! Which lane may take what of the pairs that are left.

use super::super::HashJoinKind;
use super::super::load::Part;
use super::super::plan::Plan;
use super::super::queue::{Item, Next, Pair, Queue};
use super::super::split::Split;
use super::large::int_spec;
use crate::mem::Knobs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Wake, Waker};

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// A queue of `pairs` pairs without rows, and two lanes that hold nothing.
fn queue(pairs: usize) -> (Queue, [(Arc<Wakes>, Waker); 2]) {
    let plan = Plan::new(int_spec(HashJoinKind::Inner, &[0]));
    let knobs = Knobs { lanes: 2, batch_rows: 512, block_bytes: 16 << 10, fan_out: 16 };
    let split = Split::first(&plan, &knobs, 1 << 20);
    let pair = || Pair {
        build: Part::new(&[], 0),
        probe: Part::new(&[], 0),
        split,
        is_skewed: false,
        is_reversed: false,
    };
    let queue = Queue::new(0);
    queue.extend((0..pairs).map(|_| Item::Pair(pair())));
    let lane = || {
        let wakes = Arc::<Wakes>::default();
        (Arc::clone(&wakes), Waker::from(wakes))
    };
    (queue, [lane(), lane()])
}

fn taken(next: Next) -> Pair {
    match next {
        Next::Item(Item::Pair(pair)) => pair,
        _ => panic!("a pair is there for the lane"),
    }
}

#[test]
fn a_lane_that_is_alone_when_refused_is_the_sole_one_until_it_shares() {
    let (queue, [(_, first), (wakes, second)]) = queue(3);
    let pair = taken(queue.take(&first));
    let Err(_pair) = queue.requeue(pair, &first) else { panic!("nobody else is active") };
    assert!(matches!(queue.take(&second), Next::Wait(_)), "there is a pair, but not for another lane");
    queue.share();
    assert_eq!(wakes.0.load(Relaxed), 1, "who waited may look again");
    let _pair = taken(queue.take(&second));
    queue.share();
    assert_eq!(wakes.0.load(Relaxed), 1, "there was nobody to share with");
    queue.leave();
    queue.leave();
    let _pair = taken(queue.take(&first));
    queue.leave();
    assert!(matches!(queue.take(&second), Next::Over));
}

#[test]
fn a_lane_that_others_have_met_meanwhile_was_not_alone() {
    let (queue, [(_, first), (_, second)]) = queue(3);
    let pair = taken(queue.take(&first));
    let alone = queue.alone().expect("nobody else is active");
    let _other = taken(queue.take(&second));
    assert!(queue.alone().is_none());
    queue.leave();
    assert!(!queue.stay_alone(alone), "the other may have taken the memory it was refused");
    let alone = queue.alone().expect("the other has left");
    assert!(queue.stay_alone(alone));
    assert!(matches!(queue.take(&second), Next::Wait(_)));
    // A sole lane that leaves is sole no longer.
    drop(pair);
    queue.leave();
    let _pair = taken(queue.take(&second));
}

#[test]
fn a_pair_is_put_back_while_another_lane_is_active() {
    let (queue, [(wakes, first), (_, second)]) = queue(2);
    let pair = taken(queue.take(&first));
    let _other = taken(queue.take(&second));
    assert!(queue.requeue(pair, &first).is_ok());
    assert_eq!(wakes.0.load(Relaxed), 0);
    queue.leave();
    assert_eq!(wakes.0.load(Relaxed), 1);
    let _pair = taken(queue.take(&first));
    assert!(queue.alone().is_some());
}
