//! How much memory this machine has to give.

use sysinfo::System;

/// Bytes; `None` where the system does not tell.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub total: Option<u64>,
    pub available: Option<u64>,
}

impl Memory {
    /// Asks the system, and on Linux the container (cgroup) that the program runs in.
    pub fn find() -> Memory {
        let mut system = System::new();
        system.refresh_memory();
        let told = |bytes: u64| Some(bytes).filter(|bytes| *bytes > 0);
        let (total, available) = (told(system.total_memory()), told(system.available_memory()));
        match system.cgroup_limits() {
            None => Memory { total, available },
            Some(limits) => {
                // Files in the page cache count for the container but give way, so only `rss` is really taken.
                let free = limits.total_memory.saturating_sub(limits.rss);
                Memory {
                    total: total.map(|total| total.min(limits.total_memory)),
                    available: available.map(|available| available.min(free)),
                }
            }
        }
    }
}
