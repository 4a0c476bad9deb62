//! Worker threads that make samples ahead of the loop, and hand them over in the order of the run.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::dataset::{Dataset, Sample};
use crate::error::{Error, Result};

struct State {
    /// the next sample that a worker takes up
    next: u64,
    /// the next sample that the loop takes
    wanted: u64,
    ready: BTreeMap<u64, Result<Sample>>,
    stopped: bool,
    /// the shuffle of the latest epochs
    orders: BTreeMap<u64, Arc<Vec<usize>>>,
}

struct Shared {
    dataset: Dataset,
    /// samples made ahead of the loop
    ahead: u64,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let mut state = self.lock();
            while !state.stopped && state.next >= state.wanted + self.ahead {
                state = self.wait(state);
            }
            if state.stopped {
                return;
            }
            let place = state.next;
            state.next += 1;
            let epoch = place / self.dataset.len() as u64;
            let order =
                state.orders.entry(epoch).or_insert_with(|| Arc::new(self.dataset.order(epoch))).clone();
            while state.orders.len() > 3 {
                state.orders.pop_first();
            }
            drop(state);
            let index = order[(place % self.dataset.len() as u64) as usize];
            let sample = self.dataset.sample(epoch, index);
            self.lock().ready.insert(place, sample);
            self.changed.notify_all();
        }
    }
}

/// The samples of a run from some place on. Dropping it ends the workers.
pub struct Loader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts `workers` threads, at least one, that keep `ahead` samples ready, at least one, from sample `first` on.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(dataset: Dataset, first: u64, workers: usize, ahead: usize) -> Result<Self> {
        let state = State {
            next: first,
            wanted: first,
            ready: BTreeMap::new(),
            stopped: false,
            orders: BTreeMap::new(),
        };
        let shared = Arc::new(Shared {
            dataset,
            ahead: ahead.max(1) as u64,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let mut loader = Loader { shared, workers: Vec::new() };
        for i in 0..workers.max(1) {
            let shared = loader.shared.clone();
            let worker = std::thread::Builder::new().name(format!("data {i}")).spawn(move || shared.work());
            let worker = worker.map_err(|e| {
                Error::usage(format!("cannot start worker thread {i}: {e}"))
                    .at("data.workers")
                    .fix("give fewer")
            })?;
            loader.workers.push(worker);
        }
        Ok(loader)
    }

    /// The next sample of the run.
    ///
    /// # Errors
    /// A picture or its prompt cannot be read.
    pub fn next_sample(&mut self) -> Result<Sample> {
        let mut state = self.shared.lock();
        loop {
            let wanted = state.wanted;
            if let Some(sample) = state.ready.remove(&wanted) {
                state.wanted += 1;
                self.shared.changed.notify_all();
                return sample;
            }
            if self.workers.iter().all(JoinHandle::is_finished) {
                return Err(Error::internal("the threads that make samples have ended"));
            }
            state = self.shared.wait(state);
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked has been told of; there is nothing left to end.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dataset::DataOptions;
    use super::super::list::{Entry, PromptSource};
    use super::*;
    use crate::image::{EncodeOptions, Picture, encode};
    use crate::train::degrade::{Crop, Recipe};
    use std::path::Path;

    fn picture(path: &Path, phase: usize) {
        let colour = (0..40 * 36 * 3).map(|i| ((i * 31 + phase * 77) % 256) as f32 / 255.0).collect();
        encode(&Picture::of_colour(40, 36, colour), path, &EncodeOptions::default()).unwrap();
    }

    fn dataset(folder: &Path) -> Dataset {
        let entry = |i: usize| {
            let path = folder.join(format!("{i}.png"));
            picture(&path, i);
            Entry { path, prompt: Some(format!("prompt {i}")) }
        };
        let options = DataOptions {
            seed: 3,
            size: 32,
            crop: Crop::Random,
            flip: true,
            recipe: Recipe::named("realesrgan").unwrap(),
            degrade: true,
            fixed: false,
            prompts: PromptSource::None,
            dropout: 0.5,
        };
        Dataset::new((0..5).map(entry).collect(), options).unwrap()
    }

    #[test]
    fn the_order_is_that_of_the_run_whatever_the_workers_and_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let take = |first: u64, workers: usize, ahead: usize, count: usize| -> Vec<Sample> {
            let mut loader = Loader::start(dataset(folder.path()), first, workers, ahead).unwrap();
            (0..count).map(|_| loader.next_sample().unwrap()).collect()
        };
        let all = take(0, 1, 1, 16);
        assert!(take(0, 4, 7, 16) == all, "workers change the samples");
        assert!(take(7, 3, 2, 9) == all[7..], "the place of the start changes the samples");
        // Each epoch holds every picture once, in another order and degraded otherwise.
        let data = dataset(folder.path());
        let orders: Vec<Vec<usize>> = (0..8).map(|epoch| data.order(epoch)).collect();
        for order in &orders {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert!(orders.iter().any(|order| *order != orders[0]));
        assert_ne!(data.sample(0, 2).unwrap().low, data.sample(1, 2).unwrap().low);
        let dropped = all.iter().filter(|sample| sample.prompt.is_empty()).count();
        assert!((1..16).contains(&dropped), "{dropped} prompts of 16 were dropped");
    }

    #[test]
    fn a_broken_picture_is_named_when_its_turn_comes() {
        let folder = tempfile::tempdir().unwrap();
        let data = dataset(folder.path());
        let third = data.order(0)[2];
        std::fs::write(folder.path().join(format!("{third}.png")), "broken").unwrap();
        let mut loader = Loader::start(data, 0, 2, 4).unwrap();
        assert!(loader.next_sample().is_ok() && loader.next_sample().is_ok());
        assert!(loader.next_sample().unwrap_err().to_string().contains(&format!("{third}.png")));
    }
}
