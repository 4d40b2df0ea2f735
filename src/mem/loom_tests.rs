//! Models of the room's races. Run with
//! `RUSTFLAGS="--cfg loom" cargo test --release --lib mem::loom_ --target-dir target/loom`.
//!
//! The code under test is the real one; slabs, which are mappings, stay out of the models.

use super::{Account, Denied, MemoryTicket, Pool, Reservation, Tenant};
use crate::sync::{Arc, AtomicUsize, Ordering, thread};
use std::task::{Wake, Waker};

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Counts wakes. The waker is std's, hence std's `Arc`; the count is loom's.
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn counter() -> (std::sync::Arc<Counter>, Waker) {
    let counter = std::sync::Arc::new(Counter(AtomicUsize::new(0)));
    let waker = Waker::from(std::sync::Arc::clone(&counter));
    (counter, waker)
}

fn reserve(pool: &Pool, bytes: usize) -> Result<Reservation, Denied> {
    let mut held = Reservation::empty(pool);
    held.try_grow(bytes).map(|()| held)
}

#[test]
fn loom_limits_hold_in_nested_pools() {
    check(|| {
        let engine = Pool::new("engine", 10);
        let query = engine.child("query", 7);
        let threads: Vec<_> = [(engine.clone(), 6), (query.clone(), 5)]
            .into_iter()
            .map(|(pool, bytes)| {
                let (engine, query) = (engine.clone(), query.clone());
                thread::spawn(move || {
                    let held = reserve(&pool, bytes);
                    assert!(engine.granted_bytes() <= 10 && query.granted_bytes() <= 7);
                    drop(held);
                })
            })
            .collect();
        let held = reserve(&query, 3);
        assert!(engine.granted_bytes() <= 10 && query.granted_bytes() <= 7);
        drop(held);
        for thread in threads {
            thread.join().expect("no assertion fails");
        }
        assert_eq!((engine.granted_bytes(), query.granted_bytes()), (0, 0));
        assert!(engine.peak_bytes() <= 10 && query.peak_bytes() <= 7);
    });
}

#[test]
fn loom_a_ticket_is_served_by_whoever_frees() {
    check(|| {
        let pool = Pool::new("engine", 10);
        let held = reserve(&pool, 10).expect("fits");
        let _at_work = Tenant::of(&pool);
        let (count, waker) = counter();
        let freeing = thread::spawn(move || drop(held));
        let ticket = MemoryTicket::new(&pool, 4, &waker).expect("possible");
        let early = ticket.take();
        freeing.join().expect("no assertion fails");
        let taken =
            early.or_else(|| ticket.take()).expect("everything is free, and the ticket was not served");
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        assert_eq!((taken.0.bytes(), pool.granted_bytes()), (4, 4));
        drop((ticket, taken));
        assert_eq!(pool.granted_bytes(), 0);
    });
}

/// The refused grant holds bytes of the query for a moment; the ticket that met them must still be served.
#[test]
fn loom_a_grant_rolled_back_serves_who_met_it() {
    check(|| {
        let engine = Pool::new("engine", 10);
        let query = engine.child("query", 10);
        let other = reserve(&engine, 5).expect("fits");
        let refused = {
            let query = query.clone();
            thread::spawn(move || assert!(reserve(&query, 8).is_err(), "the engine has 5 left"))
        };
        let (_, waker) = counter();
        let ticket = MemoryTicket::new(&query, 5, &waker).expect("possible");
        refused.join().expect("no assertion fails");
        assert!(ticket.take().is_some(), "5 bytes are free");
        drop((ticket, other));
        assert_eq!((engine.granted_bytes(), query.granted_bytes()), (0, 0));
    });
}

#[test]
fn loom_a_ticket_dropped_while_it_is_served_returns_its_bytes() {
    check(|| {
        let pool = Pool::new("engine", 10);
        let mut held = reserve(&pool, 10).expect("fits");
        let (_, waker) = counter();
        let first = MemoryTicket::new(&pool, 8, &waker).expect("possible");
        let second = MemoryTicket::new(&pool, 5, &waker).expect("possible");
        let parts = [held.split(6), held];
        let freeing = thread::spawn(move || {
            let [part, rest] = parts;
            drop(part);
            rest
        });
        drop(first);
        let rest = freeing.join().expect("no assertion fails");
        assert!(second.take().is_some(), "nothing is before it, and 6 bytes are free");
        drop((second, rest));
        assert_eq!(pool.granted_bytes(), 0);
    });
}

