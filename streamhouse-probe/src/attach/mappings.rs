//! What the kernel tells at once: that a process maps a file to execute it.
//!
//! A record comes with every exec and every library, whenever it is loaded (`PERF_RECORD_MMAP2`, see
//! perf_event_open(2)). It only says where to look: what is there is asked of `/proc`.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use perf_event::data::Record;
use perf_event::events::Software;
use perf_event::{Builder, Sampler};

use crate::files::FileId;

/// Bytes of each processor's ring; some 500 records. The kernel lets every user have this much without a capability.
const RING_BYTES: usize = 64 << 10;

/// Executable mappings as they are made, on every processor that was online at the start.
pub struct Mappings {
    rings: Vec<Sampler>,
}

/// A process maps a file to execute it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// The process.
    pub pid: u32,
    /// The file, by the device number of its superblock.
    pub file: FileId,
    /// Its name in the root of the process, as far as the kernel can tell it.
    pub name: &'a [u8],
}

impl Mappings {
    /// Begins to listen. Needs CAP_PERFMON.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub fn listen() -> io::Result<Mappings> {
        let processors = aya::util::online_cpus().map_err(|(_, error)| error)?;
        let rings: io::Result<Vec<_>> = processors.into_iter().map(ring).collect();
        Ok(Mappings { rings: rings? })
    }

    /// What becomes readable when there are records.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // SAFETY: a ring keeps its descriptor open as long as it lives, and it is borrowed for as long.
        self.rings.iter().map(|ring| unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) })
    }

    /// Takes every record there is. False when some were lost because nobody took them in time.
    pub fn take(&mut self, mut each: impl FnMut(Mapping<'_>)) -> bool {
        let mut complete = true;
        for ring in &mut self.rings {
            while let Some(record) = ring.next_record() {
                let mapping = match record.parse_record() {
                    Ok(Record::Mmap2(mapping)) => mapping,
                    Ok(Record::Lost(_)) | Err(_) => {
                        complete = false;
                        continue;
                    }
                    Ok(_) => continue,
                };
                let (Some(major), Some(minor), Some(inode)) = (mapping.maj(), mapping.min(), mapping.ino())
                else {
                    continue;
                };
                let file = FileId { device: rustix::fs::makedev(major, minor), inode };
                each(Mapping { pid: mapping.pid, file, name: &mapping.filename });
            }
        }
        complete
    }
}

impl fmt::Debug for Mappings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mappings").field("rings", &self.rings.len()).finish()
    }
}

fn ring(processor: u32) -> io::Result<Sampler> {
    let mut counter = Builder::new(Software::DUMMY)
        .any_pid()
        .one_cpu(processor as usize)
        .mmap(true)
        .mmap2(true)
        // With the first record, not with half a ring of them.
        .wakeup_watermark(1)
        .build()?;
    counter.enable()?;
    counter.sampled(RING_BYTES)
}
