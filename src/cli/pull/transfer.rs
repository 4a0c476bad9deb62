//! Brings one file, from the first source that has it, going on where a transfer broke.

use std::path::Path;
use std::time::{Duration, Instant};

use super::pace::Least;
use super::partial::{Origin, Partial};
use super::request::{Answer, Broken, Head, Piece, Wanted};
use crate::error::{Error, Kind, Result};
use crate::pipeline::progress::Progress;
use crate::weights::space::{free_space, in_units};

/// A step of the progress bar.
const STEP: u64 = 1_000_000;
/// The first pause before a transfer is tried again; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(500);

/// How a transfer is made.
pub struct Manner<'a> {
    /// how often a broken transfer goes on without a byte more than before
    pub retries: u32,
    /// what a transfer brings, or it is broken; its span is the longest silence, too
    pub least: Least,
    pub progress: &'a dyn Progress,
}

/// Why a source did not give the file.
enum Failure {
    /// Trying again may help.
    Broken(Broken),
    /// It will not.
    Refused(String),
    /// The whole command ends.
    Fatal(Error),
}

impl Failure {
    fn broken(why: impl Into<Broken>) -> Self {
        Failure::Broken(why.into())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Fatal(error)
    }
}

impl Manner<'_> {
    fn check(&self) -> Result<()> {
        self.progress.check_interrupt()
    }

    /// What a source says of a file: its size, if it tells; or why it has none.
    ///
    /// # Errors
    /// An interrupt.
    pub fn ask(&self, url: &str) -> Result<std::result::Result<Option<u64>, String>> {
        let mut answer = Answer::to(Wanted { url: url.into(), from: None, head_only: true }, self.least);
        Ok(match answer.next(|| self.check())? {
            Ok(Piece::Head(Head { status: 200, length, .. })) => Ok(length),
            Ok(Piece::Head(head)) => Err(format!("status {}", head.status)),
            Ok(_) => Err("no answer".to_owned()),
            Err(broken) => Err(broken.why),
        })
    }

    /// The text of a small file: nothing where a source has none; or why it did not come.
    ///
    /// # Errors
    /// An interrupt.
    pub fn text(&self, url: &str) -> Result<std::result::Result<String, String>> {
        const MOST: usize = 1 << 20;
        let mut answer = Answer::to(Wanted { url: url.into(), from: None, head_only: false }, self.least);
        let mut text = Vec::new();
        loop {
            match answer.next(|| self.check())? {
                Ok(Piece::Head(Head { status: 200, .. })) => {}
                Ok(Piece::Head(Head { status: 403 | 404 | 410, .. })) => return Ok(Ok(String::new())),
                Ok(Piece::Head(head)) => return Ok(Err(format!("status {}", head.status))),
                Ok(Piece::Bytes(bytes)) if text.len() + bytes.len() <= MOST => text.extend(bytes),
                Ok(Piece::Bytes(_)) => return Ok(Err("it is too long for a list of sums".to_owned())),
                Ok(Piece::End) => return Ok(String::from_utf8(text).map_err(|_| "it is no text".to_owned())),
                Err(broken) => return Ok(Err(broken.why)),
            }
        }
    }

    /// Brings `target` from the first of `sources` that gives it; -> the SHA-256 of its bytes.
    ///
    /// # Errors
    /// No source gives it, its bytes are not those of `sum`, the disk has not enough room, an interrupt. What came is
    /// kept for the next run, but for bytes of another sum.
    pub fn fetch(&self, sources: &[String], target: &Path, sum: Option<&str>) -> Result<String> {
        let mut told = Vec::new();
        for url in sources {
            match self.fetch_from(url, target, sum) {
                Ok(found) => return Ok(found),
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Broken(Broken { why, .. }) | Failure::Refused(why)) => {
                    self.progress.note(&format!("{url}: {why}"));
                    told.push(format!("{url}: {why}"));
                }
            }
        }
        let place = target.display().to_string();
        let what = match told.as_slice() {
            [] => "no source of this file is known".to_owned(),
            told => format!("no source gave it ({})", told.join("; ")),
        };
        let fix = "run the command again later: it goes on where it stopped; or give --mirror URL";
        Err(Error::new(Kind::Io, what).at(place).fix(fix))
    }

    fn fetch_from(
        &self,
        url: &str,
        target: &Path,
        sum: Option<&str>,
    ) -> std::result::Result<String, Failure> {
        let mut partial = Partial::open(target, || self.check())?;
        // Bytes that an earlier run has left may be others: they are not this source's fault.
        let inherited = partial.length() > 0;
        self.complete(url, target, &mut partial, sum.is_some())?;
        if inherited && sum.is_some_and(|sum| !sum.eq_ignore_ascii_case(&partial.sum())) {
            self.progress
                .note(&format!("{url}: what an earlier run has left does not fit; all is fetched again"));
            partial.restart()?;
            self.complete(url, target, &mut partial, true)?;
        }
        let found = partial.sum();
        match sum {
            Some(sum) if !sum.eq_ignore_ascii_case(&found) => {
                partial.discard()?;
                Err(Failure::Refused(format!("its SHA-256 is {found}, expected {sum}: other bytes, removed")))
            }
            _ => {
                partial.finish()?;
                Ok(found)
            }
        }
    }

    /// Requests until nothing is missing, or a source breaks too often.
    fn complete(
        &self,
        url: &str,
        target: &Path,
        partial: &mut Partial,
        summed: bool,
    ) -> std::result::Result<(), Failure> {
        let mut failures = 0;
        loop {
            let before = partial.length();
            let broken = match self.attempt(url, target, partial, summed) {
                Err(Failure::Broken(broken)) => broken,
                ended => return ended,
            };
            // What a slow one brings is no reason to go on for ever.
            let fruitful = partial.length() > before && !broken.slow;
            failures = if fruitful { 1 } else { failures + 1 };
            if failures > self.retries {
                return Err(Failure::Broken(broken));
            }
            self.progress.note(&format!("{url}: {}; trying again", broken.why));
            self.pause(PAUSE * 2u32.saturating_pow(failures - 1).min(64))?;
        }
    }

    fn pause(&self, pause: Duration) -> Result<()> {
        let end = Instant::now() + pause;
        while Instant::now() < end {
            self.check()?;
            std::thread::sleep(Duration::from_millis(50).min(pause));
        }
        Ok(())
    }

    /// One request for what is missing, appended to `partial`. Bytes of an earlier run are taken for the beginning if
    /// their ETag is asked for, or a sum will tell.
    fn attempt(
        &self,
        url: &str,
        target: &Path,
        partial: &mut Partial,
        summed: bool,
    ) -> std::result::Result<(), Failure> {
        let same = partial.origin().url == url && partial.origin().etag.is_some();
        if partial.length() > 0 && !same && !summed {
            partial.restart()?;
        }
        let etag = partial.origin().etag.clone().filter(|_| same);
        let from = (partial.length() > 0).then(|| (partial.length(), etag));
        let mut answer = Answer::to(Wanted { url: url.into(), from, head_only: false }, self.least);
        let head = match answer.next(|| self.check())? {
            Ok(Piece::Head(head)) => head,
            Ok(_) => return Err(Failure::broken("no answer")),
            Err(broken) => return Err(Failure::Broken(broken)),
        };
        let total = match head.status {
            200 | 206 if head.is_page => {
                return Err(Failure::Refused("the server answers with a web page".to_owned()));
            }
            200 => {
                partial.restart()?;
                head.length
            }
            206 if head.first == Some(partial.length()) => head.total,
            206 | 416 if head.total == Some(partial.length()) && partial.length() > 0 => return Ok(()),
            206 | 416 => {
                partial.restart()?;
                return Err(Failure::broken("the server has other bytes than before"));
            }
            status @ (408 | 425 | 429 | 500..=599) => {
                return Err(Failure::broken(format!("the server answers with status {status}")));
            }
            status => return Err(Failure::Refused(format!("the server answers with status {status}"))),
        };
        require_space(target, total.map(|total| total.saturating_sub(partial.length())))?;
        partial.set_origin(Origin { url: url.into(), etag: head.etag, total })?;

        let steps = |bytes: u64| usize::try_from(bytes / STEP).unwrap_or(usize::MAX);
        let start = partial.length();
        self.progress.steps("MB", steps(total.unwrap_or(0)).saturating_sub(steps(start)));
        loop {
            match answer.next(|| self.check())? {
                Ok(Piece::Bytes(bytes)) => {
                    let before = steps(partial.length());
                    partial.append(&bytes)?;
                    (before..steps(partial.length())).for_each(|_| self.progress.step());
                }
                Ok(Piece::End) => break,
                Ok(Piece::Head(_)) => return Err(Failure::broken("two answers to one request")),
                Err(broken) => return Err(Failure::Broken(broken)),
            }
        }
        match total {
            Some(total) if partial.length() < total => {
                let (have, all) = (in_units(partial.length()), in_units(total));
                Err(Failure::broken(format!("the transfer ended at {have} of {all}")))
            }
            Some(total) if partial.length() > total => {
                partial.restart()?;
                Err(Failure::broken("more came than was announced"))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses to begin what the disk cannot hold.
fn require_space(target: &Path, bytes: Option<u64>) -> Result<()> {
    match (bytes, free_space(target)) {
        (Some(bytes), Some(free)) if bytes > free => Err(Error::new(
            Kind::Io,
            format!("{} are missing, the disk has {} free", in_units(bytes), in_units(free)),
        )
        .at(target.display().to_string())
        .fix("free some space, or give another folder with -o")),
        _ => Ok(()),
    }
}
