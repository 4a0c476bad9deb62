//! The directory of a zip archive whose entries are stored, that is mapped in place.
//!
//! Written here and not taken from a crate because a checkpoint needs the byte ranges of stored
//! entries in a mapped file and nothing else: no count or length found in the file sizes an allocation,
//! and a compressed entry is refused by name instead of being inflated.

use std::collections::HashMap;
use std::ops::Range;

use crate::error::{Error, Result};

const END: &[u8; 4] = b"PK\x05\x06";
const END64_LOCATOR: &[u8; 4] = b"PK\x06\x07";
const END64: &[u8; 4] = b"PK\x06\x06";
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
const LOCAL: &[u8; 4] = b"PK\x03\x04";
/// Bytes of the end record without its comment, and the longest comment.
const END_LEN: usize = 22;
const MAX_COMMENT: usize = u16::MAX as usize;
/// Archive entries a checkpoint may have; the largest published ones have a few thousand.
const MAX_ENTRIES: usize = 1 << 20;
/// A field of 32 bits that says "see the zip64 extra field".
const IN_EXTRA: u64 = 0xFFFF_FFFF;

/// One entry of the central directory.
pub(crate) struct Entry {
    name: String,
    method: u16,
    encrypted: bool,
    stored_len: u64,
    header: u64,
}

/// A zip archive that lies in memory.
pub(crate) struct Archive<'a> {
    bytes: &'a [u8],
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

fn damaged(what: &str) -> Error {
    Error::weights(format!("the zip archive is damaged: {what}"))
        .fix("its download was cut off: get it again")
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?)))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

impl<'a> Archive<'a> {
    /// Reads the central directory.
    ///
    /// # Errors
    /// The directory is missing, cut off or inconsistent.
    pub fn open(bytes: &'a [u8]) -> Result<Archive<'a>> {
        let (start, end, count) = directory(bytes).ok_or_else(|| damaged("its directory is missing"))?;
        let directory = bytes.get(start..end).ok_or_else(|| damaged("its directory is cut off"))?;
        if count > MAX_ENTRIES as u64 {
            return Err(damaged("it claims more than a million entries"));
        }
        let (mut entries, mut by_name, mut at) = (Vec::new(), HashMap::new(), 0);
        for _ in 0..count {
            let (entry, next) =
                central_entry(directory, at).ok_or_else(|| damaged("a directory entry is cut off"))?;
            at = next;
            if by_name.insert(entry.name.clone(), entries.len()).is_some() {
                return Err(damaged(&format!("the name {} occurs twice", entry.name)));
            }
            entries.push(entry);
        }
        Ok(Archive { bytes, entries, by_name })
    }

    /// The folder that holds `data.pkl`, with its slash; empty if that lies at the top.
    pub fn root(&self) -> Option<&str> {
        self.entries
            .iter()
            .filter_map(|entry| entry.name.strip_suffix("data.pkl"))
            .filter(|root| root.is_empty() || root.ends_with('/'))
            .min_by_key(|root| root.len())
    }

    pub fn find(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).and_then(|i| self.entries.get(*i))
    }

