// SPDX-License-Identifier: MIT OR Apache-2.0
//! A file as a block device.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Instant;

use rustix::fs::{FallocateFlags, fallocate};

use crate::stats::BlockDeviceStats;

/// How much is written at a time where zeros cannot be had in another way.
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

pub(crate) struct Export {
    name: String,
    path: PathBuf,
    file: File,
    read_only: bool,
    /// Shared by what is in flight; whoever has it alone can resize the device.
    size: RwLock<u64>,
    stats: Mutex<BlockDeviceStats>,
}

/// What can be done with a device, as far as it is told apart in statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
    Flush,
    Unmap,
}

/// Why an operation was not done.
#[derive(Debug)]
pub(crate) enum Failure {
    ReadOnly,
    OutOfRange,
    Io(io::Error),
}

/// Whether an error says that there is no room, on the disk or by a limit.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
    )
}

impl Export {
    pub(crate) fn open(name: &str, path: &Path, read_only: bool) -> io::Result<Export> {
        let mut file = OpenOptions::new().read(true).write(!read_only).open(path)?;
        // The metadata of a block device does not tell its size.
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Export {
            name: name.to_owned(),
            path: path.to_owned(),
            file,
            read_only,
            size: RwLock::new(size),
            stats: Mutex::default(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// In bytes.
    pub(crate) fn size(&self) -> u64 {
        *self.size.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much of the disk the file takes, in bytes.
    pub(crate) fn allocated(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.blocks() * 512)
    }

    pub(crate) fn stats(&self) -> BlockDeviceStats {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the device larger or smaller, when nothing is in flight.
    pub(crate) fn resize(&self, new: u64) -> io::Result<()> {
        let mut size = self.size.write().unwrap_or_else(PoisonError::into_inner);
        self.file.set_len(new)?;
        *size = new;
        Ok(())
    }

    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> Result<(), Failure> {
        self.perform(Operation::Read, offset, buffer.len() as u64, || {
            self.file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => {
                    io::Error::new(error.kind(), "the file is shorter than the device")
                }
                _ => error,
            })
        })
    }

    pub(crate) fn write(&self, data: &[u8], offset: u64) -> Result<(), Failure> {
        self.perform(Operation::Write, offset, data.len() as u64, || {
            self.file.write_all_at(data, offset)
        })
    }

    /// Writes zeros; there may be a hole afterwards if `unmap`.
    pub(crate) fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        unmap: bool,
    ) -> Result<(), Failure> {
        self.perform(Operation::Write, offset, length, || {
            if unmap && self.punch_hole(offset, length)? {
                return Ok(());
            }
            let end = offset + length;
            for start in (offset..end).step_by(ZEROES.len()) {
                let piece = (end - start).min(ZEROES.len() as u64) as usize;
                self.file.write_all_at(&ZEROES[..piece], start)?;
            }
            Ok(())
        })
    }

    /// Says that what is there is needed no more.
    pub(crate) fn unmap(&self, offset: u64, length: u64) -> Result<(), Failure> {
        self.perform(Operation::Unmap, offset, length, || {
            self.punch_hole(offset, length).map(|_| ())
        })
    }

    /// Has everything that was written reach the disk.
    pub(crate) fn flush(&self) -> Result<(), Failure> {
        self.perform(Operation::Flush, 0, 0, || self.file.sync_data())
    }

    /// Whether the file system could.
    fn punch_hole(&self, offset: u64, length: u64) -> io::Result<bool> {
        if length == 0 {
            return Ok(true);
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, hole, offset, length) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NODEV) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Does something within the device, which keeps its size meanwhile, and counts it.
    fn perform(
        &self,
        operation: Operation,
        offset: u64,
        length: u64,
        work: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let size = self.size.read().unwrap_or_else(PoisonError::into_inner);
        let changes = matches!(operation, Operation::Write | Operation::Unmap);
        let result = if changes && self.read_only {
            Err(Failure::ReadOnly)
        } else if offset.checked_add(length).is_none_or(|end| end > *size) {
            Err(Failure::OutOfRange)
        } else {
            work().map_err(Failure::Io)
        };
        drop(size);
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.count(operation, offset, length, begun.elapsed(), &result);
        result
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const SIZE: u64 = 1 << 20;

    /// A device of a mebibyte of zeros, and its file.
    pub(crate) fn device(name: &str, read_only: bool) -> (Export, tempfile::NamedTempFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE).unwrap();
        (Export::open(name, file.path(), read_only).unwrap(), file)
    }

    #[test]
    fn what_is_written_is_there_until_it_is_zeroed() {
        let (export, file) = device("disk", false);
        export.write(&[7; 4096], SIZE - 4096).unwrap();
        export.flush().unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap()[SIZE as usize - 4096..], [7; 4096]);
        export.write_zeroes(SIZE - 2048, 1024, true).unwrap();
        export.write_zeroes(SIZE - 1024, 1024, false).unwrap();
        let mut read = [1; 4096];
        export.read(&mut read, SIZE - 4096).unwrap();
        assert_eq!((&read[..2048], &read[2048..]), (&[7; 2048][..], &[0; 2048][..]));
    }

    #[test]
    fn nothing_reaches_beyond_the_end() {
        let (export, _file) = device("disk", false);
        let past = [(SIZE, 1), (SIZE - 1, 2), (u64::MAX, 2)];
        for (offset, length) in past {
            let mut buffer = vec![0; length];
            assert!(matches!(export.write(&buffer, offset), Err(Failure::OutOfRange)));
            assert!(matches!(export.read(&mut buffer, offset), Err(Failure::OutOfRange)));
            let length = length as u64;
            assert!(matches!(export.unmap(offset, length), Err(Failure::OutOfRange)));
            let zeroed = export.write_zeroes(offset, length, true);
            assert!(matches!(zeroed, Err(Failure::OutOfRange)));
        }
        export.read(&mut [], SIZE).unwrap();
    }

    #[test]
    fn the_size_is_that_of_the_last_resize() {
        let (export, file) = device("disk", false);
        for size in [2 * SIZE, 5, 0, SIZE] {
            export.resize(size).unwrap();
            assert_eq!(export.size(), size);
            assert_eq!(file.as_file().metadata().unwrap().len(), size);
        }
    }

    #[test]
    fn a_file_that_somebody_has_cut_off_gives_errors() {
        let (export, file) = device("disk", false);
        file.as_file().set_len(512).unwrap();
        export.read(&mut [0; 512], 0).unwrap();
        let Err(Failure::Io(error)) = export.read(&mut [0; 512], 512) else { panic!("no error") };
        assert_eq!(error.to_string(), "the file is shorter than the device");
        export.resize(SIZE).unwrap();
        export.read(&mut [0; 512], 512).unwrap();
    }

    #[test]
    fn a_read_only_device_is_only_read() {
        let (export, _file) = device("disk", true);
        assert!(matches!(export.write(&[1], 0), Err(Failure::ReadOnly)));
        assert!(matches!(export.unmap(0, 1), Err(Failure::ReadOnly)));
        export.read(&mut [0], 0).unwrap();
        export.flush().unwrap();
        export.resize(1).unwrap_err();
        assert_eq!(export.size(), SIZE);
    }
}
