//! `tasr pull` against a server that serves well, badly, or something else.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::program::{Folder, Run, tasr};
use crate::server::{Conduct, Server};

const NAME: &str = "tasr_v1.pth";
const PATH: &str = "/tasr_v1.pth";
const PART: &str = ".tasr_v1.pth.part";

/// Bytes that say where they are.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pull(server: &Server, folder: &Folder, more: &[&str]) -> Run {
    let base = ["pull", "tasr", "--mirror", &server.url, "--mirror-only", "-o", &folder.text("models")];
    tasr(&[&base[..], more].concat())
}

/// The contents of what came.
fn found(folder: &Folder) -> Vec<u8> {
    fs::read(folder.path("models").join(NAME)).expect("the file")
}

/// Names in the folder.
fn names(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.path("models")).expect("the folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    names.sort();
    names
}

fn failed(run: &Run, code: i32, parts: &[&str]) {
    let last = run.stderr.lines().last().unwrap_or_default();
    let told = last.starts_with("tasr: error: ") && parts.iter().all(|part| last.contains(part));
    assert!(run.code == code && told, "{parts:?}: {run}");
}

#[test]
fn a_file_comes_whole_and_is_not_fetched_again() {
    let (server, folder, data) = (Server::start(), Folder::new(), bytes(3_000_000));
    server.put(PATH, &data, "\"one\"", Conduct::Proper);
    let run = pull(&server, &folder, &[]);
    assert!(run.code == 0 && run.stderr.contains(&sum(&data)) && run.stderr.contains("not checked"), "{run}");
    assert_eq!((found(&folder), names(&folder)), (data, vec![NAME.to_owned()]));
    let again = pull(&server, &folder, &[]);
    assert!(again.code == 0 && again.stderr.contains("already there"), "{again}");
    assert_eq!(server.ranges(PATH), [None]);
}

#[test]
fn a_transfer_that_breaks_goes_on_where_it_stopped() {
    let (server, folder, data) = (Server::start(), Folder::new(), bytes(1_000_000));
    server.put(PATH, &data, "\"one\"", Conduct::BreaksAfter(400_000));
    let run = pull(&server, &folder, &["--retries", "1"]);
    assert!(run.code == 0, "{run}");
    assert_eq!(found(&folder), data);
    let ranges = server.ranges(PATH);
    assert_eq!(ranges[0], None);
    let first = |range: &Option<String>| -> Option<usize> {
        range.as_deref()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    };
    let starts: Vec<usize> = ranges[1..].iter().map(|range| first(range).expect("a range")).collect();
    assert!(!starts.is_empty() && starts.is_sorted() && starts.iter().all(|&at| at > 0), "{ranges:?}");
}

#[test]
fn another_run_goes_on_and_bytes_of_another_version_are_dropped() {
    let (server, folder, data) = (Server::start(), Folder::new(), bytes(900_000));
    server.put(PATH, &data, "\"one\"", Conduct::BreaksAfter(300_000));
    failed(
        &pull(&server, &folder, &["--retries", "0"]),
        7,
        &[NAME, "no source gave it", "run the command again"],
    );
    let part = fs::metadata(folder.path("models").join(PART)).expect("a part").len();
    assert!(part > 0 && !names(&folder).contains(&NAME.to_owned()));

    server.put(PATH, &data, "\"one\"", Conduct::Proper);
    assert_eq!(pull(&server, &folder, &[]).code, 0);
    assert_eq!(server.ranges(PATH).last(), Some(&Some(format!("bytes={part}-"))));
    assert_eq!((found(&folder), names(&folder)), (data, vec![NAME.to_owned()]));

    // The same, but meanwhile the server has other bytes, which another ETag tells.
    fs::remove_file(folder.path("models").join(NAME)).expect("removes");
    server.put(PATH, &bytes(900_000), "\"one\"", Conduct::BreaksAfter(300_000));
    assert_eq!(pull(&server, &folder, &["--retries", "0"]).code, 7);
    let other: Vec<u8> = bytes(900_001).into_iter().rev().collect();
    server.put(PATH, &other, "\"two\"", Conduct::Proper);
    assert_eq!(pull(&server, &folder, &[]).code, 0);
    assert_eq!(found(&folder), other);
}