    /// Checks that what a checkpoint under `root` is made of is stored as it is.
    ///
    /// # Errors
    /// Entries are compressed or encrypted; the message names them.
    pub fn check_stored(&self, root: &str) -> Result<()> {
        let ours = |name: &str| {
            name.strip_prefix(root)
                .is_some_and(|rest| matches!(rest, "data.pkl" | "byteorder") || rest.starts_with("data/"))
        };
        let packed: Vec<_> =
            self.entries.iter().filter(|e| (e.method != 0 || e.encrypted) && ours(&e.name)).collect();
        let Some(first) = packed.first() else { return Ok(()) };
        let how = match (first.encrypted, first.method) {
            (true, _) => "encrypted".to_owned(),
            (_, 8) => "compressed (deflate)".to_owned(),
            (_, method) => format!("compressed (zip method {method})"),
        };
        let shown: Vec<_> = packed.iter().take(3).map(|entry| entry.name.as_str()).collect();
        let more = packed.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Error::weights(format!("the archive entries {}{more} are {how}", shown.join(", "))).fix(
            "checkpoints hold uncompressed entries: save it again with torch.save, \
             or pack the unpacked files again with `zip -0`",
        ))
    }

    /// The byte range of a stored entry's content in the archive, see [`Archive::check_stored`].
    ///
    /// # Errors
    /// The entry goes past the end of the archive.
    pub fn stored(&self, entry: &Entry) -> Result<Range<usize>> {
        self.content(entry).ok_or_else(|| damaged(&format!("entry {} is cut off", entry.name)))
    }

    fn content(&self, entry: &Entry) -> Option<Range<usize>> {
        let header = usize::try_from(entry.header).ok()?;
        if self.bytes.get(header..header.checked_add(4)?)? != LOCAL {
            return None;
        }
        let name = usize::from(u16_at(self.bytes, header.checked_add(26)?)?);
        let extra = usize::from(u16_at(self.bytes, header.checked_add(28)?)?);
        let start = header.checked_add(30 + name + extra)?;
        let end = start.checked_add(usize::try_from(entry.stored_len).ok()?)?;
        (end <= self.bytes.len()).then_some(start..end)
    }
}

/// Byte range and entry count of the central directory.
fn directory(bytes: &[u8]) -> Option<(usize, usize, u64)> {
    let last = bytes.len().checked_sub(END_LEN)?;
    let first = last.saturating_sub(MAX_COMMENT);
    // The record sits at the very end unless a comment follows it, whose length it states.
    let end = (first..=last).rev().find(|at| {
        bytes[*at..].starts_with(END)
            && u16_at(bytes, at + 20).is_some_and(|n| at + END_LEN + usize::from(n) == bytes.len())
    })?;
    let mut count = u64::from(u16_at(bytes, end + 10)?);
    let (mut size, mut start) = (u32_at(bytes, end + 12)?, u32_at(bytes, end + 16)?);
    let locator = end.checked_sub(20).filter(|at| bytes[*at..].starts_with(END64_LOCATOR));
    if let Some(locator) = locator {
        let at = usize::try_from(u64_at(bytes, locator + 8)?).ok()?;
        if bytes.get(at..)?.starts_with(END64) {
            count = u64_at(bytes, at.checked_add(32)?)?;
            size = u64_at(bytes, at.checked_add(40)?)?;
            start = u64_at(bytes, at.checked_add(48)?)?;
        }
    }
    let start = usize::try_from(start).ok()?;
    let stop = start.checked_add(usize::try_from(size).ok()?)?;
    Some((start, stop, count))
}

/// The entry at `at` of the directory and the position after it.
fn central_entry(directory: &[u8], at: usize) -> Option<(Entry, usize)> {
    let head = directory.get(at..at.checked_add(46)?)?;
    if !head.starts_with(CENTRAL) {
        return None;
    }
    let name_len = usize::from(u16_at(head, 28)?);
    let extra_len = usize::from(u16_at(head, 30)?);
    let comment_len = usize::from(u16_at(head, 32)?);
    let name_end = at + 46 + name_len;
    let name = String::from_utf8_lossy(directory.get(at + 46..name_end)?).into_owned();
    let extra = directory.get(name_end..name_end + extra_len)?;
    let (mut stored_len, mut full_len, mut header) =
        (u32_at(head, 20)?, u32_at(head, 24)?, u32_at(head, 42)?);
    // Zip64: the 64-bit values follow one another, only for fields that overflowed.
    if let Some(wide) = extra_field(extra, 1) {
        let mut at = 0;
        for field in [&mut full_len, &mut stored_len, &mut header] {
            if *field == IN_EXTRA {
                *field = u64_at(wide, at)?;
                at += 8;
            }
        }
    }
    let flags = u16_at(head, 8)?;
    let entry = Entry { name, method: u16_at(head, 10)?, encrypted: flags & 1 != 0, stored_len, header };
    Some((entry, name_end + extra_len + comment_len))
}

/// The content of the extra field with this id.
fn extra_field(mut extra: &[u8], id: u16) -> Option<&[u8]> {
    loop {
        let (found, len) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let content = extra.get(4..4 + len)?;
        if found == id {
            return Some(content);
        }
        extra = &extra[4 + len..];
    }
}
