// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order in which QEMU writes the members of an object: that of its 512-bucket hash table
//! (`qobject/qdict.c`), where the member added last comes first within a bucket.

use std::cmp::Reverse;

/// The bucket of a member with this name.
#[inline]
pub(crate) fn bucket(name: &str) -> u32 {
    let mut len = 0u32;
    let mut shift = 0;
    let mut sum = 0u32;
    let mut add = |byte: u8| {
        sum = sum.wrapping_add(u32::from(byte) << shift);
        len = len.wrapping_add(1);
        shift = if shift < 19 { shift + 5 } else { shift - 19 };
    };
    for &byte in name.as_bytes() {
        // Modified UTF-8: a NUL is hashed as the two bytes that QEMU keeps it in.
        if byte == 0 {
            add(0xC0);
            add(0x80);
        } else {
            add(byte);
        }
    }
    let mixed = 0x238F_13AF_u32.wrapping_mul(len).wrapping_add(sum);
    1_103_515_243_u32.wrapping_mul(mixed).wrapping_add(12_345) % 512
}

/// The indices of members in the order of QEMU's output.
///
/// Most objects are small; their order fits in here.
pub(crate) enum Order {
    Few { order: [u8; FEW], len: usize },
    Many(Vec<usize>),
}

const FEW: usize = 16;

impl Order {
    /// `names` come in the order of insertion.
    pub(crate) fn of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> Order {
        let len = names.len();
        if len > FEW {
            let mut order: Vec<(u32, usize)> =
                names.enumerate().map(|(index, name)| (bucket(name), index)).collect();
            order.sort_unstable_by_key(|&(bucket, index)| (bucket, Reverse(index)));
            return Order::Many(order.into_iter().map(|(_, index)| index).collect());
        }
        let mut buckets = [0; FEW];
        let mut order = [0; FEW];
        for (index, name) in names.enumerate() {
            let bucket = bucket(name);
            let mut at = index;
            while at > 0 && bucket <= buckets[at - 1] {
                (buckets[at], order[at]) = (buckets[at - 1], order[at - 1]);
                at -= 1;
            }
            (buckets[at], order[at]) = (bucket, index as u8);
        }
        Order::Few { order, len }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Order::Few { len, .. } => *len,
            Order::Many(order) => order.len(),
        }
    }

    /// The index of the member that comes at this place.
    pub(crate) fn at(&self, place: usize) -> usize {
        match self {
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

    fn order(names: &[&str]) -> Vec<usize> {
        let order = Order::of(names.iter().copied());
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
