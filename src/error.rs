//! The one error type: a value up to `main`, printed as one clear sentence.
//!
//! Every message says what went wrong, where (file, tensor, flag) and what to do:
//!
//! ```
//! use tasr::error::Error;
//! let e = Error::weights("tensor has shape [4, 4], expected [8, 4]").at("sd.safetensors: out.2.weight").fix("check --sd");
//! assert_eq!(e.to_string(), "sd.safetensors: out.2.weight: tensor has shape [4, 4], expected [8, 4]; check --sd");
//! ```

use std::fmt;
use std::path::Path;

/// What every fallible function of the crate returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Who can mend the error; each kind has its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A flag or an argument is wrong: exit code 2.
    Usage,
    /// An input image, prompt list or config cannot be used: exit code 3.
    Input,
    /// A checkpoint is damaged, incomplete or of another family: exit code 4.
    Weights,
    /// The device is absent or refused the work: exit code 5.
    Device,
    /// Not enough memory, estimated or met: exit code 6.
    Memory,
    /// Reading or writing a file failed: exit code 7.
    Io,
    /// Stopped by Ctrl-C: exit code 130.
    Interrupted,
    /// A broken promise inside the engine, that is a bug: exit code 70.
    Internal,
}

impl Kind {
    /// The process exit code for this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Input => 3,
            Kind::Weights => 4,
            Kind::Device => 5,
            Kind::Memory => 6,
            Kind::Io => 7,
            Kind::Internal => 70,
            Kind::Interrupted => 130,
        }
    }
}

/// What happened, where, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    what: String,
    place: Option<String>,
    remedy: Option<String>,
}

impl Error {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Error { kind, what: what.into(), place: None, remedy: None }
    }
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }
    pub fn input(what: impl Into<String>) -> Self {
        Self::new(Kind::Input, what)
    }
    pub fn weights(what: impl Into<String>) -> Self {
        Self::new(Kind::Weights, what)
    }
    pub fn device(what: impl Into<String>) -> Self {
        Self::new(Kind::Device, what)
    }
    pub fn memory(what: impl Into<String>) -> Self {
        Self::new(Kind::Memory, what)
    }
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Kind::Internal, what)
    }
    pub fn interrupted() -> Self {
        Self::new(Kind::Interrupted, "stopped; finished files are kept")
    }
    /// An I/O failure while doing `action` ("read", "write", ...) on `path`.
    pub fn io(action: &str, path: &Path, source: &std::io::Error) -> Self {
        Self::new(Kind::Io, format!("cannot {action}: {source}")).at(path.display().to_string())
    }
    /// Says where: a file, a tensor, a flag. Called again further up, the outer place comes first.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        let outer = place.into();
        self.place = Some(match self.place.take() {
            Some(inner) => format!("{outer}: {inner}"),
            None => outer,
        });
        self
    }
    /// Says what to do.
    pub fn fix(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.what)?;
        match &self.remedy {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}
