// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order in which QEMU writes the members of an object: that of its hash table with 512 buckets
//! (`qobject/qdict.c`), where the member added last comes first within a bucket.

/// The weights of the bytes of a name, repeated for longer names. QEMU computes with 32 bits; sixteen are
/// enough, as it uses the lowest nine in the end.
const WEIGHTS: [u16; 24] = {
    let mut weights = [0; 24];
    let mut index = 0;
    while index < 24 {
        weights[index] = (1u32 << (index * 5 % 24)) as u16;
        index += 1;
    }
    weights
};

/// The number of buckets.
const BUCKETS: usize = 512;

/// Returns the bucket of a member with this name.
#[inline]
pub(crate) fn bucket(name: &str) -> u16 {
    let mut sum = 0u16;
    let mut has_nul = false;
    for bytes in name.as_bytes().chunks(WEIGHTS.len()) {
        for (&byte, weight) in bytes.iter().zip(WEIGHTS) {
            has_nul |= byte == 0;
            sum = sum.wrapping_add(u16::from(byte).wrapping_mul(weight));
        }
    }
    if has_nul {
        return bucket_with_nul(name);
    }
    mix(sum, name.len())
}

/// Hashes a NUL as the two bytes that it has in QEMU's modified UTF-8.
#[cold]
fn bucket_with_nul(name: &str) -> u16 {
    let bytes = name.bytes().flat_map(|byte| if byte == 0 { vec![0xC0, 0x80] } else { vec![byte] });
    let (sum, len) =
        bytes.zip(WEIGHTS.into_iter().cycle()).fold((0u16, 0), |(sum, len), (byte, weight)| {
            (sum.wrapping_add(u16::from(byte).wrapping_mul(weight)), len + 1)
        });
    mix(sum, len)
}

fn mix(sum: u16, len: usize) -> u16 {
    let mixed = (0x238F_13AF_u32 as u16).wrapping_mul(len as u16).wrapping_add(sum);
    (1_103_515_243_u32 as u16).wrapping_mul(mixed).wrapping_add(12_345) % BUCKETS as u16
}

/// The indices of members in the order of QEMU's output. That of a small object needs no allocation.
pub(crate) enum Order {
    AsAdded { len: usize },
    Few { order: [u8; FEW], len: usize },
    Many(Vec<usize>),
}

const FEW: usize = 16;

/// Sorts by counting, in linear time.
fn many(buckets: &[u16]) -> Vec<usize> {
    // Where the members of each bucket end.
    let mut ends = [0; BUCKETS];
    for &bucket in buckets {
        ends[usize::from(bucket)] += 1;
    }
    let mut sum = 0;
    for end in &mut ends {
        sum += *end;
        *end = sum;
    }
    let mut order = vec![0; sum];
    for (index, &bucket) in buckets.iter().enumerate() {
        let end = &mut ends[usize::from(bucket)];
        *end -= 1;
        order[*end] = index;
    }
    order
}

impl Order {
    /// Takes the buckets of the members in the order of insertion. They are asked for once: what they are made of may be
    /// long.
    #[inline]
    pub(crate) fn of(buckets: impl ExactSizeIterator<Item = u16>) -> Order {
        let len = buckets.len();
        if len > FEW {
            return Order::Many(many(&buckets.collect::<Vec<_>>()));
        }
        let mut sorted = [0; FEW];
        let mut order = [0; FEW];
        let mut is_as_added = true;
        for (index, bucket) in buckets.enumerate() {
            let mut at = index;
            while at > 0 && bucket <= sorted[at - 1] {
                is_as_added = false;
                (sorted[at], order[at]) = (sorted[at - 1], order[at - 1]);
                at -= 1;
            }
            (sorted[at], order[at]) = (bucket, index as u8);
        }
        match is_as_added {
            true => Order::AsAdded { len },
            false => Order::Few { order, len },
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Order::AsAdded { len } | Order::Few { len, .. } => *len,
            Order::Many(order) => order.len(),
        }
    }

    /// Returns the index of the member at this place.
    #[inline]
    pub(crate) fn at(&self, place: usize) -> usize {
        match self {
            Order::AsAdded { .. } => place,
            Order::Few { order, .. } => order[place].into(),
            Order::Many(order) => order[place],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_the_usual_names() {
        for (name, expected) in [
            ("seconds", 5),
            ("timestamp", 26),
            ("exec-oob", 162),
            ("version", 184),
            ("class", 211),
            ("capabilities", 216),
            ("micro", 225),
            ("minor", 225),
            ("qemu", 232),
            ("execute", 299),
            ("package", 326),
            ("event", 361),
            ("microseconds", 374),
            ("desc", 377),
            ("return", 401),
            ("arguments", 447),
            ("major", 481),
            ("id", 486),
            ("error", 489),
            ("data", 505),
        ] {
            assert_eq!(bucket(name), expected, "{name}");
        }
    }

    #[test]
    fn a_nul_counts_as_two_bytes() {
        let modified = [b'a', 0xC0, 0x80, b'b', 0xC0, 0x80];
        let sum = modified
            .iter()
            .zip(WEIGHTS)
            .map(|(&byte, weight)| u16::from(byte).wrapping_mul(weight));
        assert_eq!(bucket("a\0b\0"), mix(sum.fold(0, u16::wrapping_add), modified.len()));
    }

    fn order(names: &[&str]) -> Vec<usize> {
        let order = Order::of(names.iter().map(|name| bucket(name)));
        (0..order.len()).map(|place| order.at(place)).collect()
    }

    #[test]
    fn the_member_added_last_comes_first_within_a_bucket() {
        assert_eq!(order(&["major", "minor", "micro"]), [2, 1, 0]);
        assert_eq!(order(&["micro", "major", "minor"]), [2, 0, 1]);
    }

    #[test]
    fn few_and_many_members_come_in_the_same_order() {
        let names: Vec<String> = (0..1000).map(|index| format!("name-{}", index * 7919)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for len in 0..=FEW {
            for names in names.chunks_exact(len.max(1)) {
                let mut expected: Vec<usize> = (0..names.len()).rev().collect();
                expected.sort_by_key(|&index| bucket(names[index]));
                assert_eq!(order(names), expected);
            }
        }
        let mut expected: Vec<usize> = (0..names.len()).rev().collect();
        expected.sort_by_key(|&index| bucket(names[index]));
        assert_eq!(order(&names), expected);
    }
}
