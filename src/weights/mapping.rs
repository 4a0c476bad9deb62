//! A file mapped into memory, or carried by the program, read-only, shared by all tensors that lie in it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// A mapped file. Pages are read by the system when they are first touched.
pub(crate) struct FileMap {
    path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    Mapped(Mmap),
    /// a part of the program, whose pages are the system's affair
    Carried(&'static [u8]),
}

impl FileMap {
    /// Maps `path`.
    ///
    /// # Errors
    /// The file cannot be opened, is a folder, or is empty.
    pub fn open(path: &Path) -> Result<Arc<FileMap>> {
        let file = File::open(path).map_err(|e| Error::io("open", path, &e))?;
        let meta = file.metadata().map_err(|e| Error::io("read", path, &e))?;
        let place = path.display().to_string();
        if meta.is_dir() {
            return Err(Error::weights("this is a folder, not a checkpoint file").at(place));
        }
        if meta.len() == 0 {
            return Err(Error::weights("the file is empty").at(place).fix("download it again"));
        }
        // SAFETY: the map is read-only and private to this process. As with every mapped file, its bytes
        // change if another process writes the file meanwhile; our own writer never does (it renames a
        // finished file into place, which leaves an existing map untouched).
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io("map", path, &e))?;
        Ok(Arc::new(FileMap { path: path.to_owned(), bytes: Bytes::Mapped(map) }))
    }

    /// `bytes` as a file that messages call `name`.
    pub fn carried(name: &str, bytes: &'static [u8]) -> Arc<FileMap> {
        Arc::new(FileMap { path: PathBuf::from(name), bytes: Bytes::Carried(bytes) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Carried(bytes) => bytes,
        }
    }

    /// Gives the pages of `start..start + len` back to the system; a later read loads them again.
    pub fn release(&self, start: usize, len: usize) {
        let Bytes::Mapped(map) = &self.bytes else { return };
        if len == 0 || start.checked_add(len).is_none_or(|end| end > map.len()) {
            return;
        }
        #[cfg(unix)]
        // SAFETY: the map is backed by a file and never written through, so dropping its pages loses
        // nothing: borrowed slices read the same bytes again from the file. The range was checked above.
        // A refusal only means that the pages stay, which is harmless.
        unsafe {
            let _ = map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, len);
        }
    }
}
