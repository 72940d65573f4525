//! Who holds the lock on a file.
//!
//! The lock is the kernel's own (`flock`): it belongs to an open file, so it ends with its process, however that ends,
//! and none can be left behind. A process id that was written anywhere would outlive its process; the kernel's table
//! of locks cannot. (`fcntl` locks tell their holder directly, but end as soon as the process closes any other handle
//! of the file.)

use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// The process that holds the lock on `file`; `None` where the kernel does not tell (another container's process).
pub fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let table = std::fs::read_to_string("/proc/locks").ok()?;
    let device = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    find(&table, device, metadata.ino())
}

/// The holder of an exclusive `flock` on inode `inode` in the text of /proc/locks, whose lines are
/// `NUMBER: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END`, with the device in hexadecimal. Some file systems
/// show another device there than to `stat`: where only one line has the inode, that is taken.
fn find(table: &str, device: (u32, u32), inode: u64) -> Option<u32> {
    let locks: Vec<(u32, (u32, u32))> =
        table.lines().filter_map(line).filter(|lock| lock.2 == inode).map(|lock| (lock.0, lock.1)).collect();
    let exact = locks.iter().find(|lock| lock.1 == device);
    let only = if locks.len() == 1 { locks.first() } else { None };
    exact.or(only).map(|lock| lock.0).filter(|pid| *pid != 0)
}

/// Process, device and inode of a line that holds an exclusive `flock` (one that waits has `->` as its second word).
fn line(line: &str) -> Option<(u32, (u32, u32), u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", pid, place, ..] = words[..] else { return None };
    let mut place = place.split(':');
    let major = u32::from_str_radix(place.next()?, 16).ok()?;
    let minor = u32::from_str_radix(place.next()?, 16).ok()?;
    Some((pid.parse().ok()?, (major, minor), place.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "1: FLOCK  ADVISORY  WRITE 22238 fe:00:55 0 EOF\n\
                         1: -> FLOCK  ADVISORY  WRITE 99 fe:00:55 0 EOF\n\
                         2: POSIX  ADVISORY  WRITE 7 fe:00:56 0 EOF\n\
                         3: FLOCK  ADVISORY  READ 8 fe:00:56 0 EOF\n\
                         4: FLOCK  ADVISORY  WRITE 9 fe:01:57 0 EOF\n\
                         5: FLOCK  ADVISORY  WRITE 10 fe:02:57 0 EOF\n\
                         6: FLOCK  ADVISORY  WRITE 0 fe:00:58 0 EOF\n\
                         nonsense\n";

    #[test]
    fn the_holder_is_found_by_device_and_inode() {
        assert_eq!(find(TABLE, (0xfe, 0), 55), Some(22238));
        assert_eq!(find(TABLE, (0x2b, 1), 55), Some(22238), "one lock on that inode, whatever the device");
        assert_eq!(find(TABLE, (0xfe, 2), 57), Some(10));
        assert_eq!(find(TABLE, (0xfe, 3), 57), None, "two devices, neither is the file's");
        assert_eq!(find(TABLE, (0xfe, 0), 56), None, "other kinds of lock");
        assert_eq!(find(TABLE, (0xfe, 0), 58), None, "0 is another container's process");
    }

    #[test]
    fn this_process_is_found_while_it_holds_the_lock_and_not_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let file = File::create(&path).unwrap();
        file.lock().unwrap();
        let other = File::open(&path).unwrap();
        assert_eq!(holder(&other), Some(std::process::id()));
        drop(file);
        assert_eq!(holder(&other), None);
    }
}
