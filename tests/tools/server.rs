//! A small HTTP server for tests, which serves files well or badly.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What a server does with a request for a file.
#[derive(Clone, Debug)]
pub enum Conduct {
    /// Whole files and ranges.
    Proper,
    /// The connection ends after so many bytes of every answer.
    BreaksAfter(usize),
    /// Nothing comes after so many bytes, the first time.
    StallsOnceAfter(usize),
    /// A pause between every two small pieces.
    Slow(Duration),
    /// Ranges are not understood: the whole file is sent.
    IgnoresRanges,
    /// What comes is a web page.
    Page,
    /// The length that is announced is another.
    Announces(u64),
    /// An answer without contents.
    Status(u16),
    /// First so many answers of this status.
    StatusFirst(usize, u16),
    /// The file is at another address.
    MovedTo(String),
}

#[derive(Clone, Debug)]
pub struct File {
    pub bytes: Vec<u8>,
    pub etag: &'static str,
    pub conduct: Conduct,
}

#[derive(Default)]
struct State {
    files: HashMap<String, File>,
    /// path and Range of every request
    asked: Vec<(String, Option<String>)>,
}

/// Serves until the test ends.
pub struct Server {
    pub url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                // A client that goes away in the middle is a part of the tests.
                thread::spawn(move || answer(stream, &state).ok());
            }
        });
        Server { url, state }
    }

    pub fn put(&self, path: &str, bytes: &[u8], etag: &'static str, conduct: Conduct) {
        let file = File { bytes: bytes.to_vec(), etag, conduct };
        self.state.lock().expect("state").files.insert(path.to_owned(), file);
    }

    /// The ranges that `path` was asked for, in order.
    pub fn ranges(&self, path: &str) -> Vec<Option<String>> {
        let state = self.state.lock().expect("state");
        state.asked.iter().filter(|(asked, _)| asked == path).map(|(_, range)| range.clone()).collect()
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
    let range = headers.get("range").cloned();
    let file = {
        let mut state = state.lock().expect("state");
        if method == "GET" {
            state.asked.push((path.clone(), range.clone()));
        }
        let file = state.files.get(&path).cloned();
        // What happens once happens to this request only.
        if let Some(stored) = state.files.get_mut(&path).filter(|_| method == "GET") {
            match &mut stored.conduct {
                Conduct::StatusFirst(left, _) if *left > 1 => *left -= 1,
                Conduct::StatusFirst(..) | Conduct::StallsOnceAfter(_) => stored.conduct = Conduct::Proper,
                _ => {}
            }
        }
        file
    };
    let plain = |status: u16, more: &str| {
        format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n{more}\r\n")
    };
    let Some(File { bytes, etag, conduct }) = file else {
        return stream.write_all(plain(404, "").as_bytes());
    };
    match &conduct {
        Conduct::Status(status) | Conduct::StatusFirst(_, status) => {
            return stream.write_all(plain(*status, "").as_bytes());
        }
        Conduct::MovedTo(url) => {
            return stream.write_all(plain(302, &format!("Location: {url}\r\n")).as_bytes());
        }
        _ => {}
    }
    let first = range.filter(|_| !matches!(conduct, Conduct::IgnoresRanges)).and_then(|range| {
        let same = headers.get("if-range").is_none_or(|tag| tag == etag);
        range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok().filter(|_| same)
    });
    if first.is_some_and(|first| first >= bytes.len()) {
        let range = format!("Content-Range: bytes */{}\r\n", bytes.len());
        return stream.write_all(plain(416, &range).as_bytes());
    }
    let body = &bytes[first.unwrap_or(0)..];
    let announced = match conduct {
        Conduct::Announces(length) => length,
        _ => body.len() as u64,
    };
    let range = first.map_or_else(String::new, |first| {
        format!("Content-Range: bytes {first}-{}/{}\r\n", bytes.len() - 1, bytes.len())
    });
    let status = if first.is_some() { 206 } else { 200 };
    let kind = if matches!(conduct, Conduct::Page) { "text/html" } else { "application/octet-stream" };
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\nContent-Length: {announced}\r\nETag: {etag}\r\nContent-Type: {kind}\r\nConnection: close\r\n{range}\r\n"
    )?;
    if method == "HEAD" {
        return Ok(());
    }
    match conduct {
        Conduct::BreaksAfter(count) => stream.write_all(&body[..count.min(body.len())]),
        Conduct::StallsOnceAfter(count) => {
            stream.write_all(&body[..count.min(body.len())])?;
            stream.flush()?;
            thread::sleep(Duration::from_secs(20));
            Ok(())
        }
        Conduct::Slow(pause) => body.chunks(body.len().div_ceil(8)).try_for_each(|piece| {
            stream.write_all(piece)?;
            stream.flush()?;
            thread::sleep(pause);
            Ok(())
        }),
        _ => stream.write_all(body),
    }
}
