//! Recorded work as CUDA graphs.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cudarc::driver::{result, sys};

use super::failed;
use crate::error::{Error, Result};

/// An instantiated graph.
#[derive(Debug)]
struct Graph(sys::CUgraphExec);

// SAFETY: a driver handle, used from any thread that has made the context current, under the lock.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: instantiated by `end` and destroyed once; a failure only leaks it.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

#[derive(Debug, Default)]
struct State {
    graphs: HashMap<usize, Graph>,
    next: usize,
}

/// The graphs of a device. Every call wants its context current.
#[derive(Debug, Default)]
pub struct Recordings(Mutex<State>);

impl Recordings {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the capture of `stream` and keeps its graph.
    ///
    /// # Safety
    /// The stream is alive and captures.
    pub unsafe fn end(&self, stream: sys::CUstream) -> Result<usize> {
        // SAFETY: the caller's promise.
        let graph = unsafe { result::stream::end_capture(stream) }.map_err(failed("record its work"))?;
        // A capture that a call has broken ends with no graph.
        if graph.is_null() {
            return Err(Error::device("the GPU could not record its work"));
        }
        let flags = sys::CUgraphInstantiate_flags_enum(0);
        // SAFETY: the driver has just given the graph.
        let made = unsafe { result::graph::instantiate(graph, flags) };
        // SAFETY: as above; the executable graph does not need it.
        let _ = unsafe { result::graph::destroy(graph) };
        let made = Graph(made.map_err(failed("prepare its recorded work"))?);
        let state = &mut *self.state();
        state.next += 1;
        state.graphs.insert(state.next, made);
        Ok(state.next)
    }

    /// # Safety
    /// The stream is alive, and so is all memory that the graph's work uses.
    pub unsafe fn launch(&self, number: usize, stream: sys::CUstream) -> Result<()> {
        let state = self.state();
        let graph = state
            .graphs
            .get(&number)
            .ok_or_else(|| Error::internal(format!("there is no recording {number}")))?;
        // SAFETY: the graph is alive, the rest is the caller's promise.
        unsafe { result::graph::launch(graph.0, stream) }.map_err(failed("repeat its recorded work"))
    }

    pub fn forget(&self, number: usize) {
        self.state().graphs.remove(&number);
    }

    pub fn clear(&self) {
        self.state().graphs.clear();
    }
}
