//! Room on disks.

use std::path::Path;

use crate::error::{Error, Kind, Result};

/// Refuses to begin what the disk of `path`, a file to be made, cannot hold.
///
/// # Errors
/// Fewer than `bytes` bytes are free. A disk that does not tell is taken to have room: writing will tell.
pub fn require_space(path: &Path, bytes: u64) -> Result<()> {
    match free_space(path) {
        Some(free) if free < bytes => Err(Error::new(
            Kind::Io,
            format!("{} are needed, the disk has {} free", in_units(bytes), in_units(free)),
        )
        .at(path.display().to_string())
        .fix("free some space, write to another disk, or choose --dtype f16")),
        _ => Ok(()),
    }
}

/// Free bytes on the disk of `path`, a file to be made; folders that are to be made, too, are on their parent's.
pub fn free_space(path: &Path) -> Option<u64> {
    let folder = path.ancestors().skip(1).find(|folder| folder.as_os_str().is_empty() || folder.is_dir())?;
    fs4::available_space(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }).ok()
}

/// A size as people say it: 4.9 GB, 12 MB, 310 kB.
pub fn in_units(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{:.1} GB", bytes as f64 / 1e9),
        1_000_000.. => format!("{:.0} MB", bytes as f64 / 1e6),
        1000.. => format!("{:.0} kB", bytes as f64 / 1e3),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_any_disk_has_is_refused_with_both_sizes() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("sd.safetensors");
        require_space(&path, 1).expect("one byte");
        let error = require_space(&path, 1 << 62).expect_err("4 EB");
        assert_eq!(error.kind(), Kind::Io);
        let text = error.to_string();
        assert!(text.contains("sd.safetensors: 4611686018.4 GB are needed, the disk has"), "{text}");
    }

    #[test]
    fn sizes_are_short() {
        let spoken = [999, 1000, 12_400_000, 4_912_000_000].map(in_units);
        assert_eq!(spoken, ["999 bytes", "1 kB", "12 MB", "4.9 GB"]);
    }
}
