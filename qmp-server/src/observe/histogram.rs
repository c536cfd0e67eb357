// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many of many durations were how long.

use std::time::Duration;

use super::counter::Counter;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;

/// The longest that belongs to each bucket, in nanoseconds: integers are compared in less time than durations. What is
/// longer than the last has a bucket, too.
const BOUNDS: [u64; 19] = [
    5 * MICROSECOND,
    10 * MICROSECOND,
    25 * MICROSECOND,
    50 * MICROSECOND,
    100 * MICROSECOND,
    250 * MICROSECOND,
    500 * MICROSECOND,
    MILLISECOND,
    2500 * MICROSECOND,
    5 * MILLISECOND,
    10 * MILLISECOND,
    25 * MILLISECOND,
    50 * MILLISECOND,
    100 * MILLISECOND,
    250 * MILLISECOND,
    SECOND,
    5 * SECOND,
    15 * SECOND,
    60 * SECOND,
];

#[derive(Default)]
pub(crate) struct Histogram {
    buckets: [Counter; BOUNDS.len() + 1],
    nanoseconds: Counter,
}

/// What a histogram held at some time.
pub(crate) struct Distribution {
    /// How many were at most that long.
    pub(crate) at_most: Vec<(Duration, u64)>,
    pub(crate) count: u64,
    pub(crate) sum: Duration,
}

impl Histogram {
    pub(crate) fn add(&self, duration: Duration) {
        let nanoseconds = duration.as_nanos().try_into().unwrap_or(u64::MAX);
        self.buckets[BOUNDS.partition_point(|bound| *bound < nanoseconds)].count();
        self.nanoseconds.add(nanoseconds);
    }

    pub(crate) fn read(&self) -> Distribution {
        // Before the buckets, so that those that are counted are more rather than fewer.
        let sum = Duration::from_nanos(self.nanoseconds.get());
        let mut count = 0;
        let mut cumulative = self.buckets.iter().map(|bucket| {
            count += bucket.get();
            count
        });
        let bounds = BOUNDS.into_iter().map(Duration::from_nanos);
        let at_most = bounds.zip(cumulative.by_ref()).collect();
        let count = cumulative.last().unwrap_or_default();
        Distribution { at_most, count, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_holds_all_that_are_shorter() {
        let histogram = Histogram::default();
        let durations = [0, 5_000, 5_001, 400_000_000, 60_000_000_000, 60_000_000_001];
        let durations = durations.map(Duration::from_nanos);
        durations.into_iter().for_each(|duration| histogram.add(duration));
        let read = histogram.read();
        assert_eq!(read.count, durations.len() as u64);
        assert_eq!(read.sum, durations.into_iter().sum::<Duration>());
        for (bound, count) in read.at_most {
            let expected = durations.iter().filter(|duration| **duration <= bound).count();
            assert_eq!(count, expected as u64, "{bound:?}");
        }
    }

    #[test]
    fn bounds_belong_to_their_bucket() {
        let histogram = Histogram::default();
        BOUNDS.into_iter().for_each(|bound| histogram.add(Duration::from_nanos(bound)));
        let counts: Vec<_> = histogram.read().at_most.into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, (1..=BOUNDS.len() as u64).collect::<Vec<_>>());
    }
}
