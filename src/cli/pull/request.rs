//! One request, answered in pieces by a thread of its own: a server that stalls is noticed, and Ctrl-C works while
//! nothing comes.

use std::io::Read;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::pace::{Least, Pace};
use crate::error::Result;
use crate::weights::space::in_units;

/// How long one waits before looking for an interrupt.
const GLANCE: Duration = Duration::from_millis(100);
/// Bytes of a piece.
const PIECE: usize = 1 << 18;

/// The beginning of an answer.
#[derive(Clone, Debug)]
pub struct Head {
    pub status: u16,
    pub length: Option<u64>,
    pub etag: Option<String>,
    /// a page to be read, which no weights are
    pub is_page: bool,
    /// of `Content-Range: bytes FIRST-LAST/TOTAL`
    pub first: Option<u64>,
    pub total: Option<u64>,
}

/// A piece of an answer.
#[derive(Debug)]
pub enum Piece {
    Head(Head),
    Bytes(Vec<u8>),
    End,
}

/// Why a transfer broke.
#[derive(Clone, Debug)]
pub struct Broken {
    pub why: String,
    /// It goes on, but brings too little to be waited for.
    pub slow: bool,
}

impl<S: Into<String>> From<S> for Broken {
    fn from(why: S) -> Self {
        Broken { why: why.into(), slow: false }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub url: String,
    /// the first byte, and the ETag that the rest must have
    pub from: Option<(u64, Option<String>)>,
    /// only what would be answered
    pub head_only: bool,
}

/// An answer on its way.
pub struct Answer {
    pieces: Receiver<std::result::Result<Piece, Broken>>,
    least: Least,
    pace: Pace,
}

impl Answer {
    /// Sends the request; a silence longer than the span of `least`, or a span that brings less, breaks it.
    pub fn to(wanted: Wanted, least: Least) -> Self {
        let patience = least.span;
        let (sender, pieces) = sync_channel(8);
        // The thread ends with its connection, or with the program.
        thread::spawn(move || {
            if let Err(broken) = ask(&wanted, patience, &sender) {
                let _ = sender.send(Err(broken)); // nobody listens any more
            }
        });
        Answer { pieces, least, pace: Pace::new(least, Instant::now()) }
    }

    /// The next piece, or why there is none.
    ///
    /// # Errors
    /// `check` stops.
    pub fn next(&mut self, check: impl Fn() -> Result<()>) -> Result<std::result::Result<Piece, Broken>> {
        let start = Instant::now();
        loop {
            check()?;
            match self.pieces.recv_timeout(GLANCE) {
                // One that was slow and is over is no reason to complain.
                Ok(Ok(Piece::Bytes(_))) if self.pace.too_slow() => {
                    let least = in_units(self.least.bytes_per_second as u64);
                    let why = format!("it brings less than {least} a second");
                    return Ok(Err(Broken { why, slow: true }));
                }
                Ok(piece) => {
                    if let Ok(Piece::Bytes(bytes)) = &piece {
                        self.pace.count(bytes.len(), Instant::now());
                    }
                    return Ok(piece);
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(Err("the connection was lost".into())),
                Err(RecvTimeoutError::Timeout) if start.elapsed() > self.least.span => {
                    return Ok(Err(format!("nothing came for {} s", self.least.span.as_secs_f32()).into()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

type Sender = SyncSender<std::result::Result<Piece, Broken>>;

fn ask(wanted: &Wanted, patience: Duration, sender: &Sender) -> std::result::Result<(), Broken> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(patience))
        // What was asked for in private is not fetched in public, wherever a server sends one.
        .https_only(wanted.url.starts_with("https://"))
        .user_agent(concat!("tasr/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let mut request = if wanted.head_only { agent.head(&wanted.url) } else { agent.get(&wanted.url) };
    // Sizes and ranges are those of the stored bytes.
    request = request.header("Accept-Encoding", "identity");
    if let Some((first, etag)) = &wanted.from {
        request = request.header("Range", format!("bytes={first}-"));
        if let Some(etag) = etag {
            request = request.header("If-Range", etag);
        }
    }
    let response = request.call().map_err(|e| e.to_string())?;
    let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
    let (first, total) = header("content-range").map_or((None, None), |text| range(&text));
    let head = Head {
        status: response.status().as_u16(),
        length: header("content-length").and_then(|text| text.trim().parse().ok()),
        // A weak one may name other bytes.
        etag: header("etag").filter(|tag| !tag.starts_with("W/")),
        is_page: header("content-type").is_some_and(|kind| kind.trim_start().starts_with("text/html")),
        first,
        total,
    };
    let wants_body = matches!(head.status, 200 | 206) && !wanted.head_only;
    if sender.send(Ok(Piece::Head(head))).is_err() || !wants_body {
        return Ok(());
    }
    let mut reader = response.into_body().into_reader();
    loop {
        let mut bytes = vec![0; PIECE];
        let read = reader.read(&mut bytes).map_err(|e| e.to_string())?;
        bytes.truncate(read);
        let piece = if read == 0 { Piece::End } else { Piece::Bytes(bytes) };
        if sender.send(Ok(piece)).is_err() || read == 0 {
            return Ok(());
        }
    }
}

/// (FIRST, TOTAL) of `bytes FIRST-LAST/TOTAL` or `bytes */TOTAL`.
fn range(text: &str) -> (Option<u64>, Option<u64>) {
    let Some((span, total)) = text.trim_start_matches("bytes").trim().split_once('/') else {
        return (None, None);
    };
    (span.split('-').next().and_then(|first| first.trim().parse().ok()), total.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(range("bytes 5-9/10"), (Some(5), Some(10)));
        assert_eq!(range("bytes */10"), (None, Some(10)));
        assert_eq!(range("bytes 5-9/*"), (Some(5), None));
        assert_eq!(range("apples"), (None, None));
    }
}
