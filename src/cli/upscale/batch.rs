//! Pictures on their way: read ahead and written behind on other threads, joined to batches of one size.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::image::{EncodeOptions, Job, Picture, content_hash, decode, encode};

/// How many pictures are read ahead, or wait to be written.
const IN_FLIGHT: usize = 2;

/// A picture that was read, or why it was not.
pub struct Item {
    /// position among all files of the run
    pub index: usize,
    pub job: Job,
    pub picture: Result<Picture>,
    pub hash: u64,
    pub started: Instant,
}

/// Reads the pictures of `jobs` in order on a thread of its own.
pub fn read_ahead<'scope>(scope: &'scope Scope<'scope, '_>, jobs: Vec<(usize, Job)>) -> Receiver<Item> {
    let (sender, receiver) = sync_channel(IN_FLIGHT);
    scope.spawn(move || {
        for (index, job) in jobs {
            let started = Instant::now();
            let picture = decode(&job.input);
            let hash = picture.as_ref().map(content_hash).unwrap_or_default();
            // The run has ended early when nobody listens.
            if sender.send(Item { index, job, picture, hash, started }).is_err() {
                return;
            }
        }
    });
    receiver
}

/// A picture to write.
pub struct Finished {
    pub job: Job,
    pub picture: Picture,
    pub options: EncodeOptions,
    pub report: serde_json::Value,
    pub started: Instant,
}

/// Writes pictures in order on a thread of its own and calls `done` after each: (job, notes or error, report,
/// seconds since it was read).
pub fn write_behind<'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut done: impl FnMut(&Job, Result<Vec<String>>, serde_json::Value, f64) + Send + 'scope,
) -> SyncSender<Finished> {
    let (sender, receiver) = sync_channel::<Finished>(IN_FLIGHT);
    scope.spawn(move || {
        for finished in receiver {
            let Finished { job, picture, options, report, started } = finished;
            let written = job.create_folder().and_then(|()| encode(&picture, &job.output, &options));
            done(&job, written, report, started.elapsed().as_secs_f64());
        }
    });
    sender
}

/// Groups of at most `most` consecutive pictures of one size; what could not be read comes out alone.
pub struct Batches {
    items: Receiver<Item>,
    most: usize,
    next: Option<Item>,
}

impl Batches {
    pub fn new(items: Receiver<Item>, most: usize) -> Self {
        Batches { items, most, next: None }
    }
}

fn size(item: &Item) -> Option<(usize, usize)> {
    item.picture.as_ref().ok().map(|picture| (picture.height, picture.width))
}

impl Iterator for Batches {
    type Item = Vec<Item>;

    fn next(&mut self) -> Option<Vec<Item>> {
        let first = self.next.take().or_else(|| self.items.recv().ok())?;
        let wanted = size(&first);
        let mut batch = vec![first];
        while wanted.is_some() && batch.len() < self.most {
            match self.items.recv() {
                // A replayed run counts its images: a batch has no gaps.
                Ok(item) if size(&item) == wanted && item.index == batch[0].index + batch.len() => {
                    batch.push(item)
                }
                Ok(item) => {
                    self.next = Some(item);
                    break;
                }
                Err(_) => break,
            }
        }
        Some(batch)
    }
}

/// The folder that would have to exist for a trace or an output file.
pub fn check_parent(path: &std::path::Path, flag: &str) -> Result<()> {
    let parent: PathBuf = path.parent().map(PathBuf::from).unwrap_or_default();
    if parent.as_os_str().is_empty() || parent.is_dir() {
        return Ok(());
    }
    Err(Error::usage(format!("the folder {} does not exist", parent.display()))
        .at(flag)
        .fix("create it first"))
}
