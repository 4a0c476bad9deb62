//! Tells the user how far a run is: bars on a terminal, plain lines elsewhere, JSON lines, or nothing.
//!
//! Everything goes to standard error, so that standard output stays free for results.

use crate::cli::interrupt::Interrupt;
use crate::error::Result;
use crate::pipeline::progress::{FileEnd, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time between two plain lines about steps.
const LINE_PAUSE: Duration = Duration::from_secs(5);
/// Shortest time between two JSON events about steps.
const EVENT_PAUSE: Duration = Duration::from_millis(100);

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Bars that are redrawn in place.
    Bars,
    /// A line now and then, each complete, for logs.
    Lines,
    /// One JSON object a line, its kind in `event`.
    Json,
    /// Only the failures of files.
    Quiet,
}

impl Mode {
    /// JSON if asked for, else nothing if asked for, else bars where they can be drawn.
    pub fn choose(quiet: bool, json: bool) -> Mode {
        match (json, quiet) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Quiet,
            (false, false) if std::io::stderr().is_terminal() => Mode::Bars,
            (false, false) => Mode::Lines,
        }
    }
}

/// The command line's [`Progress`]. Bars disappear when it is dropped.
pub struct Reporter {
    state: Mutex<State>,
    interrupt: Interrupt,
}

impl Reporter {
    /// Reports to standard error and stops when `interrupt` asks for it.
    pub fn new(mode: Mode, interrupt: Interrupt) -> Reporter {
        let out = Box::new(std::io::stderr());
        let view: Box<dyn View> = match mode {
            Mode::Bars => Box::new(Bars::new(ProgressDrawTarget::stderr())),
            Mode::Lines => Box::new(Lines { out, pace: Pace::new(LINE_PAUSE) }),
            Mode::Json => Box::new(Json { out, pace: Pace::new(EVENT_PAUSE) }),
            Mode::Quiet => Box::new(Quiet { out }),
        };
        Reporter::with_view(view, interrupt)
    }

    fn with_view(view: Box<dyn View>, interrupt: Interrupt) -> Reporter {
        Reporter { state: Mutex::new(State { tally: Tally::new(), view }), interrupt }
    }

    fn tell(&self, event: Event<'_>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { tally, view } = &mut *state;
        tally.count(&event);
        view.show(&event, tally);
    }
}

impl Progress for Reporter {
    fn begin_run(&self, files: usize) {
        self.tell(Event::Run { files });
    }
    fn begin_file(&self, name: &str) {
        self.tell(Event::File { name });
    }
    fn steps(&self, stage: &str, total: usize) {
        self.tell(Event::Stage { stage, total });
    }
    fn step(&self) {
        self.tell(Event::Step);
    }
    fn end_file(&self, name: &str, end: FileEnd<'_>) {
        self.tell(Event::End { name, end });
    }
    fn note(&self, text: &str) {
        self.tell(Event::Note { text });
    }
    fn check_interrupt(&self) -> Result<()> {
        self.interrupt.check()
    }
}

struct State {
    tally: Tally,
    view: Box<dyn View>,
}

