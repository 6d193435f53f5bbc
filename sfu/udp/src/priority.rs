//! The priority of the threads that forward, and of those beside them.

use std::io;

/// For the calling thread alone; `nice` as in nice(1): 19 runs only where others leave time, -20 before them all. Less than
/// it has needs a right (`CAP_SYS_NICE` or `RLIMIT_NICE`). The standard library has no word for it.
pub fn set_thread_priority(nice: i8) -> io::Result<()> {
    // On Linux who = 0 is the calling thread, not its process (setpriority(2), "C library/kernel differences").
    // SAFETY: takes no pointers.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice.into()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_nice() -> i64 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // The name in parentheses may have spaces; nice is the 19th field, the 17th after it.
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn is_of_the_thread_that_asks_and_no_other() {
        let before = own_nice();
        let lowered = std::thread::spawn(|| {
            set_thread_priority(15).unwrap();
            own_nice()
        });
        assert_eq!((lowered.join().unwrap(), own_nice()), (15, before));
    }
}
