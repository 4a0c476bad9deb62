use super::*;
use crate::error::{Error, Kind};
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A sink whose reader is gone.
struct Broken;

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Err(std::io::ErrorKind::BrokenPipe.into())
    }
}

/// A run with every kind of event: a batch of two, a file that fails, one that is skipped.
fn run(progress: &dyn Progress) {
    progress.begin_run(4);
    progress.note("this run needs about 2 GB");
    progress.begin_file("a.png");
    progress.begin_file("b\x1b[2J\r\n.png");
    progress.steps("denoising", 3);
    for _ in 0..3 {
        progress.step();
    }
    progress.end_file("a.png", FileEnd::Written { output: "out/a.png" });
    progress.end_file("b\x1b[2J\r\n.png", FileEnd::Written { output: "out/b\r.png" });
    progress.begin_file("c.png");
    let error = Error::io("read", Path::new("in/c.png"), &std::io::ErrorKind::NotFound.into());
    progress.end_file("c.png", FileEnd::Failed { error: &error });
    progress.end_file("d.png", FileEnd::Skipped { why: "out/d.png exists" });
}

fn shown(view: impl FnOnce(Box<Sink>) -> Box<dyn View>) -> Vec<String> {
    let sink = Sink::default();
    run(&Reporter::with_view(view(Box::new(sink.clone())), Interrupt::new()));
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    assert!(text.ends_with('\n'));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn lines_are_plain_and_paced() {
    let lines = shown(|out| Box::new(Lines { out, pace: Pace::new(Duration::from_secs(3600)) }));
    assert_eq!(lines.len(), 6, "{lines:#?}");
    assert_eq!(lines[0], "note: this run needs about 2 GB");
    assert!(lines[1].starts_with("a.png and 1 more: denoising 1/3, "), "{}", lines[1]);
    assert!(lines[1].ends_with(" left"), "{}", lines[1]);
    assert!(lines[2].starts_with("[1/4] a.png -> out/a.png ("), "{}", lines[2]);
    assert!(lines[3].starts_with("[2/4] b\\u{1b}[2J\\r\\n.png -> out/b\\r.png ("), "{}", lines[3]);
    assert!(lines[4].starts_with("[3/4] failed: in/c.png: cannot read: "), "{}", lines[4]);
    assert_eq!(lines[5], "[4/4] d.png: skipped, out/d.png exists");

    let all = shown(|out| Box::new(Lines { out, pace: Pace::new(Duration::ZERO) }));
    assert_eq!(all.len(), 8, "every step is told without a pause: {all:#?}");
    assert_eq!(all[3], "a.png and 1 more: denoising 3/3");
}

#[test]
fn quiet_tells_failures_only() {
    let lines = shown(|out| Box::new(Quiet { out }));
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with("failed: in/c.png: cannot read: "), "{}", lines[0]);
}

#[test]
fn json_is_one_object_a_line() {
    let lines = shown(|out| Box::new(Json { out, pace: Pace::new(Duration::from_secs(3600)) }));
    let events: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|e| e["event"].as_str().unwrap()).collect();
    let expected =
        ["run", "note", "file", "file", "stage", "step", "step", "end", "end", "file", "end", "end"];
    assert_eq!(kinds, expected, "the first and the last of three steps are told");
    assert_eq!(events[0]["files"], 4);
    assert_eq!((&events[6]["done"], &events[6]["total"]), (&json!(3), &json!(3)));
    assert_eq!(events[6]["seconds_left"], 0.0);
    assert_eq!(events[7]["outcome"], "written");
    assert_eq!(events[7]["output"], "out/a.png");
    assert_eq!(events[8]["file"], "b\x1b[2J\r\n.png", "names are passed on as they are");
    assert_eq!(events[8]["output"], "out/b\r.png");
    assert_eq!(events[10]["outcome"], "failed");
    assert!(events[10]["error"].as_str().unwrap().starts_with("in/c.png: cannot read: "));
    assert_eq!(events[11]["why"], "out/d.png exists");
}

#[test]
fn a_reader_that_is_gone_does_not_stop_the_run() {
    let views: [Box<dyn View>; 3] = [
        Box::new(Lines { out: Box::new(Broken), pace: Pace::new(Duration::ZERO) }),
        Box::new(Json { out: Box::new(Broken), pace: Pace::new(Duration::ZERO) }),
        Box::new(Quiet { out: Box::new(Broken) }),
    ];
    for view in views {
        run(&Reporter::with_view(view, Interrupt::new()));
    }
}

#[test]
fn bars_follow_the_tally() {
    let mut bars = Bars::new(ProgressDrawTarget::hidden());
    let mut tally = Tally::new();
    let mut tell = |bars: &mut Bars, event: Event<'_>| {
        tally.count(&event);
        bars.show(&event, &tally);
    };
    tell(&mut bars, Event::Run { files: 2 });
    tell(&mut bars, Event::File { name: "a.png" });
    tell(&mut bars, Event::Stage { stage: "denoising", total: 20 });
    for _ in 0..7 {
        tell(&mut bars, Event::Step);
    }
    let steps = bars.steps.clone().unwrap();
    assert_eq!((steps.position(), steps.length()), (7, Some(20)));
    assert_eq!(steps.message(), "a.png denoising");
    tell(&mut bars, Event::Stage { stage: "decoding", total: 4 });
    assert!(steps.is_finished());
    assert_eq!(bars.steps.as_ref().unwrap().length(), Some(4));
    tell(&mut bars, Event::End { name: "a.png", end: FileEnd::Written { output: "b.png" } });
    assert_eq!(bars.files.as_ref().unwrap().position(), 1);
    assert!(bars.steps.is_none());
    // One file needs no bar of files.
    tell(&mut bars, Event::Run { files: 1 });
    assert!(bars.files.is_none());
}

#[test]
fn the_reporter_passes_the_stop_on() {
    let interrupt = Interrupt::new();
    let reporter = Reporter::new(Mode::Quiet, interrupt.clone());
    reporter.check_interrupt().unwrap();
    interrupt.request();
    assert_eq!(reporter.check_interrupt().unwrap_err().kind(), Kind::Interrupted);
}

#[test]
fn modes_follow_the_flags() {
    assert_eq!(Mode::choose(true, true), Mode::Json);
    assert_eq!(Mode::choose(false, true), Mode::Json);
    assert_eq!(Mode::choose(true, false), Mode::Quiet);
    let free = if std::io::stderr().is_terminal() { Mode::Bars } else { Mode::Lines };
    assert_eq!(Mode::choose(false, false), free);
}

#[test]
fn times_are_spoken_in_two_figures() {
    for (seconds, expected) in [
        (0.0, "0 s"),
        (0.2, "1 s"),
        (99.0, "99 s"),
        (100.0, "2 min"),
        (3600.0, "60 min"),
        (7500.0, "2 h 05 min"),
    ] {
        assert_eq!(spoken(Duration::from_secs_f64(seconds)), expected);
    }
    assert_eq!(left(Duration::from_secs(10), 0, 5), None);
    assert_eq!(left(Duration::from_secs(10), 4, 2), Some(Duration::from_secs(5)));
}
