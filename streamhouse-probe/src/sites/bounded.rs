//! Reads of a file with a bound on each and on all together: a sparse file of a terabyte costs its owner nothing.

use std::cell::Cell;
use std::fs::File;
use std::ops::Range;

use object::{ReadCache, ReadRef};

/// Reads through a cache while a budget of bytes lasts.
#[derive(Clone, Copy)]
pub(super) struct Bounded<'c, 'f> {
    cache: &'c ReadCache<&'f File>,
    left: &'c Cell<u64>,
}

impl<'c, 'f> Bounded<'c, 'f> {
    pub(super) fn new(cache: &'c ReadCache<&'f File>, left: &'c Cell<u64>) -> Bounded<'c, 'f> {
        Bounded { cache, left }
    }

    fn charge(self, bytes: u64) -> Result<(), ()> {
        self.left.set(self.left.get().checked_sub(bytes).ok_or(())?);
        Ok(())
    }
}

impl<'c> ReadRef<'c> for Bounded<'c, '_> {
    fn len(self) -> Result<u64, ()> {
        self.cache.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'c [u8], ()> {
        self.charge(size)?;
        self.cache.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'c [u8], ()> {
        let found = self.cache.read_bytes_at_until(range, delimiter)?;
        self.charge(found.len() as u64 + 1)?;
        Ok(found)
    }
}
