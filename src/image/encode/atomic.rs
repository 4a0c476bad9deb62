//! A file that is there whole or not at all.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes `bytes` under a temporary name beside `path`, then renames. On failure the temporary file is removed.
///
/// # Errors
/// The path is a folder's, or the disk refuses.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let failed = |e: std::io::Error| {
        let error = Error::io("write", path, &e);
        match e.kind() {
            ErrorKind::NotFound => error.fix("create its folder first"),
            ErrorKind::PermissionDenied => error.fix("choose a folder that you may write to"),
            ErrorKind::StorageFull => error.fix("free some space"),
            _ => error,
        }
    };
    let Some(name) = path.file_name() else {
        return Err(Error::usage("this is no file name to write to").at(path.display().to_string()));
    };
    if path.is_dir() {
        return Err(Error::usage("this is a folder, not a file to write").at(path.display().to_string()));
    }
    // Hidden, so that a leftover of a killed run is not taken for a picture. The count keeps threads apart. The name
    // is shortened, for file systems limit it to 255 bytes.
    let mut temporary = OsString::from(".");
    temporary.push(name.to_string_lossy().chars().take(40).collect::<String>());
    temporary.push(format!(".{}-{}.part", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    let temporary = path.with_file_name(temporary);
    let fill = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        file.write_all(bytes)?;
        // Without it a crash of the machine could leave an empty file under the final name.
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, path)
    };
    fill().map_err(|e| {
        // It may never have been created; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
        failed(e)
    })
}
