// SPDX-License-Identifier: MIT OR Apache-2.0
//! How many of many durations were how long.

use std::time::Duration;

use super::Counter;

/// The longest that belongs to each bucket; what is longer than the last has a bucket, too.
const BOUNDS: [Duration; 19] = [
    Duration::from_micros(5),
    Duration::from_micros(10),
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(60),
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
        self.buckets[BOUNDS.partition_point(|bound| *bound < duration)].count();
        self.nanoseconds.add(duration.as_nanos().try_into().unwrap_or(u64::MAX));
    }

    pub(crate) fn read(&self) -> Distribution {
        // Before the buckets, so that those that are counted are more rather than fewer.
        let sum = Duration::from_nanos(self.nanoseconds.get());
        let mut count = 0;
        let mut cumulative = self.buckets.iter().map(|bucket| {
            count += bucket.get();
            count
        });
        let at_most = BOUNDS.into_iter().zip(cumulative.by_ref()).collect();
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
        BOUNDS.into_iter().for_each(|bound| histogram.add(bound));
        let counts: Vec<_> = histogram.read().at_most.into_iter().map(|(_, count)| count).collect();
        assert_eq!(counts, (1..=BOUNDS.len() as u64).collect::<Vec<_>>());
    }
}
