//! What the system keeps for each process: the mask of new files, the limit of open files, the user, memory.
//!
//! Owns the calls. Must not know what they are for. The only module of the node with `unsafe` code: these calls have no safe form in the libraries that are linked anyway.
#![expect(
    unsafe_code,
    reason = "calls of the system that touch no memory but what they are given"
)]

use std::io;
use std::os::unix::fs::MetadataExt;

/// Sets which permissions new files and directories never have, for the whole process.
pub(crate) fn set_mask_of_new_files(mask: u32) {
    // SAFETY: the call takes a number, returns a number, and cannot fail.
    unsafe {
        libc::umask(mask);
    }
}

/// The user that the process runs as.
///
/// # Errors
/// There is no `/proc`.
pub(crate) fn user() -> io::Result<u32> {
    Ok(std::fs::metadata("/proc/self")?.uid())
}

/// Bytes of memory that the process has and that are no copies of files. `None` if there is no `/proc`.
pub(crate) fn anonymous_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes << 10)
}

/// Tells the allocator what to keep of what is freed: nothing of what is as large as `large`, at the end of each heap less than `end`, and in how many heaps.
pub(crate) fn bound_kept_memory(large: usize, end: usize, heaps: usize) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (what, value) in [
        (libc::M_MMAP_THRESHOLD, large),
        (libc::M_TRIM_THRESHOLD, end),
        (libc::M_ARENA_MAX, heaps),
    ] {
        let value = libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX);
        // SAFETY: the call takes two numbers and may be made at any time.
        unsafe {
            libc::mallopt(what, value);
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = (large, end, heaps);
}

/// Gives the system what was freed and is kept for later. Takes milliseconds for each gigabyte, in which others that allocate may have to wait.
pub(crate) fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the call takes a number, may be made by any thread at any time, and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The limit of open files as it is, and as it may be made: the soft and the hard one.
///
/// # Errors
/// The system refuses to say.
pub(crate) fn limit_of_open_files() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for what the call writes, and lives longer than the call.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0;
    if failed {
        return Err(io::Error::last_os_error());
    }
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the limit of open files, soft and hard.
///
/// # Errors
/// The system refuses.
pub(crate) fn set_limit_of_open_files(limit: u64) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: limit,
        rlim_max: limit,
    };
    // SAFETY: `limit` is valid to be read, and lives longer than the call.
    let failed = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0;
    if failed {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
