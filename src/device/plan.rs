//! The planning device: runs the shapes of a computation, allocates and computes nothing, and knows
//! afterwards how much memory the real device will need.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Target;
use super::arena::{ALIGNMENT, Allocator, Span};

#[derive(Debug)]
struct State {
    activations: Allocator,
    slab: usize,
    weights: usize,
}

/// Counts what a device of kind `target` would allocate.
#[derive(Debug)]
pub struct Plan {
    target: Target,
    specialised: bool,
    state: Mutex<State>,
}

impl Plan {
    pub fn new(target: Target) -> Self {
        let mut activations = Allocator::default();
        let slab = activations.add_slab(0);
        Plan { target, specialised: false, state: Mutex::new(State { activations, slab, weights: 0 }) }
    }

    pub fn target(&self) -> Target {
        self.target
    }

    /// The same, standing for a GPU that has the kernels of sm_90a, or not.
    pub fn specialised_as(self, specialised: bool) -> Self {
        Plan { specialised, ..self }
    }

    pub fn specialised(&self) -> bool {
        self.specialised
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places `bytes` where the real allocator would, in a slab that grows as needed.
    pub fn allocate(&self, bytes: usize) -> Span {
        let state = &mut *self.state();
        loop {
            if let Some(span) = state.activations.allocate(bytes) {
                return span;
            }
            let wanted = bytes.max(1).next_multiple_of(ALIGNMENT);
            let missing = wanted - state.activations.free_tail(state.slab).min(wanted - ALIGNMENT);
            state.activations.grow_slab(state.slab, missing);
        }
    }

    pub fn free(&self, span: Span) {
        self.state().activations.free(span);
    }

    pub fn add_weights(&self, bytes: usize) {
        self.state().weights += bytes;
    }

    pub fn drop_weights(&self, bytes: usize) {
        self.state().weights -= bytes;
    }

    /// Bytes of one slab that holds every activation of the run, fragmentation included.
    pub fn activation_bytes(&self) -> usize {
        self.state().activations.reserved()
    }

    /// Bytes of the weights alive now.
    pub fn weight_bytes(&self) -> usize {
        self.state().weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserves_the_high_water_mark_and_no_more() {
        let plan = Plan::new(Target::Cpu);
        let (a, b) = (plan.allocate(1000), plan.allocate(5000));
        plan.free(a);
        plan.free(b);
        plan.free(plan.allocate(6144));
        assert_eq!(plan.activation_bytes(), 1024 + 5120);
        plan.free(plan.allocate(6145));
        assert_eq!(plan.activation_bytes(), 1024 + 5120 + 256);
    }
}
