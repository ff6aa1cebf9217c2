//! What the machine has left: processors, memory, disks, as the kernel says in `/proc`.
//!
//! Whoever serves metrics serves these too, so that the alerts about machines work without another exporter. Several on one
//! machine serve the same under one `host`.

use crate::{Families, LabelValues, catalog};
use std::fs;
use std::path::Path;

/// File systems that keep data on disks. Others are memory, views of other machines, or cannot be written.
const DISK_TYPES: [&str; 6] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"];
/// Most file systems that are served.
const FILE_SYSTEMS_MAX: usize = 64;
/// Clock ticks of `/proc/stat` in a second: USER_HZ, the same on every architecture that has sites.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a machine has left at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Host {
    name: String,
    /// Seconds that processors were busy, and how many there are.
    processors: Option<(f64, u64)>,
    /// Bytes of memory in all, and available.
    memory: Option<(u64, u64)>,
    disks: Vec<Disk>,
}

#[derive(Clone, Debug, PartialEq)]
struct Disk {
    mountpoint: String,
    size_bytes: u64,
    available_bytes: u64,
}

impl Host {
    /// Looks at this machine; what cannot be read is left out.
    pub fn look() -> Host {
        let disk = |mountpoint: String| {
            let stat = rustix::fs::statvfs(Path::new(&mountpoint)).ok()?;
            let [size_bytes, available_bytes] =
                [stat.f_blocks, stat.f_bavail].map(|blocks| blocks.saturating_mul(stat.f_frsize));
            Some(Disk { mountpoint, size_bytes, available_bytes })
        };
        let mounts = read("/proc/self/mounts").unwrap_or_default();
        Host {
            name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            processors: read("/proc/stat").as_deref().and_then(processors),
            memory: read("/proc/meminfo").as_deref().and_then(memory),
            disks: disks(&mounts).into_iter().filter_map(disk).collect(),
        }
    }

    /// Adds it to what is served.
    pub fn add_to(&self, families: &mut Families) {
        let labels = LabelValues { host: &self.name, ..LabelValues::default() };
        if let Some((busy, cpus)) = self.processors {
            families.value(&catalog::HOST_CPU_BUSY, &labels, busy, None);
            families.count(&catalog::HOST_CPUS, &labels, cpus, None);
        }
        if let Some((total, available)) = self.memory {
            families.count(&catalog::HOST_MEMORY_TOTAL, &labels, total, None);
            families.count(&catalog::HOST_MEMORY_AVAILABLE, &labels, available, None);
        }
        for Disk { mountpoint, size_bytes, available_bytes } in &self.disks {
            let labels = LabelValues { mountpoint, ..labels };
            families.count(&catalog::HOST_FILESYSTEM_SIZE, &labels, *size_bytes, None);
            families.count(&catalog::HOST_FILESYSTEM_AVAILABLE, &labels, *available_bytes, None);
        }
    }
}

fn read(path: &str) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Busy seconds of all processors, and how many there are (proc_stat(5): user, nice, system, idle, iowait, irq, softirq,
/// steal; a guest's time is in user).
fn processors(stat: &str) -> Option<(f64, u64)> {
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = all.split_whitespace().map_while(|number| number.parse().ok()).collect();
    let busy: u64 =
        ticks.iter().take(8).enumerate().filter(|(at, _)| !(3..=4).contains(at)).map(|(_, n)| n).sum();
    let is_processor = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    let cpus = stat.lines().filter(is_processor).count();
    (ticks.len() >= 5).then_some((busy as f64 / TICKS_PER_SECOND, cpus as u64))
}

/// Bytes in all and available.
fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let bytes = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = value.trim_start_matches(':').trim().trim_end_matches(" kB").parse().ok()?;
        kib.checked_mul(1024)
    };
    bytes("MemTotal").zip(bytes("MemAvailable"))
}

/// Where disks are mounted for writing, each device once.
fn disks(mounts: &str) -> Vec<String> {
    let mut devices = Vec::new();
    let mut mountpoints = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [device, mountpoint, kind, options, ..] = fields[..] else { continue };
        let writable = options.split(',').any(|option| option == "rw");
        if writable && DISK_TYPES.contains(&kind) && !devices.contains(&device) {
            devices.push(device);
            mountpoints.push(unescaped(mountpoint));
        }
    }
    mountpoints.truncate(FILE_SYSTEMS_MAX);
    mountpoints
}

/// Spaces, tabs, line ends and backslashes are octal there (proc_pid_mounts(5)).
fn unescaped(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;

    #[test]
    fn processors_are_busy_when_they_neither_idle_nor_wait() {
        let stat = "cpu  100 20 30 1000 500 4 6 40 7 8\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1\nintr 5\n";
        assert_eq!(processors(stat), Some((2.0, 2)));
        assert_eq!(processors("cpu  1 2\n"), None);
        assert_eq!(processors(""), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let text = "MemTotal:        2000 kB\nMemFree: 1 kB\nMemAvailable:    500 kB\n";
        assert_eq!(memory(text), Some((2_048_000, 512_000)));
        assert_eq!(memory("MemTotal: x kB\n"), None);
    }

    #[test]
    fn disks_that_can_be_written_count_once() {
        let mounts = "/dev/sda1 / ext4 rw,relatime 0 0\n/dev/sda1 /again ext4 rw 0 0\nproc /proc proc rw 0 0\n\
                      /dev/sdb /a\\040b xfs noatime,rw 0 0\n/dev/sdc /ro ext4 ro,x 0 0\ntmpfs /tmp tmpfs rw 0 0\nnonsense\n";
        assert_eq!(disks(mounts), ["/", "/a b"]);
    }

    #[test]
    fn this_machine_has_processors_and_memory() {
        let mut families = Families::default();
        Host::look().add_to(&mut families);
        for metric in [&catalog::HOST_CPUS, &catalog::HOST_MEMORY_TOTAL] {
            let (_, sample) = families.of(metric).expect("it has").next().expect("one");
            assert!(matches!(sample.value, Value::Whole(1..)), "{}: {sample:?}", metric.name);
        }
    }
}