#[test]
fn loom_tickets_are_served_in_order() {
    check(|| {
        let pool = Pool::new("engine", 10);
        let mut held = reserve(&pool, 10).expect("fits");
        let (_, waker) = counter();
        let first = MemoryTicket::new(&pool, 6, &waker).expect("possible");
        let second = MemoryTicket::new(&pool, 2, &waker).expect("possible");
        let part = held.split(4);
        let freeing = thread::spawn(move || drop(part));
        let overtaking = {
            let pool = pool.clone();
            thread::spawn(move || assert!(reserve(&pool, 1).is_err(), "tickets wait"))
        };
        assert!(second.take().is_none(), "the first needs 6, at most 4 are free");
        freeing.join().expect("no assertion fails");
        overtaking.join().expect("no assertion fails");
        assert!(first.take().is_none() && second.take().is_none());
        drop(held);
        assert!(first.take().is_some() && second.take().is_some());
        drop((first, second));
        assert_eq!(pool.granted_bytes(), 0);
    });
}

/// The last who would give bytes back leaves while a ticket is drawn: the ticket is told, before or after.
#[test]
fn loom_a_stalled_ticket_is_told() {
    check(|| {
        let pool = Pool::new("engine", 10);
        let kept = reserve(&pool, 8).expect("fits");
        let tenant = Tenant::of(&pool);
        let (count, waker) = counter();
        let leaving = thread::spawn(move || drop(tenant));
        let ticket = MemoryTicket::new(&pool, 4, &waker).expect("possible");
        let early = ticket.is_stalled();
        leaving.join().expect("no assertion fails");
        assert!(ticket.is_stalled() && ticket.take().is_none());
        assert!(early || count.0.load(Ordering::SeqCst) > 0, "it would wait for ever");
        drop((ticket, kept));
        assert_eq!(pool.granted_bytes(), 0);
    });
}

#[test]
fn loom_a_floor_survives_concurrent_trims() {
    check(|| {
        let pool = Pool::new("engine", 10);
        let account = Arc::new(Account::open(&pool, 4, 4, 0).expect("fits"));
        account.charge(6).expect("fits");
        account.release(6);
        assert_eq!(pool.granted_bytes(), 8, "4 of them may be trimmed");
        // Nobody gets anything beyond what the account has.
        let rest = reserve(&pool, 10 - pool.granted_bytes()).expect("fits");
        let trims: Vec<_> = (0..2)
            .map(|_| {
                let account = Arc::clone(&account);
                thread::spawn(move || account.trim())
            })
            .collect();
        account.charge(4).expect("the floor is irrevocable");
        account.release(4);
        for trim in trims {
            trim.join().expect("no assertion fails");
        }
        account.trim();
        assert_eq!(pool.granted_bytes(), rest.bytes() + 4);
        drop((account, rest));
        assert_eq!(pool.granted_bytes(), 0);
    });
}

/// The handle goes while bytes come back on another thread, which keeps the account as slabs do.
#[test]
fn loom_a_closed_account_keeps_no_slack() {
    check(|| {
        let pool = Pool::new("engine", 20);
        let account = Account::open(&pool, 4, 1, 0).expect("fits");
        account.charge(9).expect("fits");
        let view = account.view();
        let releasing = thread::spawn(move || {
            view.shared.release(6);
            view
        });
        drop(account);
        let view = releasing.join().expect("no assertion fails");
        assert_eq!(pool.granted_bytes(), 3, "9 charged, 6 released, none kept back");
        drop(view);
        assert_eq!(pool.granted_bytes(), 0);
    });
}

#[test]
fn loom_what_is_used_is_reserved() {
    check(|| {
        let pool = Pool::new("engine", 12);
        let account = Arc::new(Account::open(&pool, 2, 2, 0).expect("fits"));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let (account, pool) = (Arc::clone(&account), pool.clone());
                thread::spawn(move || {
                    if account.charge(5).is_ok() {
                        assert!(pool.granted_bytes() >= 5);
                        account.release(5);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no assertion fails");
        }
        assert_eq!(account.used_bytes(), 0);
        account.trim();
        assert_eq!(pool.granted_bytes(), 2);
        drop(account);
        assert_eq!(pool.granted_bytes(), 0);
    });
}
