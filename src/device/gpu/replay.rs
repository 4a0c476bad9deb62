//! Recorded work: launches noted once and started again as a whole, a CUDA graph on a GPU.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Gpu;
use crate::device::Purpose;
use crate::device::arena::Span;
use crate::error::{Error, Result};

/// Work of a GPU that can be started again. All memory that it writes on its way is kept for it.
#[derive(Debug)]
pub struct Replay {
    gpu: Arc<Gpu>,
    recording: usize,
    claimed: Vec<Span>,
}

impl Gpu {
    /// Records the work that `work` starts. Nothing of it is done before [`Replay::run`]; memory that `work` frees
    /// stays taken as long as the recording lives, and what it returns must live as long.
    ///
    /// # Errors
    /// Those of `work`, which must not copy to or from the host; the device refuses to record.
    pub fn capture<T>(self: &Arc<Self>, work: impl FnOnce() -> Result<T>) -> Result<(T, Replay)> {
        if self.capturing.swap(true, Ordering::Relaxed) {
            return Err(Error::internal("work is being recorded already"));
        }
        self.pool(Purpose::Activation).allocator.watch();
        let recorded = self.driver.begin_capture().and_then(|()| {
            let done = work();
            // The recording is ended in any case, or the device would do nothing any more.
            let recording = self.driver.end_capture();
            Ok((done?, recording?))
        });
        let claimed = self.pool(Purpose::Activation).allocator.claim();
        self.capturing.store(false, Ordering::Relaxed);
        match recorded {
            Ok((value, recording)) => Ok((value, Replay { gpu: self.clone(), recording, claimed })),
            Err(error) => {
                self.give_back(&claimed);
                Err(error)
            }
        }
    }

    fn give_back(&self, claimed: &[Span]) {
        let pool = &mut *self.pool(Purpose::Activation);
        claimed.iter().for_each(|span| pool.allocator.free(*span));
    }
}

impl Replay {
    /// Starts the recorded work once more.
    ///
    /// # Safety
    /// All memory that was alive when the work was recorded and that it uses is still alive.
    ///
    /// # Errors
    /// The device refuses; the emulator also reports what a kernel did wrong.
    pub unsafe fn run(&self) -> Result<()> {
        self.gpu.tally.replay();
        // SAFETY: memory of the work's own is claimed, the other is alive as the caller promises.
        unsafe { self.gpu.driver.replay(self.recording) }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.gpu.driver.forget(self.recording);
        self.gpu.give_back(&self.claimed);
    }
}
