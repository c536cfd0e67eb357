// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the upstream server has been asked and has not answered.

use qmp_dispatch::proto::Band;

/// Entries by the ids of our requests. Ids are used again as soon as they are free, so they are short,
/// and nothing else than the answer frees them: no answer is taken for that of another request.
pub(super) struct Table<T> {
    slots: Vec<Option<(Band, T)>>,
    free: Vec<usize>,
    in_band: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { slots: Vec::new(), free: Vec::new(), in_band: 0 }
    }
}

impl<T> Table<T> {
    pub(super) fn insert(&mut self, band: Band, entry: T) -> u64 {
        self.in_band += usize::from(band == Band::InBand);
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[index] = Some((band, entry));
        index as u64
    }

    pub(super) fn take(&mut self, id: u64) -> Option<T> {
        let index = usize::try_from(id).ok()?;
        let (band, entry) = self.slots.get_mut(index)?.take()?;
        self.in_band -= usize::from(band == Band::InBand);
        self.free.push(index);
        Some(entry)
    }

    pub(super) fn get(&self, id: u64) -> Option<&T> {
        let slot = self.slots.get(usize::try_from(id).ok()?)?;
        slot.as_ref().map(|(_, entry)| entry)
    }

    /// Takes all, for a connection that has ended.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        let slots = std::mem::take(self).slots;
        slots.into_iter().flatten().map(|(_, entry)| entry).collect()
    }

    /// How many in-band requests there are.
    pub(super) fn in_band(&self) -> usize {
        self.in_band
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_free_when_its_entry_has_been_taken() {
        let mut table = Table::default();
        assert_eq!([Band::InBand, Band::OutOfBand].map(|band| table.insert(band, 'a')), [0, 1]);
        assert_eq!(table.in_band(), 1);
        assert_eq!(table.take(0), Some('a'));
        assert_eq!(table.take(0), None);
        assert_eq!(table.take(2), None);
        assert_eq!(table.in_band(), 0);
        assert_eq!(table.insert(Band::InBand, 'b'), 0);
        assert_eq!(table.take_all(), ['b', 'a']);
        assert_eq!(table.in_band(), 0);
    }
}
