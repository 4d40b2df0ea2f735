//! Random operations on many threads: limits hold all the time, and nothing is left at the end.

use super::{Account, MemoryTicket, Pool, Reservation, Slab};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Xorshift64* (Marsaglia; Vigna).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn unpark_me() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

/// Waits for a ticket as a lane would.
fn wait_for(ticket: &MemoryTicket) -> Reservation {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some((granted, _)) = ticket.take() {
            return granted;
        }
        assert!(Instant::now() < until, "a ticket was not served");
        thread::park_timeout(Duration::from_secs(1));
    }
}

fn reservations(pool: &Pool, random: &mut Random, rounds: usize) {
    let mut held = Reservation::empty(pool);
    for _ in 0..rounds {
        match random.below(8) {
            0..3 => _ = held.try_grow(random.below(400)),
            3 => held.shrink(random.below(500)),
            4 => {
                let part = held.split(random.below(300));
                if random.below(2) == 0 {
                    held.merge(part);
                }
            }
            5 => drop(MemoryTicket::new(pool, random.below(300), Waker::noop())),
            6 => {
                // Nobody waits for a ticket while it holds anything, so every ticket is served in the end.
                held = Reservation::empty(pool);
                let ticket = MemoryTicket::new(pool, random.below(300), &unpark_me()).expect("possible");
                held.merge(wait_for(&ticket));
            }
            _ => assert!(held.bytes() <= pool.granted_bytes() && pool.available_bytes() <= 1000),
        }
    }
}

#[test]
fn reservations_and_tickets_keep_every_limit_and_end_at_nothing() {
    for seed in 0..4 {
        let engine = Pool::new("engine", 1000);
        let pools: Vec<Pool> = [700, 500, 2000].iter().map(|&limit| engine.child("query", limit)).collect();
        let operator = pools[0].child("operator", 350);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let workers: Vec<_> = (0..6)
                .map(|at| {
                    let pool = if at == 5 { &operator } else { &pools[at % pools.len()] };
                    scope.spawn(move || reservations(pool, &mut Random::new(seed * 100 + at as u64), 2000))
                })
                .collect();
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    assert!(engine.granted_bytes() <= 1000 && operator.granted_bytes() <= 350);
                    thread::yield_now();
                }
            });
            for worker in workers {
                worker.join().expect("no assertion fails");
            }
            is_over.store(true, Relaxed);
        });
        for pool in pools.iter().chain([&engine, &operator]) {
            assert_eq!(pool.granted_bytes(), 0, "seed {seed}: pool '{}'", pool.name());
            assert!(pool.peak_bytes() <= pool.limit_bytes());
        }
    }
}

const FLOOR_BYTES: usize = 64 << 10;

/// A lane that sends slabs to others to drop, as batches do.
fn lane(account: Account, mailbox: &parking_lot::Mutex<Vec<Slab>>, random: &mut Random) {
    let mut slabs: Vec<Slab> = Vec::new();
    let mut charged = 0;
    for round in 0..1500 {
        match random.below(10) {
            0..4 => {
                if let Ok(mut slab) = account.alloc(1 + random.below(40 << 10)) {
                    slab.bytes_mut()[0] = round as u8;
                    slabs.push(slab);
                }
            }
            4 => _ = slabs.pop(),
            5 => {
                let bytes = random.below(20 << 10);
                if account.charge(bytes).is_ok() {
                    charged += bytes;
                }
            }
            6 => {
                let bytes = random.below(charged + 1);
                account.release(bytes);
                charged -= bytes;
            }
            7 => mailbox.lock().extend(slabs.pop()),
            8 => {
                let from_others = mailbox.lock().pop();
                drop(from_others);
            }
            _ => {
                account.relieve();
                if random.below(4) == 0 {
                    account.trim();
                }
            }
        }
        let held = slabs.iter().map(Slab::len).sum::<usize>() + charged;
        let granted = account.pool().granted_bytes();
        assert!((held..=1 << 20).contains(&granted), "{held} bytes are used, {granted} granted");
    }
    account.release(charged);
    drop(account);
    drop(slabs);
}

#[test]
fn accounts_and_slabs_keep_the_limit_and_end_at_nothing() {
    for seed in 0..3 {
        let pool = Pool::new("engine", 1 << 20);
        let mailbox = parking_lot::Mutex::new(Vec::new());
        thread::scope(|scope| {
            let open = |_| Account::open(&pool, FLOOR_BYTES, 8 << 10, 64 << 10).expect("floors fit");
            let accounts: Vec<Account> = (0..6).map(open).collect();
            for (at, account) in (0..).zip(accounts) {
                let mailbox = &mailbox;
                scope.spawn(move || lane(account, mailbox, &mut Random::new(seed * 7 + at)));
            }
        });
        assert!(pool.peak_bytes() <= 1 << 20);
        drop(mailbox);
        assert_eq!(pool.granted_bytes(), 0, "seed {seed}");
    }
}

/// Others trim, release and cache all the time; a charge within the floor never fails for it.
#[test]
fn a_floor_can_be_charged_whatever_other_threads_give_back() {
    let pool = Pool::new("engine", 256 << 10);
    let account = Account::open(&pool, FLOOR_BYTES, 4 << 10, 16 << 10).expect("fits");
    let mut rest = Reservation::empty(&pool);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    account.trim();
                }
            });
        }
        for _ in 0..3000 {
            // Above the floor for a moment, so that there is something to trim.
            if account.charge(100 << 10).is_ok() {
                account.release(100 << 10);
            }
            while rest.try_grow(4 << 10).is_ok() {}
            for _ in 0..8 {
                account.charge(FLOOR_BYTES).expect("the floor is irrevocable");
                account.release(FLOOR_BYTES);
            }
            rest = Reservation::empty(&pool);
        }
        is_over.store(true, Relaxed);
    });
    drop((account, rest));
    assert_eq!(pool.granted_bytes(), 0);
}
