// SPDX-License-Identifier: MIT OR Apache-2.0
//! Values under stable, reused indices, stored in chunks.
//!
//! Growing allocates one more chunk and moves nothing, so no insertion ever copies what a hundred
//! thousand others hold while a lock is held, and no spare capacity is proportional to the number
//! of values.

const CHUNK: usize = 64;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum Entry<V> {
    Vacant { next: u32 },
    Occupied(V),
}

#[derive(Debug)]
pub(crate) struct Slab<V> {
    chunks: Vec<Vec<Entry<V>>>,
    vacant: u32,
}

impl<V> Slab<V> {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new(), vacant: NONE }
    }

    /// One more than the highest index ever handed out.
    pub(crate) fn end(&self) -> u32 {
        match self.chunks.last() {
            Some(last) => ((self.chunks.len() - 1) * CHUNK + last.len()) as u32,
            None => 0,
        }
    }

    #[inline(always)]
    pub(crate) fn insert(&mut self, value: V) -> u32 {
        if self.vacant != NONE {
            let index = self.vacant;
            let entry = self.entry(index);
            if let Entry::Vacant { next } = *entry {
                *entry = Entry::Occupied(value);
                self.vacant = next;
                return index;
            }
        }
        let index = self.end();
        assert!(index != NONE, "more than u32::MAX - 1 values in a slab");
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => last.push(Entry::Occupied(value)),
            _ => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(Entry::Occupied(value));
                self.chunks.push(chunk);
            }
        }
        index
    }

    #[inline(always)]
    pub(crate) fn remove(&mut self, index: u32) -> Option<V> {
        let vacant = self.vacant;
        let entry = self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)?;
        if let Entry::Vacant { .. } = entry {
            return None;
        }
        let Entry::Occupied(value) = std::mem::replace(entry, Entry::Vacant { next: vacant })
        else {
            unreachable!("looked at above");
        };
        self.vacant = index;
        Some(value)
    }

    #[inline(always)]
    pub(crate) fn get(&self, index: u32) -> Option<&V> {
        match self.chunks.get(index as usize / CHUNK)?.get(index as usize % CHUNK)? {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant { .. } => None,
        }
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut V> {
        match self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)? {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant { .. } => None,
        }
    }

    fn entry(&mut self, index: u32) -> &mut Entry<V> {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_reused_only_after_its_removal() {
        let mut slab = Slab::new();
        let a = slab.insert('a');
        let b = slab.insert('b');
        assert_ne!(a, b);
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.insert('c'), a);
        assert_eq!((slab.get(a), slab.get(b)), (Some(&'c'), Some(&'b')));
    }

    #[test]
    fn values_stay_where_they_are_across_chunks() {
        let mut slab = Slab::new();
        let count = 3 * CHUNK as u32 + 1;
        for n in 0..count {
            assert_eq!(slab.insert(n), n);
        }
        assert_eq!(slab.end(), count);
        for n in (0..count).step_by(2) {
            assert_eq!(slab.remove(n), Some(n));
        }
        for n in 0..count {
            assert_eq!(slab.get(n).is_some(), n % 2 == 1);
        }
        for n in 0..count.div_ceil(2) {
            slab.insert(n);
        }
        assert_eq!(slab.end(), count, "every vacancy is used before the slab grows");
    }
}
