//! Single characters that are put in their plain form, after `ftfy.fixes`.
//!
//! The repairs run again and again until none finds work, so each first looks cheaply whether it has any.

use std::sync::LazyLock;

use regex::Regex;
use unicode_normalization::UnicodeNormalization;

use super::codecs::c1_as_windows_1252;
use super::pattern;

/// Control characters that survive encoding repair become what Windows-1252 has in their place.
pub fn fix_c1_controls(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    text.chars().map(c1_as_windows_1252).collect()
}

/// Latin ligatures and two-letter characters to their letters, half- and full-width forms to the normal
/// ones, curly quotes to straight ones, every line break to `\n`.
pub fn plain_forms(text: &str) -> String {
    if text.is_ascii() && !text.contains('\r') {
        return text.to_owned();
    }
    // In this order: a ligature may hold a curly apostrophe, a width form has a normal one.
    let letters = replace(text, |c, out| match ligature(c) {
        Some(letters) => out.push_str(letters),
        None => out.push(c),
    });
    let widths = replace(&letters, |c, out| match c {
        '\u{3000}' => out.push(' '),
        '\u{ff01}'..='\u{ffef}' => out.extend(std::iter::once(c).nfkc()),
        _ => out.push(c),
    });
    let quotes = replace(&widths, |c, out| {
        out.push(match c {
            '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
            '\u{201c}'..='\u{201f}' => '"',
            _ => c,
        });
    });
    quotes.replace("\r\n", "\n").replace(['\r', '\u{2028}', '\u{2029}', '\u{85}'], "\n")
}

/// Removes the escape sequences that colour a terminal.
pub fn remove_terminal_escapes(text: &str) -> String {
    if !text.contains('\x1b') {
        return text.to_owned();
    }
    static ESCAPE: LazyLock<Regex> = LazyLock::new(|| pattern(r"\x1b\[[\p{Nd};]*[a-zA-Z]"));
    ESCAPE.replace_all(text, "").into_owned()
}

/// Removes characters with no visible effect that are rarely meant: ASCII controls other than white space,
/// deprecated Arabic controls, interlinear annotation, the object placeholder and the byte order mark.
pub fn remove_control_chars(text: &str) -> String {
    let ascii = |byte: u8| matches!(byte, 0..=8 | 0xb | 0xe..=0x1f | 0x7f);
    if text.is_ascii() && !text.bytes().any(ascii) {
        return text.to_owned();
    }
    let other = |c: char| matches!(c, '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}');
    text.chars().filter(|&c| !(other(c) || (c.is_ascii() && ascii(c as u8)))).collect()
}

/// Canonical composition (NFC).
pub fn compose(text: &str) -> String {
    if text.is_ascii() {
        return text.to_owned();
    }
    text.nfc().collect()
}

fn replace(text: &str, mut one: impl FnMut(char, &mut String)) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        one(c, &mut out);
    }
    out
}

fn ligature(c: char) -> Option<&'static str> {
    Some(match c {
        'Ĳ' => "IJ",
        'ĳ' => "ij",
        'ŉ' => "ʼn",
        'Ǆ' => "DŽ",
        'ǅ' => "Dž",
        'ǆ' => "dž",
        'Ǉ' => "LJ",
        'ǈ' => "Lj",
        'ǉ' => "lj",
        'Ǌ' => "NJ",
        'ǋ' => "Nj",
        'ǌ' => "nj",
        'Ǳ' => "DZ",
        'ǲ' => "Dz",
        'ǳ' => "dz",
        'ﬀ' => "ff",
        'ﬁ' => "fi",
        'ﬂ' => "fl",
        'ﬃ' => "ffi",
        'ﬄ' => "ffl",
        'ﬅ' => "ſt",
        'ﬆ' => "st",
        _ => return None,
    })
}
