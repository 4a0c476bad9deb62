//! Which of a GPU's kernels plans may choose.

use super::GpuInfo;
use crate::error::{Error, Result};

/// The code path that plans take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArchPath {
    /// Whatever is best for the GPU.
    #[default]
    Best,
    /// Only kernels that every GPU from sm_80 on can run.
    Sm80,
}

impl ArchPath {
    /// What TASR_ARCH_PATH names: `best` or `sm80`; the best when it is not set.
    ///
    /// # Errors
    /// It names something else.
    pub fn from_environment() -> Result<Self> {
        match std::env::var("TASR_ARCH_PATH").as_deref() {
            Err(std::env::VarError::NotPresent) => Ok(ArchPath::Best),
            Ok(name) => Self::named(name),
            Err(_) => Self::named("?"),
        }
    }

    fn named(name: &str) -> Result<Self> {
        match name {
            "" | "best" => Ok(ArchPath::Best),
            "sm80" => Ok(ArchPath::Sm80),
            _ => Err(Error::usage(format!("unknown path '{name}'"))
                .at("TASR_ARCH_PATH")
                .fix("give best or sm80")),
        }
    }
}

/// How near code for architecture `name` ("86", "90a") is to the GPU, `None` when it does not run there: the same
/// major version and no higher minor one, and for names with a letter exactly the same.
pub(super) fn fits(name: &str, info: &GpuInfo) -> Option<u32> {
    let digits = name.trim_end_matches(char::is_alphabetic);
    let number: u32 = digits.parse().ok()?;
    let own = info.capability.0 as u32 * 10 + info.capability.1 as u32;
    let special = digits.len() < name.len();
    let runs = number / 10 == own / 10 && number <= own && (!special || number == own);
    runs.then_some(number * 2 + u32::from(special))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(major: i32, minor: i32) -> GpuInfo {
        GpuInfo {
            ordinal: 0,
            device: String::new(),
            name: String::new(),
            capability: (major, minor),
            memory: 0,
            driver: (13, 0),
            multiprocessors: 1,
            shared_bytes: 0,
        }
    }

    #[test]
    fn a_cubin_runs_on_its_major_version_from_its_minor_version_on() {
        let runs = |name: &str, major, minor| fits(name, &gpu(major, minor)).is_some();
        assert!(runs("80", 8, 0) && runs("80", 8, 6) && runs("86", 8, 9) && runs("90a", 9, 0));
        assert!(!runs("86", 8, 0) && !runs("90a", 10, 0) && !runs("100", 12, 0) && !runs("80", 9, 0));
        assert!(fits("89", &gpu(8, 9)) > fits("86", &gpu(8, 9)));
        assert!(runs("100", 10, 3) && runs("120", 12, 1));
    }

    #[test]
    fn paths_have_names() {
        assert_eq!(ArchPath::named("sm80").unwrap(), ArchPath::Sm80);
        assert_eq!(ArchPath::named("best").unwrap(), ArchPath::Best);
        let error = ArchPath::named("sm90").unwrap_err().to_string();
        assert!(error.contains("TASR_ARCH_PATH: unknown path 'sm90'"), "{error}");
    }
}
