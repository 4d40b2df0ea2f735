//! Grouped sums and counts over dense values: the loops an aggregation query spends its time in.
//!
//! With few groups every group's sum stays in registers: compare the group numbers, mask, add. That beats scattered
//! read-modify-writes, whose store-to-load forwarding serialises rows of one group. With some more groups, four
//! copies of the sums break those chains. Beyond that the states themselves are updated.
//!
//! Invariants:
//! 1. The caller has checked that sums of the batch fit 64 bits; wrapping additions then never wrap.
//! 2. A function with a target feature is called only after the feature was detected.

use crate::data::hash::prefetch;

/// Up to so many groups, sums are kept in registers.
pub(crate) const FEW_GROUPS: usize = 8;
/// Up to so many groups, sums are kept in copies on the stack.
pub(crate) const SOME_GROUPS: usize = 64;
const COPIES: usize = 4;
const LANES: usize = 8;

/// Defines `$name`, which runs `$body` compiled for the widest vectors the processor has.
macro_rules! widest {
    ($(#[$doc:meta])* fn $name:ident $(<const $g:ident: usize>)? ($($arg:ident: $type:ty),*) -> $result:ty = $body:ident) => {
        $(#[$doc])*
        #[inline]
        pub(crate) fn $name $(<const $g: usize>)? ($($arg: $type),*) -> $result {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw")]
                fn avx512 $(<const $g: usize>)? ($($arg: $type),*) -> $result {
                    $body $(::<$g>)? ($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                fn avx2 $(<const $g: usize>)? ($($arg: $type),*) -> $result {
                    $body $(::<$g>)? ($($arg),*)
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                {
                    // SAFETY: invariant 2.
                    return unsafe { avx512 $(::<$g>)? ($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: invariant 2.
                    return unsafe { avx2 $(::<$g>)? ($($arg),*) };
                }
            }
            $body $(::<$g>)? ($($arg),*)
        }
    };
}

widest! {
    /// The bits needed by the magnitude of any value: each is at least `-2^bits` and less than `2^bits`.
    fn magnitude_bits(values: &[i64]) -> u32 = magnitude_bits_body
}

#[inline(always)]
fn magnitude_bits_body(values: &[i64]) -> u32 {
    let all = values.iter().fold(0, |all, &v| all | (v ^ (v >> 63)));
    u64::BITS - (all as u64).leading_zeros()
}

widest! {
    /// The sum of values whose sum is known to fit.
    fn sum_narrow(values: &[i64]) -> i64 = sum_narrow_body
}

#[inline(always)]
fn sum_narrow_body(values: &[i64]) -> i64 {
    values.iter().fold(0, |sum, &v| sum.wrapping_add(v))
}

/// The exact sum of fewer than 2^31 values of any size.
#[inline]
pub(crate) fn sum_wide(values: &[i64]) -> i128 {
    let (high, low) = sum_halves(values);
    (i128::from(high) << 32) + i128::from(low)
}

widest! {
    /// The sums of the high and of the low 32 bits.
    fn sum_halves(values: &[i64]) -> (i64, u64) = sum_halves_body
}

#[inline(always)]
fn sum_halves_body(values: &[i64]) -> (i64, u64) {
    values.iter().fold((0, 0), |(high, low), &v| (high + (v >> 32), low + u64::from(v as u32)))
}

widest! {
    /// The sum of floats, in eight interleaved sums.
    fn sum_float(values: &[f64]) -> f64 = sum_float_body
}

#[inline(always)]
fn sum_float_body(values: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for piece in whole {
        for (sum, value) in sums.iter_mut().zip(piece) {
            *sum += value;
        }
    }
    sums.iter().sum::<f64>() + rest.iter().sum::<f64>()
}

widest! {
    /// Sums by group for group numbers below `G`.
    fn sum_masked<const G: usize>(ids: &[u32], values: &[i64]) -> [i64; G] = sum_masked_body
}

#[inline(always)]
fn sum_masked_body<const G: usize>(ids: &[u32], values: &[i64]) -> [i64; G] {
    let mut sums = [0i64; G];
    for (&id, &value) in ids.iter().zip(values) {
        for (group, sum) in sums.iter_mut().enumerate() {
            *sum = sum.wrapping_add(if id == group as u32 { value } else { 0 });
        }
    }
    sums
}

widest! {
    /// Rows by group for group numbers below `G`.
    fn count_masked<const G: usize>(ids: &[u32]) -> [u32; G] = count_masked_body
}

#[inline(always)]
fn count_masked_body<const G: usize>(ids: &[u32]) -> [u32; G] {
    let mut counts = [0u32; G];
    for &id in ids {
        for (group, count) in counts.iter_mut().enumerate() {
            *count += u32::from(id == group as u32);
        }
    }
    counts
}

widest! {
    /// A set bit for each group number below 64 that occurs.
    fn groups_present(ids: &[u32]) -> u64 = groups_present_body
}

#[inline(always)]
fn groups_present_body(ids: &[u32]) -> u64 {
    ids.iter().fold(0, |present, &id| present | 1 << (id % 64))
}

/// Calls `$kernel::<G>($args)` with the smallest of a few `G` not below `$groups`, and gives `$each` its answers.
macro_rules! with_few_groups {
    ($groups:expr, $kernel:ident($($arg:expr),*), $each:expr) => {
        match $groups {
            0..=2 => $kernel::<2>($($arg),*).into_iter().take($groups).enumerate().for_each($each),
            3 | 4 => $kernel::<4>($($arg),*).into_iter().take($groups).enumerate().for_each($each),
            5 | 6 => $kernel::<6>($($arg),*).into_iter().take($groups).enumerate().for_each($each),
            _ => $kernel::<FEW_GROUPS>($($arg),*).into_iter().take($groups).enumerate().for_each($each),
        }
    };
}

/// Calls `add(group, sum)` for sums of values known to fit 64 bits; `groups` is at most [`SOME_GROUPS`].
pub(crate) fn sum_some(ids: &[u32], values: &[i64], groups: usize, mut add: impl FnMut(usize, i64)) {
    debug_assert!(groups <= SOME_GROUPS);
    if groups <= FEW_GROUPS {
        with_few_groups!(groups, sum_masked(ids, values), |(group, sum)| add(group, sum));
        return;
    }
    let mut copies = [[0i64; SOME_GROUPS]; COPIES];
    let (whole_ids, rest_ids) = ids.as_chunks::<COPIES>();
    let (whole, rest) = values.as_chunks::<COPIES>();
    for (ids, values) in whole_ids.iter().zip(whole) {
        for ((copy, &id), &value) in copies.iter_mut().zip(ids).zip(values) {
            let sum = &mut copy[id as usize % SOME_GROUPS];
            *sum = sum.wrapping_add(value);
        }
    }
    for (&id, &value) in rest_ids.iter().zip(rest) {
        let sum = &mut copies[0][id as usize % SOME_GROUPS];
        *sum = sum.wrapping_add(value);
    }
    for group in 0..groups {
        add(group, copies.iter().fold(0i64, |sum, copy| sum.wrapping_add(copy[group])));
    }
}

/// Calls `add(group, sum)` for float sums; `groups` is at most [`SOME_GROUPS`]. Floats have no masked kernel: the
/// additions may not be reordered by the compiler, and copies were faster than what it made of masks.
pub(crate) fn sum_float_some(ids: &[u32], values: &[f64], groups: usize, mut add: impl FnMut(usize, f64)) {
    debug_assert!(groups <= SOME_GROUPS);
    let mut copies = [[0f64; SOME_GROUPS]; COPIES];
    let (whole_ids, rest_ids) = ids.as_chunks::<COPIES>();
    let (whole, rest) = values.as_chunks::<COPIES>();
    for (ids, values) in whole_ids.iter().zip(whole) {
        for ((copy, &id), value) in copies.iter_mut().zip(ids).zip(values) {
            copy[id as usize % SOME_GROUPS] += value;
        }
    }
    for (&id, value) in rest_ids.iter().zip(rest) {
        copies[0][id as usize % SOME_GROUPS] += value;
    }
    for group in 0..groups {
        add(group, copies.iter().map(|copy| copy[group]).sum());
    }
}

/// Adds to `counts` the rows of each group, of `groups` groups.
pub(crate) fn count(ids: &[u32], groups: usize, counts: &mut [i64]) {
    if groups <= FEW_GROUPS {
        with_few_groups!(groups, count_masked(ids), |(group, rows)| counts[group] += i64::from(rows));
        return;
    }
    if groups <= SOME_GROUPS {
        let mut copies = [[0u32; SOME_GROUPS]; COPIES];
        let (whole, rest) = ids.as_chunks::<COPIES>();
        for ids in whole {
            for (copy, &id) in copies.iter_mut().zip(ids) {
                copy[id as usize % SOME_GROUPS] += 1;
            }
        }
        for &id in rest {
            copies[0][id as usize % SOME_GROUPS] += 1;
        }
        for (group, count) in counts.iter_mut().enumerate().take(groups) {
            *count += copies.iter().map(|copy| i64::from(copy[group])).sum::<i64>();
        }
        return;
    }
    update_each(ids, counts, std::iter::repeat(()), |count, ()| *count += 1);
}

/// From this size on states are fetched ahead.
const PREFETCH_BYTES: usize = 256 << 10;
const PREFETCH_ROWS: usize = 16;

/// Calls `f(state, value)` for each row, with the state of its group, which is fetched ahead where there are too many for
/// the cache.
#[inline(always)]
pub(crate) fn update_each<T, V>(
    ids: &[u32],
    states: &mut [T],
    values: impl Iterator<Item = V>,
    mut f: impl FnMut(&mut T, V),
) {
    if size_of_val(states) <= PREFETCH_BYTES {
        ids.iter().zip(values).for_each(|(&id, value)| f(&mut states[id as usize], value));
        return;
    }
    for (k, (&id, value)) in ids.iter().zip(values).enumerate() {
        if let Some(&ahead) = ids.get(k + PREFETCH_ROWS) {
            prefetch(&states[ahead as usize]);
        }
        f(&mut states[id as usize], value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, at: usize) -> u64 {
        let mut z = seed.wrapping_add((at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z ^ (z >> 27)
    }

    #[test]
    fn sums_and_counts_agree_with_plain_loops_for_any_number_of_groups() {
        for groups in [1, 2, 3, 4, 5, 7, 8, 9, 16, 63, 64] {
            for rows in [0, 1, 7, 8, 9, 1000] {
                let ids: Vec<u32> = (0..rows).map(|i| (noise(1, i) % groups as u64) as u32).collect();
                let values: Vec<i64> = (0..rows).map(|i| noise(2, i) as i32 as i64).collect();
                let floats: Vec<f64> = values.iter().map(|&v| v as f64).collect();
                let (mut sums, mut counts) = (vec![0i64; groups], vec![0i64; groups]);
                for (&id, &value) in ids.iter().zip(&values) {
                    sums[id as usize] += value;
                    counts[id as usize] += 1;
                }
                let mut got = vec![0; groups];
                sum_some(&ids, &values, groups, |g, s| got[g] += s);
                assert_eq!(got, sums, "{groups} groups, {rows} rows");
                let mut got = vec![0; groups];
                count(&ids, groups, &mut got);
                assert_eq!(got, counts);
                let mut got = vec![0.0; groups];
                sum_float_some(&ids, &floats, groups, |g, s| got[g] += s);
                assert!(got.iter().zip(&sums).all(|(g, s)| *g == *s as f64));
                let present = counts.iter().enumerate().map(|(g, &c)| u64::from(c > 0) << g).sum::<u64>();
                assert_eq!(groups_present(&ids), present);
                assert_eq!(sum_narrow(&values), values.iter().sum::<i64>());
                assert_eq!(sum_float(&floats), values.iter().sum::<i64>() as f64);
            }
        }
    }

    #[test]
    fn extreme_values_sum_exactly() {
        let values = [i64::MAX, i64::MIN, i64::MAX, -1, i64::MAX];
        assert_eq!(sum_wide(&values), values.iter().map(|&v| i128::from(v)).sum::<i128>());
        assert_eq!(magnitude_bits(&values), 63);
        assert_eq!(magnitude_bits(&[-8, 7]), 3);
        assert_eq!(magnitude_bits(&[0, -1]), 0);
    }
}
