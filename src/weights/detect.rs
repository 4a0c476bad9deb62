//! What kind of file this is, told by its content: extensions of checkpoints are often wrong.

use crate::error::{Error, Result};

/// A container that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Container {
    Safetensors,
    /// A zip archive, as `torch.save` makes since PyTorch 1.6.
    Zip,
    /// The table of contents of a checkpoint split over several safetensors files.
    ShardIndex,
}

/// The first bytes of a pickle of PyTorch's magic number, that is of a file saved before 1.6.
const LEGACY_TORCH: &[u8] = &[0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Tells the container from the whole (mapped) file.
///
/// # Errors
/// One clear sentence for what people have on their disks instead of a checkpoint.
pub(crate) fn container(bytes: &[u8]) -> Result<Container> {
    let wrong = |what: &str, remedy: &str| Err(Error::weights(what.to_owned()).fix(remedy.to_owned()));
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"PK\x05\x06") {
        return Ok(Container::Zip);
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return wrong(
            "this is a Git LFS pointer, a text of a few lines that stands for the real file",
            "fetch the file itself with `git lfs pull`, or download it from the project's page",
        );
    }
    let text = bytes.iter().position(|b| !b.is_ascii_whitespace()).map_or(&[][..], |at| &bytes[at..]);
    if text.starts_with(b"<") {
        return wrong(
            "this is a web page (HTML or XML) saved under the name of a checkpoint",
            "download the file again, signed in if the site asks for it",
        );
    }
    if bytes.starts_with(b"GGUF") {
        return wrong("this is a GGUF file", "use the safetensors or .ckpt file of the same model");
    }
    if bytes.starts_with(b"\x89HDF") {
        return wrong("this is an HDF5 file", "use the safetensors or .ckpt file of the same model");
    }
    if bytes.first() == Some(&0x80) && bytes.get(1).is_some_and(|protocol| *protocol <= 5) {
        let head = &bytes[..bytes.len().min(32)];
        let legacy = head.windows(LEGACY_TORCH.len()).any(|w| w == LEGACY_TORCH);
        return wrong(
            if legacy {
                "this is a PyTorch file in the format from before version 1.6, which is not a zip archive"
            } else {
                "this is a bare Python pickle, not a checkpoint"
            },
            "load and save it once with torch.load and torch.save of PyTorch 1.6 or newer, \
             or use the safetensors file of the same model",
        );
    }
    if bytes.get(257..262) == Some(b"ustar") {
        return wrong(
            "this is a tar archive (the first versions of PyTorch saved such files)",
            "unpack it if it holds checkpoints, or save it again with a current PyTorch",
        );
    }
    if let Some(header) = safetensors_header_len(bytes)
        && (bytes.get(8) == Some(&b'{') || (2..=bytes.len() as u64 - 8).contains(&header))
    {
        return Ok(Container::Safetensors);
    }
    if text.starts_with(b"{") || text.starts_with(b"[") {
        let head = &text[..text.len().min(1 << 16)];
        if head.windows(12).any(|w| w == b"\"weight_map\"") || tail_has_weight_map(bytes) {
            return Ok(Container::ShardIndex);
        }
        return wrong("this is a JSON text, not a checkpoint", "give the weights file itself");
    }
    if bytes.iter().all(|b| *b == 0) {
        return wrong("the file holds only zero bytes", "its download was cut off: get it again");
    }
    wrong(
        "this is neither a safetensors file nor a PyTorch zip checkpoint",
        "its download may be damaged: get it again",
    )
}

/// The length that the first 8 bytes would state if this were a safetensors file.
fn safetensors_header_len(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?))
}

/// The map may follow a long metadata entry.
fn tail_has_weight_map(bytes: &[u8]) -> bool {
    bytes.len() < 64 << 20 && bytes.windows(12).any(|w| w == b"\"weight_map\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &[u8]) -> String {
        container(bytes).expect_err("must be refused").to_string()
    }

    #[test]
    fn strangers_are_named() {
        assert!(message(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n").contains("Git LFS"));
        assert!(message(b"\n <!DOCTYPE html><html>").contains("web page"));
        assert!(message(b"GGUF\x03\0\0\0\0\0\0\0").contains("GGUF"));
        let legacy = [&[0x80, 2][..], LEGACY_TORCH, b".rest"].concat();
        assert!(message(&legacy).contains("before version 1.6"));
        assert!(message(b"\x80\x04\x95rest").contains("bare Python pickle"));
        assert!(message(b"{\"a\": [1, 2]}            ").contains("JSON"));
        assert!(message(&[0; 100]).contains("only zero bytes"));
        assert!(message(b"xy").contains("neither"));
        assert_eq!(
            container(b"{\n  \"metadata\": {},\n  \"weight_map\": {}}").expect("an index"),
            Container::ShardIndex
        );
    }
}
