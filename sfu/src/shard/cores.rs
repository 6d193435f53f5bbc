//! Which cores there are for this process, and the tie of a thread to one of them.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Those that the process may run on, in ascending order; none where the system does not say.
pub(crate) fn available() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
}

/// Ties the calling thread to a core.
pub(super) fn pin(core: usize) -> Result<(), rustix::io::Errno> {
    let mut set = CpuSet::new();
    if core < CpuSet::MAX_CPU {
        set.set(core);
    }
    sched_setaffinity(None, &set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_stays_on_its_core() {
        let cores = available();
        let last = *cores.last().unwrap();
        let pinned = std::thread::spawn(move || (pin(last), available())).join().unwrap();
        assert_eq!(pinned, (Ok(()), vec![last]));
        assert_eq!(available(), cores, "others are free");
        assert!(pin(usize::MAX).is_err());
    }
}
