//! How often the host has to do with a GPU: what must not happen in a step is counted, so that tests can tell.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// Counts since the device was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// kernels started one by one, those of a recording when it is made
    pub launches: usize,
    /// recordings started as a whole
    pub replays: usize,
    /// allocations of device memory
    pub slabs: usize,
    /// copies from the host
    pub uploads: usize,
    /// copies to the host, each of which waits for the device
    pub downloads: usize,
    /// other waits for the device
    pub waits: usize,
}

impl std::ops::Sub for Counts {
    type Output = Counts;

    /// What came since `earlier`.
    fn sub(self, earlier: Counts) -> Counts {
        Counts {
            launches: self.launches - earlier.launches,
            replays: self.replays - earlier.replays,
            slabs: self.slabs - earlier.slabs,
            uploads: self.uploads - earlier.uploads,
            downloads: self.downloads - earlier.downloads,
            waits: self.waits - earlier.waits,
        }
    }
}

/// [`Counts`] in the making.
#[derive(Debug, Default)]
pub struct Tally {
    launches: AtomicUsize,
    replays: AtomicUsize,
    slabs: AtomicUsize,
    uploads: AtomicUsize,
    downloads: AtomicUsize,
    waits: AtomicUsize,
    /// names of the kernels that a thread starts, for the threads that ask for them
    logs: Mutex<HashMap<ThreadId, Vec<&'static str>>>,
}

fn add(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Tally {
    pub fn launch(&self, name: &'static str) {
        add(&self.launches);
        if let Some(log) = self.logs().get_mut(&thread::current().id()) {
            log.push(name);
        }
    }

    /// Notes the names of what this thread starts from now on. Threads may share a device: each has its own.
    pub fn log(&self) {
        self.logs().insert(thread::current().id(), Vec::new());
    }

    /// The names since [`Tally::log`].
    pub fn take_log(&self) -> Vec<&'static str> {
        self.logs().remove(&thread::current().id()).unwrap_or_default()
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<ThreadId, Vec<&'static str>>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn replay(&self) {
        add(&self.replays);
    }

    pub fn slab(&self) {
        add(&self.slabs);
    }

    pub fn upload(&self) {
        add(&self.uploads);
    }

    pub fn download(&self) {
        add(&self.downloads);
    }

    pub fn wait(&self) {
        add(&self.waits);
    }

    pub fn read(&self) -> Counts {
        let read = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        Counts {
            launches: read(&self.launches),
            replays: read(&self.replays),
            slabs: read(&self.slabs),
            uploads: read(&self.uploads),
            downloads: read(&self.downloads),
            waits: read(&self.waits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thread_reads_the_names_that_it_started() {
        let tally = Tally::default();
        tally.log();
        tally.launch("mine");
        thread::scope(|scope| {
            scope.spawn(|| {
                tally.launch("unasked");
                tally.log();
                tally.launch("theirs");
                assert_eq!(tally.take_log(), ["theirs"]);
            });
        });
        tally.launch("mine too");
        assert_eq!(tally.take_log(), ["mine", "mine too"]);
        tally.launch("unasked");
        assert!(tally.take_log().is_empty());
        assert_eq!(tally.read().launches, 5);
    }
}
