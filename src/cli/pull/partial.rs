//! A file in the making: `.NAME.part`, and beside it what was told of the whole, so that a later run can go on.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Kind, Result};

/// What a server said of the file that a part belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub url: String,
    /// names these bytes: a server that has others gives another
    pub etag: Option<String>,
    /// bytes of the whole
    pub total: Option<u64>,
}

/// The part, open for writing at its end, and the running sum of its bytes.
pub struct Partial {
    target: PathBuf,
    part: PathBuf,
    note: PathBuf,
    file: File,
    origin: Origin,
    length: u64,
    sum: Sha256,
}

impl Partial {
    /// Opens the part of `target` that an earlier run has left, or an empty one. What is there is read for its sum;
    /// `check` is asked between blocks.
    ///
    /// # Errors
    /// The folder cannot be written to, another run has the part open, or `check` stops.
    pub fn open(target: &Path, check: impl Fn() -> Result<()>) -> Result<Self> {
        let beside = |ending: &str| {
            let name = target.file_name().unwrap_or_default().to_string_lossy();
            target.with_file_name(format!(".{name}.{ending}"))
        };
        let (part, note) = (beside("part"), beside("part.json"));
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&part);
        let file = file.map_err(|e| Error::io("write", &part, &e))?;
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::new(Kind::Io, "another run is fetching this file")
                .at(target.display().to_string())
                .fix("wait for it to end"));
        }
        let origin = fs::read(&note).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut partial = Partial {
            target: target.to_owned(),
            part,
            note,
            file,
            origin: origin.unwrap_or_default(),
            length: 0,
            sum: Sha256::new(),
        };
        let mut block = vec![0; 1 << 20];
        loop {
            check()?;
            let read = partial.file.read(&mut block).map_err(|e| Error::io("read", &partial.part, &e))?;
            if read == 0 {
                return Ok(partial);
            }
            partial.sum.update(&block[..read]);
            partial.length += read as u64;
        }
    }

    /// Bytes that are there.
    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Empties the part.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn restart(&mut self) -> Result<()> {
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|e| Error::io("write", &self.part, &e))?;
        (self.length, self.sum) = (0, Sha256::new());
        Ok(())
    }

    /// Notes what the following bytes are from.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn set_origin(&mut self, origin: Origin) -> Result<()> {
        if self.origin != origin {
            let text = serde_json::to_vec(&origin).map_err(|e| Error::internal(e.to_string()))?;
            fs::write(&self.note, text).map_err(|e| Error::io("write", &self.note, &e))?;
            self.origin = origin;
        }
        Ok(())
    }

    /// # Errors
    /// The disk is full or refuses.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| {
            Error::io("write", &self.part, &e)
                .fix("free some space and run the command again: it goes on from here")
        })?;
        self.sum.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// SHA-256 of the bytes so far, in hexadecimal.
    pub fn sum(&self) -> String {
        hexadecimal(&self.sum.clone().finalize())
    }

    /// Gives the part its name.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io("write", &self.part, &e))?;
        fs::rename(&self.part, &self.target).map_err(|e| Error::io("write", &self.target, &e))?;
        let _ = fs::remove_file(&self.note); // the whole is there: a note left behind says nothing wrong
        Ok(())
    }

    /// Removes the part.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn discard(self) -> Result<()> {
        let _ = fs::remove_file(&self.note);
        fs::remove_file(&self.part).map_err(|e| Error::io("remove", &self.part, &e))
    }
}

/// SHA-256 of a file in hexadecimal; `check` is asked between blocks.
///
/// # Errors
/// The file cannot be read, or `check` stops.
pub fn sum_of(path: &Path, check: impl Fn() -> Result<()>) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io("read", path, &e))?;
    let (mut sum, mut block) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        check()?;
        match file.read(&mut block).map_err(|e| Error::io("read", path, &e))? {
            0 => return Ok(hexadecimal(&sum.finalize())),
            read => sum.update(&block[..read]),
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