#[test]
fn servers_without_ranges_and_those_that_are_busy_or_silent_at_first() {
    let data = bytes(700_000);
    let conducts = [
        Conduct::StatusFirst(2, 503),
        Conduct::StallsOnceAfter(200_000),
        Conduct::Slow(Duration::from_millis(60)),
    ];
    for conduct in conducts {
        let (server, folder) = (Server::start(), Folder::new());
        server.put(PATH, &data, "\"one\"", conduct.clone());
        let run = pull(&server, &folder, &["--timeout", "0.6", "--retries", "3"]);
        assert!(run.code == 0 && found(&folder) == data, "{conduct:?}: {run}");
    }
    // What an earlier run has left is of no use then.
    let (server, folder) = (Server::start(), Folder::new());
    server.put(PATH, &data, "\"one\"", Conduct::BreaksAfter(100_000));
    assert_eq!(pull(&server, &folder, &["--retries", "0"]).code, 7);
    server.put(PATH, &data, "\"one\"", Conduct::IgnoresRanges);
    assert_eq!(pull(&server, &folder, &[]).code, 0);
    assert_eq!(found(&folder), data);
}

#[test]
fn a_part_that_was_complete_needs_no_more_bytes() {
    let (server, folder, data) = (Server::start(), Folder::new(), bytes(50_000));
    server.put(PATH, &data, "\"one\"", Conduct::Proper);
    fs::create_dir(folder.path("models")).expect("makes");
    fs::write(folder.path("models").join(PART), &data).expect("writes");
    let note = format!(r#"{{"url":"{}{PATH}","etag":"\"one\"","total":50000}}"#, server.url);
    fs::write(folder.path("models").join(format!("{PART}.json")), note).expect("writes");
    let run = pull(&server, &folder, &[]);
    assert!(run.code == 0, "{run}");
    assert_eq!(server.ranges(PATH), [Some("bytes=50000-".to_owned())]);
    assert_eq!((found(&folder), names(&folder)), (data, vec![NAME.to_owned()]));
}

#[test]
fn two_runs_do_not_write_one_part() {
    let (server, folder) = (Server::start(), Folder::new());
    server.put(PATH, &bytes(1000), "\"one\"", Conduct::Proper);
    fs::create_dir(folder.path("models")).expect("makes");
    let part = fs::File::create(folder.path("models").join(PART)).expect("a part");
    part.lock().expect("locks");
    failed(&pull(&server, &folder, &[]), 7, &[NAME, "another run"]);
    part.unlock().expect("unlocks");
    assert_eq!(pull(&server, &folder, &[]).code, 0);
}

#[test]
fn sums_are_held() {
    let (server, folder, data) = (Server::start(), Folder::new(), bytes(200_000));
    let sums = |sum: &str| format!("{sum}  {NAME}\n");
    server.put("/SHA256SUMS", sums(&sum(&data)).as_bytes(), "\"s\"", Conduct::Proper);
    let mut damaged = data.clone();
    damaged[123_456] ^= 1;
    server.put(PATH, &damaged, "\"one\"", Conduct::Proper);
    let run = pull(&server, &folder, &[]);
    failed(&run, 7, &["SHA-256", &sum(&data), &sum(&damaged), "removed"]);
    assert_eq!(names(&folder), Vec::<String>::new());

    // A part of other bytes, of which nobody knows whose they are, does not spoil a good source.
    fs::write(folder.path("models").join(PART), bytes(1000).into_iter().rev().collect::<Vec<_>>())
        .expect("writes");
    server.put(PATH, &data, "\"one\"", Conduct::Proper);
    let run = pull(&server, &folder, &[]);
    assert!(run.code == 0 && run.stderr.contains("fetched again") && found(&folder) == data, "{run}");
    // A file that is there is held to it, too.
    fs::write(folder.path("models").join(NAME), &damaged).expect("writes");
    failed(&pull(&server, &folder, &[]), 4, &[NAME, "SHA-256", "remove it"]);
    // Sums that cannot be read are not the same as none.
    server.put("/SHA256SUMS", &[], "\"s\"", Conduct::Status(500));
    let run = pull(&server, &folder, &[]);
    assert!(run.code == 0 && run.stderr.contains("sums are not known"), "{run}");
}

#[test]
fn redirects_are_followed_and_what_is_missing_is_said() {
    let (server, folder, data) = (Server::start(), Folder::new(), bytes(100_000));
    server.put("/elsewhere", &data, "\"one\"", Conduct::Proper);
    server.put(PATH, &[], "\"one\"", Conduct::MovedTo(format!("{}/elsewhere", server.url)));
    assert_eq!(pull(&server, &folder, &[]).code, 0);
    assert_eq!(found(&folder), data);

    let folder = Folder::new();
    server.put(PATH, b"<html>", "\"one\"", Conduct::Page);
    failed(&pull(&server, &folder, &[]), 7, &[NAME, "a web page"]);
    for status in [403, 404, 410] {
        server.put(PATH, &[], "\"one\"", Conduct::Status(status));
        failed(&pull(&server, &folder, &[]), 7, &[NAME, &format!("status {status}"), "--mirror"]);
    }
    // Nothing listens at the port of a listener that is gone.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let url = format!("http://{gone}");
    let run = tasr(&[
        "pull",
        "tasr",
        "--mirror",
        &url,
        "--mirror-only",
        "--retries",
        "0",
        "-o",
        &folder.text("models"),
    ]);
    failed(&run, 7, &[NAME, &url]);
}

#[test]
fn a_file_that_does_not_come_keeps_no_other_from_coming() {
    let (server, folder, data) = (Server::start(), Folder::new(), bytes(50_000));
    server.put(PATH, &data, "\"one\"", Conduct::Proper);
    // Stable Diffusion comes first, and the mirror has none.
    let output = folder.text("models");
    let run = tasr(&["pull", "sd", "tasr", "--mirror", &server.url, "--mirror-only", "-o", &output]);
    failed(&run, 7, &["1 of 2 files", &output, "run the command again"]);
    assert!(run.stderr.contains("v2-1_512-ema-pruned.ckpt") && run.stderr.contains("status 404"), "{run}");
    assert_eq!(found(&folder), data);
}

#[test]
fn a_server_that_drips_is_left_for_the_next_mirror() {
    let (dripping, other, folder) = (Server::start(), Server::start(), Folder::new());
    let data = bytes(1_000_000);
    let sums = format!("{}  {NAME}\n", sum(&data));
    dripping.put("/SHA256SUMS", sums.as_bytes(), "\"s\"", Conduct::Proper);
    dripping.put(PATH, &data, "\"one\"", Conduct::Slow(Duration::from_millis(250)));
    other.put(PATH, &data, "\"other\"", Conduct::Proper);
    let output = folder.text("models");
    let fetch = |mirrors: &[&str], slowest: &str| {
        let rest = ["--mirror-only", "--timeout", "1", "--retries", "1", "--slowest", slowest, "-o", &output];
        tasr(&[&["pull", "tasr"], mirrors, &rest[..]].concat())
    };
    // No server of a test brings a terabyte a second.
    let alone = fetch(&["--mirror", &dripping.url], "900000000");
    failed(&alone, 7, &[NAME, &dripping.url, "less than 900.0 GB a second"]);
    let part = fs::metadata(folder.path("models").join(PART)).expect("a part").len();
    assert!(part > 0 && dripping.ranges(PATH).len() == 2, "it is asked once more: {alone}");

    let both = fetch(&["--mirror", &dripping.url, "--mirror", &other.url], "900000000");
    // The other one is as slow by this measure, but what is missing comes within a second.
    assert!(both.code == 0 && found(&folder) == data, "{both}");
    let first = other.ranges(PATH)[0].clone().expect("a range");
    assert_ne!(first, "bytes=0-", "what the slow one brought is kept, for the sum is known");

    // A list of sums that drips is not waited for, either.
    fs::remove_file(folder.path("models").join(NAME)).expect("removes");
    let slow = Conduct::Slow(Duration::from_millis(250));
    other.put("/SHA256SUMS", sums.as_bytes(), "\"s\"", slow);
    let unsummed = fetch(&["--mirror", &other.url], "900000000");
    assert!(unsummed.code == 0 && unsummed.stderr.contains("sums are not known"), "{unsummed}");

    fs::remove_file(folder.path("models").join(NAME)).expect("removes");
    let patient = fetch(&["--mirror", &dripping.url], "0");
    assert!(patient.code == 0 && found(&folder) == data, "{patient}");
}

#[test]
fn too_large_a_file_and_wrong_arguments_are_refused() {
    let (server, folder) = (Server::start(), Folder::new());
    server.put(PATH, &bytes(1000), "\"one\"", Conduct::Announces(1 << 60));
    failed(&pull(&server, &folder, &[]), 7, &["are missing, the disk has", "-o"]);
    let output = folder.text("models");
    failed(&tasr(&["pull", "-o", &output, "--mirror", "mirror.example"]), 2, &["--mirror", "https://"]);
    failed(&tasr(&["pull", "everything", "-o", &output]), 2, &["everything"]);
    failed(&tasr(&["pull", "-o", &output, "--mirror-only"]), 2, &["--mirror"]);
    failed(&tasr(&["pull", "-o", &output, "--timeout", "never"]), 2, &["--timeout"]);
    failed(&tasr(&["pull", "-o", &output, "--slowest", "much"]), 2, &["--slowest"]);
}

#[test]
fn a_dry_run_tells_and_leaves_nothing() {
    let (server, folder, data) = (Server::start(), Folder::new(), bytes(2_500_000));
    server.put(PATH, &data, "\"one\"", Conduct::Proper);
    server.put("/SHA256SUMS", format!("{}  {NAME}", sum(&data)).as_bytes(), "\"s\"", Conduct::Proper);
    let run = pull(&server, &folder, &["--dry-run"]);
    let says = |part: &str| run.stdout.contains(part);
    let told = [&format!("{}{PATH} (2 MB)", server.url), &sum(&data), " free", "licence"];
    assert!(run.code == 0 && told.iter().all(|part| says(part)), "{run}");
    assert!(!folder.path("models").exists() && server.ranges(PATH).is_empty());
    server.put(PATH, &data, "\"one\"", Conduct::Status(404));
    let run = pull(&server, &folder, &["--dry-run"]);
    assert!(run.code == 0 && run.stdout.contains("not reached: status 404"), "{run}");
}

#[cfg(unix)]
#[test]
fn interrupts_and_kills_leave_a_part_to_go_on_from() {
    for signal in ["-INT", "-KILL"] {
        let (server, folder, data) = (Server::start(), Folder::new(), bytes(400_000));
        server.put(PATH, &data, "\"one\"", Conduct::Slow(Duration::from_millis(400)));
        let mut child = Command::new(env!("CARGO_BIN_EXE_tasr"))
            .env("NO_PROXY", "127.0.0.1")
            .args(["pull", "tasr", "--mirror", &server.url, "--mirror-only", "-o", &folder.text("models")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let part = folder.path("models").join(PART);
        let limit = Instant::now() + Duration::from_secs(60);
        while fs::metadata(&part).map_or(0, |part| part.len()) == 0 {
            assert!(Instant::now() < limit, "nothing came");
            std::thread::sleep(Duration::from_millis(10));
        }
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        let code = child.wait().expect("ends").code();
        assert_eq!(code, if signal == "-INT" { Some(130) } else { None });
        assert!(!folder.path("models").join(NAME).exists());

        server.put(PATH, &data, "\"one\"", Conduct::Proper);
        assert_eq!(pull(&server, &folder, &[]).code, 0);
        let last = server.ranges(PATH).pop().flatten().expect("a range");
        assert!(last != "bytes=0-" && found(&folder) == data, "{last}");
    }
}
