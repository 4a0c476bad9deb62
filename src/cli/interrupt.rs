//! Ctrl-C: the first asks the run to stop at the next step, the second ends the program at once.

use crate::error::{Error, Kind, Result};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A stop request that all clones share.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    requested: Arc<AtomicBool>,
}

/// The process has one handler; installing again gives the same request.
static INSTALLED: Mutex<Option<Interrupt>> = Mutex::new(None);

impl Interrupt {
    /// A request that no signal makes, only [`Interrupt::request`].
    pub fn new() -> Interrupt {
        Interrupt::default()
    }

    /// Listens to Ctrl-C and, where they exist, to the signals that ask a program to end.
    ///
    /// # Errors
    /// An internal error when the system refuses the handler, or other code has installed one.
    pub fn install() -> Result<Interrupt> {
        let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(interrupt) = &*installed {
            return Ok(interrupt.clone());
        }
        let interrupt = Interrupt::new();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || {
            if handler.requested.swap(true, Ordering::SeqCst) {
                std::process::exit(Kind::Interrupted.exit_code().into());
            }
            let mut stderr = std::io::stderr();
            if stderr.is_terminal() {
                // Nobody is there to hear of a terminal that is gone.
                let _ = writeln!(stderr, "\nstopping after this step; press Ctrl-C again to quit at once");
            }
        })
        .map_err(|e| Error::internal(format!("cannot listen to Ctrl-C: {e}")))?;
        *installed = Some(interrupt.clone());
        Ok(interrupt)
    }

    /// Asks the run to stop.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
    }

    /// # Errors
    /// [`Error::interrupted`] once a stop was asked for.
    pub fn check(&self) -> Result<()> {
        if self.requested.load(Ordering::SeqCst) { Err(Error::interrupted()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_the_request() {
        let interrupt = Interrupt::new();
        let clone = interrupt.clone();
        clone.check().unwrap();
        interrupt.request();
        assert_eq!(clone.check().unwrap_err().kind(), Kind::Interrupted);
    }

    /// The signals' real effect, on a child process: this test program run again with one test selected.
    #[cfg(unix)]
    mod signals {
        use super::*;
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};
        use std::time::{Duration, Instant};

        const CHILD: &str = "TASR_TEST_INTERRUPT_CHILD";

        /// Does nothing unless started by the test below.
        #[test]
        fn child() {
            if std::env::var_os(CHILD).is_none() {
                return;
            }
            let interrupt = Interrupt::install().unwrap();
            let again = Interrupt::install().unwrap();
            println!("\nready");
            let started = Instant::now();
            let mut told = false;
            // Ends by the second signal; the limit keeps a failing test from leaving a process behind.
            while started.elapsed() < Duration::from_secs(60) {
                if !told && interrupt.check().is_err() && again.check().is_err() {
                    println!("\nasked to stop");
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }

        #[test]
        fn the_first_asks_and_the_second_kills() {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", "cli::interrupt::tests::signals::child"])
                .env(CHILD, "1")
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
            for expected in ["ready", "asked to stop"] {
                assert!(lines.any(|line| line == expected), "child ended without saying '{expected}'");
                let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
                assert!(sent.success());
            }
            assert_eq!(child.wait().unwrap().code(), Some(130));
        }
    }
}
