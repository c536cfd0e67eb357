// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the upstream server has been asked and has not answered.

use qmp_dispatch::proto::Band;

/// Connections in a row that have ids of their own.
const KINDS: u64 = 10;

/// Entries by the ids of our requests. Ids are used again as soon as they are free, so they are short: QEMU
/// reads byte by byte. Nothing else than the answer frees them: no answer is taken for that of another
/// request.
pub(super) struct Table<T> {
    kind: u64,
    slots: Vec<Option<(Band, T)>>,
    free: Vec<usize>,
    in_band: usize,
}

impl<T> Table<T> {
    /// An empty table for a connection. QEMU may answer what was asked on the connection before, so that must have
    /// had other ids; it has, if it had another number.
    pub(super) fn new(connection: u64) -> Table<T> {
        Table { kind: connection % KINDS, slots: Vec::new(), free: Vec::new(), in_band: 0 }
    }

    pub(super) fn insert(&mut self, band: Band, entry: T) -> u64 {
        self.in_band += usize::from(band == Band::InBand);
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[index] = Some((band, entry));
        index as u64 * KINDS + self.kind
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
        let fits = id % KINDS == self.kind;
        usize::try_from(id / KINDS).ok().filter(|_| fits)
    }

    /// Takes all, for a connection that has ended.
    pub(super) fn take_all(&mut self) -> Vec<T> {
        let slots = std::mem::replace(self, Table::new(self.kind)).slots;
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
        let mut table = Table::new(47);
        assert_eq!([Band::InBand, Band::OutOfBand].map(|band| table.insert(band, 'a')), [7, 17]);
        assert_eq!((table.in_band(), table.out_of_band()), (1, 1));
        assert_eq!(table.take(7), Some('a'));
        assert_eq!([0, 1, 7, 8, 27, u64::MAX].map(|id| table.take(id)), [None; 6]);
        assert_eq!((table.in_band(), table.out_of_band()), (0, 1));
        assert_eq!(table.insert(Band::InBand, 'b'), 7);
        assert_eq!(table.iter().collect::<String>(), "ba");
        assert_eq!(table.take_all(), ['b', 'a']);
        assert_eq!((table.in_band(), table.out_of_band()), (0, 0));
    }
}