enum Event<'a> {
    Run { files: usize },
    File { name: &'a str },
    Stage { stage: &'a str, total: usize },
    Step,
    End { name: &'a str, end: FileEnd<'a> },
    Note { text: &'a str },
}

/// Shows an event, which `tally` already counts.
trait View: Send {
    fn show(&mut self, event: &Event<'_>, tally: &Tally);
}

/// Where the run stands.
struct Tally {
    files: usize,
    ended: usize,
    /// Files that cost time, which the time left is reckoned from.
    worked: usize,
    open: Vec<String>,
    stage: String,
    total: usize,
    done: usize,
    run_start: Instant,
    stage_start: Instant,
}

impl Tally {
    fn new() -> Tally {
        let now = Instant::now();
        Tally {
            files: 0,
            ended: 0,
            worked: 0,
            open: Vec::new(),
            stage: String::new(),
            total: 0,
            done: 0,
            run_start: now,
            stage_start: now,
        }
    }

    fn count(&mut self, event: &Event<'_>) {
        match event {
            Event::Run { files } => *self = Tally { files: *files, ..Tally::new() },
            Event::File { name } => self.open.push((*name).to_owned()),
            Event::Stage { stage, total } => {
                (self.stage, self.total, self.done) = ((*stage).to_owned(), *total, 0);
                self.stage_start = Instant::now();
            }
            Event::Step => self.done += 1,
            Event::End { name, end } => {
                self.open.retain(|open| open != name);
                self.ended += 1;
                self.worked += usize::from(matches!(end, FileEnd::Written { .. }));
            }
            Event::Note { .. } => {}
        }
    }

    /// The files being worked on, in a few printable words.
    fn subject(&self) -> Cow<'_, str> {
        match self.open.as_slice() {
            [] => Cow::Borrowed(""),
            [one] => printable(one),
            [first, more @ ..] => Cow::Owned(format!("{} and {} more", printable(first), more.len())),
        }
    }

    fn stage_left(&self) -> Option<Duration> {
        left(self.stage_start.elapsed(), self.done, self.total.saturating_sub(self.done))
    }

    fn run_left(&self) -> Option<Duration> {
        left(self.run_start.elapsed(), self.worked, self.files.saturating_sub(self.ended))
    }
}

/// The time that `rest` more will take if each takes as long as the `done` so far.
fn left(elapsed: Duration, done: usize, rest: usize) -> Option<Duration> {
    let seconds = (done > 0).then(|| elapsed.as_secs_f64() / done as f64 * rest as f64)?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// A duration as one says it: two figures are enough for an estimate.
fn spoken(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    match seconds {
        0..100 => format!("{seconds} s"),
        100..6000 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Text that cannot move the cursor or break a line, whatever a file is called.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(
        text.chars()
            .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
            .collect(),
    )
}

fn end_line(name: &str, end: &FileEnd<'_>) -> String {
    let shown = printable(name);
    match end {
        FileEnd::Written { output } => format!("{shown} -> {}", printable(output)),
        FileEnd::Skipped { why } => format!("{shown}: skipped, {}", printable(why)),
        FileEnd::Failed { error } => failure(name, &error.to_string()),
    }
}

fn failure(name: &str, error: &str) -> String {
    // Errors usually name the file themselves.
    let place = if error.contains(name) { String::new() } else { format!("{}: ", printable(name)) };
    format!("failed: {place}{}", printable(error))
}

/// Lets the first and the last of many events through, and one now and then between.
struct Pace {
    pause: Duration,
    last: Option<Instant>,
}

impl Pace {
    fn new(pause: Duration) -> Pace {
        Pace { pause, last: None }
    }

    fn is_due(&mut self, certain: bool) -> bool {
        let due = certain || self.last.is_none_or(|last| last.elapsed() >= self.pause);
        if due {
            self.last = Some(Instant::now());
        }
        due
    }
}

/// Writes a whole line at once. A reader that has gone away must not stop the run.
fn put(out: &mut dyn Write, mut line: String) {
    line.push('\n');
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

struct Quiet {
    out: Box<dyn Write + Send>,
}

impl View for Quiet {
    fn show(&mut self, event: &Event<'_>, _tally: &Tally) {
        if let Event::End { name, end: FileEnd::Failed { error } } = event {
            put(&mut self.out, failure(name, &error.to_string()));
        }
    }
}

struct Lines {
    out: Box<dyn Write + Send>,
    pace: Pace,
}

impl View for Lines {
    fn show(&mut self, event: &Event<'_>, tally: &Tally) {
        let line = match event {
            Event::Run { .. } | Event::File { .. } | Event::Stage { .. } => return,
            Event::Step if !self.pace.is_due(false) => return,
            Event::Step => {
                let subject = tally.subject();
                let colon = if subject.is_empty() { "" } else { ": " };
                let time = match tally.stage_left() {
                    Some(time) if tally.done < tally.total => format!(", {} left", spoken(time)),
                    _ => String::new(),
                };
                format!("{subject}{colon}{} {}/{}{time}", tally.stage, tally.done, tally.total)
            }
            Event::End { name, end } => {
                let time = match tally.run_left() {
                    Some(time) if tally.ended < tally.files => format!(" ({} left)", spoken(time)),
                    _ => String::new(),
                };
                format!("[{}/{}] {}{time}", tally.ended, tally.files, end_line(name, end))
            }
            Event::Note { text } => format!("note: {}", printable(text)),
        };
        put(&mut self.out, line);
    }
}

struct Json {
    out: Box<dyn Write + Send>,
    pace: Pace,
}

impl View for Json {
    fn show(&mut self, event: &Event<'_>, tally: &Tally) {
        let seconds = |time: Option<Duration>| time.map(|t| (t.as_secs_f64() * 10.0).round() / 10.0);
        let object: Value = match event {
            Event::Run { files } => json!({"event": "run", "files": files}),
            Event::File { name } => json!({"event": "file", "file": name}),
            Event::Stage { stage, total } => json!({"event": "stage", "stage": stage, "total": total}),
            Event::Step if !self.pace.is_due(tally.done == tally.total) => return,
            Event::Step => json!({
                "event": "step", "files": tally.open, "stage": tally.stage, "done": tally.done,
                "total": tally.total, "seconds_left": seconds(tally.stage_left()),
            }),
            Event::End { name, end } => {
                let (outcome, key, text) = match end {
                    FileEnd::Written { output } => ("written", "output", (*output).to_owned()),
                    FileEnd::Skipped { why } => ("skipped", "why", (*why).to_owned()),
                    FileEnd::Failed { error } => ("failed", "error", error.to_string()),
                };
                json!({
                    "event": "end", "file": name, "outcome": outcome, key: text, "done": tally.ended,
                    "total": tally.files, "seconds_left": seconds(tally.run_left()),
                })
            }
            Event::Note { text } => json!({"event": "note", "text": text}),
        };
        put(&mut self.out, object.to_string());
    }
}

/// One bar for the files, if there are several, and one for the steps of the stage.
struct Bars {
    all: MultiProgress,
    files: Option<ProgressBar>,
    steps: Option<ProgressBar>,
}

impl Bars {
    fn new(target: ProgressDrawTarget) -> Bars {
        Bars { all: MultiProgress::with_draw_target(target), files: None, steps: None }
    }

    fn bar(&self, total: usize) -> ProgressBar {
        let style = ProgressStyle::with_template("{wide_msg} {bar:24} {pos:>4}/{len} {eta:>4} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.all.add(ProgressBar::new(total as u64).with_style(style));
        // A step can take many seconds; the time left runs down meanwhile.
        bar.enable_steady_tick(Duration::from_millis(500));
        bar
    }

    fn remove(&self, bar: Option<ProgressBar>) {
        if let Some(bar) = bar {
            bar.finish_and_clear();
            self.all.remove(&bar);
        }
    }

    fn line(&self, text: &str) {
        // Failing to draw on a terminal that is gone must not stop the run.
        let _ = self.all.println(text);
    }
}

impl View for Bars {
    fn show(&mut self, event: &Event<'_>, tally: &Tally) {
        match event {
            Event::Run { files } => {
                let (old_files, old_steps) = (self.files.take(), self.steps.take());
                self.remove(old_files);
                self.remove(old_steps);
                self.files = (*files > 1).then(|| self.bar(*files).with_message("files"));
            }
            Event::File { .. } => {}
            Event::Stage { stage, total } => {
                let old = self.steps.take();
                self.remove(old);
                let subject = tally.subject();
                let space = if subject.is_empty() { "" } else { " " };
                self.steps = Some(self.bar(*total).with_message(format!("{subject}{space}{stage}")));
            }
            Event::Step => {
                if let Some(bar) = &self.steps {
                    bar.set_position(tally.done as u64);
                }
            }
            Event::End { name, end } => {
                self.line(&end_line(name, end));
                if let Some(bar) = &self.files {
                    bar.set_position(tally.ended as u64);
                }
                if tally.open.is_empty() {
                    let old = self.steps.take();
                    self.remove(old);
                }
            }
            Event::Note { text } => self.line(&format!("note: {}", printable(text))),
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        let (files, steps) = (self.files.take(), self.steps.take());
        self.remove(steps);
        self.remove(files);
    }
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
