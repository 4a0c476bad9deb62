//! Runs compilers in parallel and keeps what they made by the hash of what went in.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Judges what a compiler said.
pub type Check = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// One compilation. The command writes to `output` with `.part` appended; it is renamed when all is well.
pub struct Job {
    pub output: PathBuf,
    pub command: Command,
    /// Called on success.
    pub check: Check,
}

impl Job {
    /// Where the command has to write.
    pub fn part(output: &std::path::Path) -> PathBuf {
        let mut name = output.as_os_str().to_owned();
        name.push(".part");
        PathBuf::from(name)
    }

    fn run(&mut self) -> Result<(), String> {
        let said = self.command.output().map_err(|e| format!("{:?}: {e}", self.command.get_program()))?;
        let text =
            format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        if !said.status.success() {
            return Err(format!("{:?}\n{text}", self.command));
        }
        (self.check)(&text)?;
        std::fs::rename(Self::part(&self.output), &self.output)
            .map_err(|e| format!("{}: {e}", self.output.display()))
    }
}

/// A short name for the content of `parts`.
pub fn hash(parts: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// Runs the jobs whose output is not there yet, up to the first complaint.
pub fn run(jobs: Vec<Job>) -> Result<(), String> {
    let waiting: Vec<Mutex<Job>> =
        jobs.into_iter().filter(|job| !job.output.exists()).map(Mutex::new).collect();
    let threads = std::env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(2usize);
    let (next, complaint) = (AtomicUsize::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(waiting.len()) {
            scope.spawn(|| {
                while let Some(job) = waiting.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = job.lock().map_or_else(|e| e.into_inner().run(), |mut job| job.run());
                    if let (Err(why), Ok(mut first)) = (result, complaint.lock()) {
                        first.get_or_insert(why);
                        next.store(waiting.len(), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    complaint.into_inner().unwrap_or_default().map_or(Ok(()), Err)
}
