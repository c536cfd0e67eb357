// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the upstream server has been asked and has not answered.

use qmp_dispatch::proto::Band;

/// Entries by the ids of our requests. Ids are used again as soon as they are free, and nothing else
/// than the answer frees them: no answer is taken for that of another request.
pub(super) struct Table<T> {
    first_id: u64,
    slots: Vec<Option<(Band, T)>>,
    free: Vec<usize>,
    in_band: usize,
}

impl<T> Table<T> {
    /// An empty table for a connection, whose ids are those from here on. QEMU may answer what was asked
    /// on the connection before, so that must have had others.
    pub(super) fn new(first_id: u64) -> Table<T> {
        Table { first_id, slots: Vec::new(), free: Vec::new(), in_band: 0 }
    }

    pub(super) fn insert(&mut self, band: Band, entry: T) -> u64 {
        self.in_band += usize::from(band == Band::InBand);
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[index] = Some((band, entry));
        self.first_id + index as u64
    }

    pub(super) fn take(&mut self, id: u64) -> Option<T> {
        let index = self.index(id)?;
        let (band, entry) = self.slots.get_mut(index)?.take()?;
        self.in_band -= usize::from(band == Band::InBand);
        self.free.push(index);
        Some(entry)
    }

    pub(super) fn get(&self, id: u64) -> Option<&T> {
        let slot = self.slots.get(self.index(id)?)?;
        slot.as_ref().map(|(_, entry)| entry)
    }

    fn index(&self, id: u64) -> Option<usize> {
        usize::try_from(id.checked_sub(self.first_id)?).ok()
    }

    /// Takes all, for a connection that has ended.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        let slots = std::mem::replace(self, Table::new(self.first_id)).slots;
        slots.into_iter().flatten().map(|(_, entry)| entry).collect()
    }

    /// All that is there.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten().map(|(_, entry)| entry)
    }

    /// How many in-band requests there are.
    pub(super) fn in_band(&self) -> usize {
        self.in_band
    }

    /// How many out-of-band requests there are.
    pub(super) fn out_of_band(&self) -> usize {
        self.slots.len() - self.free.len() - self.in_band
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_free_when_its_entry_has_been_taken() {
        let mut table = Table::new(70);
        assert_eq!([Band::InBand, Band::OutOfBand].map(|band| table.insert(band, 'a')), [70, 71]);
        assert_eq!((table.in_band(), table.out_of_band()), (1, 1));
        assert_eq!(table.take(70), Some('a'));
        assert_eq!([0, 69, 70, 72, u64::MAX].map(|id| table.take(id)), [None; 5]);
        assert_eq!((table.in_band(), table.out_of_band()), (0, 1));
        assert_eq!(table.insert(Band::InBand, 'b'), 70);
        assert_eq!(table.iter().collect::<String>(), "ba");
        assert_eq!(table.take_all(), ['b', 'a']);
        assert_eq!((table.in_band(), table.out_of_band()), (0, 0));
    }
}
