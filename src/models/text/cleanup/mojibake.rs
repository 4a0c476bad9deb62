//! Undoing "mojibake": UTF-8 that was decoded in a single-byte encoding, after `ftfy.fix_encoding`.

use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};

use super::badness::is_bad;
use super::codecs::{CODECS, c1_as_windows_1252, decode_utf8, latin_like};

/// Re-reads the text as often as that makes it better.
pub fn fix_encoding(text: &str) -> String {
    let mut current = text.to_owned();
    loop {
        match one_step(&current) {
            Some(next) if next != current => current = next,
            _ => return current,
        }
    }
}

/// One level of repair. `None`: nothing to repair, or no way to.
///
/// Each level that changes the text leaves fewer characters or fewer of the characters that look wrong, so
/// that [`fix_encoding`] ends.
fn one_step(text: &str) -> Option<String> {
    if text.is_ascii() || !is_bad(text) {
        return None;
    }
    for codec in CODECS.iter() {
        let Some(mut bytes) = codec.encode(text) else { continue };
        if codec.space_hides_a0 {
            bytes = restore_a0(bytes);
        }
        if codec.sloppy {
            bytes = replace_lossy(bytes);
        }
        if let Some(fixed) = decode_utf8(bytes) {
            return Some(fixed);
        }
    }
    let fixed = fix_embedded(text);
    if fixed != text {
        return Some(fixed);
    }
    // No UTF-8 in it. C1 controls are then Windows-1252 that was read as Latin-1.
    Some(text.chars().map(c1_as_windows_1252).collect())
}

/// Puts byte 0xA0 back where a program took it for a space and it completes a likely UTF-8 sequence.
fn restore_a0(bytes: Vec<u8>) -> Vec<u8> {
    static ALTERED: LazyLock<Regex> = LazyLock::new(|| {
        byte_pattern(&[
            r"[\xc2\xc3\xc5\xce\xd0\xd9] ",
            r"[\xe2\xe3] [\x80-\x84\x86-\x9f\xa1-\xbf]",
            r"[\xe0-\xe3][\x80-\x84\x86-\x9f\xa1-\xbf] ",
            r"\xf0 [\x80-\xbf][\x80-\xbf]",
            r"\xf0[\x80-\xbf] [\x80-\xbf]",
            r"\xf0[\x80-\xbf][\x80-\xbf] ",
        ])
    });
    if !ALTERED.is_match(&bytes) {
        return bytes;
    }
    let words = separate_a_grave(&bytes);
    let with_a0 = |found: &Captures| -> Vec<u8> {
        found[0].iter().map(|&byte| if byte == b' ' { 0xa0 } else { byte }).collect()
    };
    ALTERED.replace_all(&words, with_a0).into_owned()
}

/// "à" as a word of its own lost its second byte among the spaces: the space after it stays a space. The
/// Portuguese words that begin with "à" are left to [`restore_a0`].
fn separate_a_grave(bytes: &[u8]) -> Vec<u8> {
    const GLUED: [&[u8]; 5] = [b" ", b"quele", b"quela", b"quilo", b"s "];
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        out.push(first);
        rest = after;
        if let (0xc3, Some(next)) = (first, after.strip_prefix(b" "))
            && !GLUED.iter().any(|word| next.starts_with(word))
        {
            out.extend_from_slice(b"\xa0 ");
            rest = next;
        }
    }
    out
}

/// Replaces UTF-8 sequences of which bytes were lost (0x1A, or a question mark) by U+FFFD.
fn replace_lossy(bytes: Vec<u8>) -> Vec<u8> {
    static LOSSY: LazyLock<Regex> = LazyLock::new(|| {
        byte_pattern(&[
            r"[\xc2-\xdf]\x1a",
            r"[\xc2-\xc3]\?",
            r"\xed[\xa0-\xaf][\x1a?]\xed[\xb0-\xbf][\x1a?\x80-\xbf]",
            r"\xed[\xa0-\xaf][\x1a?\x80-\xbf]\xed[\xb0-\xbf][\x1a?]",
            r"[\xe0-\xef][\x1a?][\x1a\x80-\xbf]",
            r"[\xe0-\xef][\x1a\x80-\xbf][\x1a?]",
            r"[\xf0-\xf4][\x1a?][\x1a\x80-\xbf][\x1a\x80-\xbf]",
            r"[\xf0-\xf4][\x1a\x80-\xbf][\x1a?][\x1a\x80-\xbf]",
            r"[\xf0-\xf4][\x1a\x80-\xbf][\x1a\x80-\xbf][\x1a?]",
            r"\x1a",
        ])
    });
    LOSSY.replace_all(&bytes, &b"\xef\xbf\xbd"[..]).into_owned()
}

fn byte_pattern(alternatives: &[&str]) -> Regex {
    Regex::new(&format!("(?-u){}", alternatives.join("|"))).expect("the pattern is fixed and tested")
}

/// Repairs runs that look like misread UTF-8 inside a text that as a whole does not decode.
fn fix_embedded(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = if at > 0 && CLUES.is_tail(chars[at - 1]) { at } else { CLUES.run(&chars, at) };
        if end == at {
            out.push(chars[at]);
            at += 1;
            continue;
        }
        let run: String = chars[at..end].iter().collect();
        // A run that is the whole text would come back here without end.
        out.push_str(&if end - at < chars.len() && is_bad(&run) { fix_encoding(&run) } else { run });
        at = end;
    }
    out
}

/// Characters that stand for the bytes of UTF-8 in encodings akin to Latin-1; each list is sorted.
struct Clues {
    /// First bytes of sequences of two, three and four.
    first: [Vec<char>; 3],
    /// Later bytes, and the space, which may have been 0xA0.
    later: Vec<char>,
}

static CLUES: LazyLock<Clues> = LazyLock::new(|| {
    // Of the first bytes of four, only these two lead to characters in use.
    let mut four = latin_like(0xf0..=0xf0);
    four.extend(latin_like(0xf3..=0xf3));
    four.sort_unstable();
    let mut later = latin_like(0x80..=0xbf);
    later.insert(0, ' ');
    later.sort_unstable();
    Clues { first: [latin_like(0xc2..=0xdf), latin_like(0xe0..=0xef), four], later }
});

impl Clues {
    /// Where the sequences that begin at `start` end; `start` if there are none.
    fn run(&self, chars: &[char], start: usize) -> usize {
        let mut end = start;
        while let Some(length) = self.sequence(&chars[end..]) {
            end += length;
        }
        end
    }

    fn sequence(&self, chars: &[char]) -> Option<usize> {
        let lead = chars.first()?;
        (2..=4).find(|&length| {
            self.first[length - 2].binary_search(lead).is_ok()
                && chars
                    .get(1..length)
                    .is_some_and(|tail| tail.iter().all(|c| self.later.binary_search(c).is_ok()))
        })
    }

    /// A later byte that is no ordinary punctuation: what follows it is the rest of a longer garble, and
    /// mending part of that makes it worse.
    fn is_tail(&self, c: char) -> bool {
        const PUNCTUATION: &str = " –—―‘’‚“”„•…";
        self.later.binary_search(&c).is_ok() && !PUNCTUATION.contains(c)
    }
}
