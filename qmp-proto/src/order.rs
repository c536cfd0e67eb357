// SPDX-License-Identifier: MIT OR Apache-2.0
//! The order in which QEMU writes the members of an object: that of its 512-bucket hash table
//! (`qobject/qdict.c`), where the member added last comes first within a bucket.

/// The bucket of a member with this name.
pub(crate) fn bucket(name: &str) -> u32 {
    let mut len = 0u32;
    let mut sum = 0u32;
    let mut add = |byte: u8| {
        sum = sum.wrapping_add(u32::from(byte) << (len.wrapping_mul(5) % 24));
        len = len.wrapping_add(1);
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

/// The indices of `names`, given in the order of insertion, in the order of QEMU's output.
pub(crate) fn qemu_order<'a>(names: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let mut order: Vec<(u32, usize)> =
        names.enumerate().map(|(index, name)| (bucket(name), index)).collect();
    order.sort_unstable_by_key(|&(bucket, index)| (bucket, std::cmp::Reverse(index)));
    order.into_iter().map(|(_, index)| index).collect()
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
    fn the_member_added_last_comes_first_within_a_bucket() {
        let order = |names: &[&'static str]| qemu_order(names.iter().copied());
        assert_eq!(order(&["major", "minor", "micro"]), [2, 1, 0]);
        assert_eq!(order(&["micro", "major", "minor"]), [2, 0, 1]);
    }
}
