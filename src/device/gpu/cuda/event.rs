//! Points in the order of a stream's work.

use cudarc::driver::{result, sys};

use super::failed;
use crate::error::Result;

/// A point that work reaches; destroys itself.
#[derive(Debug)]
pub struct Event(sys::CUevent);

// SAFETY: a driver handle, used from any thread that has made the context current.
unsafe impl Send for Event {}

impl Event {
    /// The context is current.
    pub fn new() -> Result<Self> {
        let flags = sys::CUevent_flags_enum::CU_EVENT_DEFAULT;
        result::event::create(flags).map(Event).map_err(failed("make an event"))
    }

    /// Puts the point behind all work of `stream` so far.
    pub fn record(&self, stream: sys::CUstream) -> Result<()> {
        // SAFETY: the event is ours, and the caller's stream is of the same context.
        unsafe { result::event::record(self.0, stream) }.map_err(failed("record an event"))
    }

    /// Waits until the point is reached; at once when it was never recorded.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the event is ours.
        unsafe { result::event::synchronize(self.0) }.map_err(failed("finish its work"))
    }

    /// Seconds between `start` and this point, once it is reached.
    pub fn since(&self, start: &Event) -> Result<f64> {
        self.wait()?;
        // SAFETY: both events are ours and were recorded.
        let milliseconds =
            unsafe { result::event::elapsed(start.0, self.0) }.map_err(failed("tell the time"))?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed once; a failure only leaks it.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}
