//! Recorded work of the emulator: the calls with their very params, done again in order at a replay. An address that
//! has changed its owner since is noticed by the same checks as in a single launch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::driver::Grid;
use super::super::kernels::Kernel;
use super::super::library::LibraryProduct;
use crate::error::{Error, Result};

/// One call. Spans are part of it, so that at a replay too memory counts as unwritten until a kernel has written it.
#[derive(Debug)]
pub enum Work {
    Launch { kernel: Kernel, grid: Grid, params: Vec<u8> },
    Copy { to: u64, from: u64, bytes: usize },
    Clear { address: u64, bytes: usize },
    Product(LibraryProduct),
    Taken { address: u64, bytes: usize },
    Freed { address: u64, bytes: usize },
}

#[derive(Debug, Default)]
struct State {
    open: Option<Vec<Work>>,
    kept: HashMap<usize, Arc<Vec<Work>>>,
    next: usize,
}

/// The recording that is open and those that are kept.
#[derive(Debug, Default)]
pub struct Recordings(Mutex<State>);

impl Recordings {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when work is recorded: `work` is noted then and must not be done.
    pub fn take(&self, work: impl FnOnce() -> Work) -> bool {
        match &mut self.state().open {
            Some(list) => {
                list.push(work());
                true
            }
            None => false,
        }
    }

    pub fn begin(&self) {
        self.state().open = Some(Vec::new());
    }

    /// The number of the recording.
    ///
    /// # Errors
    /// None is open.
    pub fn end(&self) -> Result<usize> {
        let state = &mut *self.state();
        let list = state.open.take().ok_or_else(|| Error::internal("no work is being recorded"))?;
        state.next += 1;
        state.kept.insert(state.next, Arc::new(list));
        Ok(state.next)
    }

    /// # Errors
    /// There is no such recording.
    pub fn of(&self, number: usize) -> Result<Arc<Vec<Work>>> {
        let found = self.state().kept.get(&number).cloned();
        found.ok_or_else(|| Error::internal(format!("there is no recording {number}")))
    }

    pub fn forget(&self, number: usize) {
        self.state().kept.remove(&number);
    }
}
