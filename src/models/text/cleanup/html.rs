//! HTML character references: Python's `html.unescape`, and the stricter reading inside `ftfy`.
//!
//! The 2231 named references are those of the HTML standard, "13.5 Named character references".

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::codecs::c1_as_windows_1252;
use super::pattern;

/// Replaces every reference, also those that lack the semicolon, by the longest name that fits.
pub fn unescape(text: &str) -> String {
    static REFERENCE: LazyLock<Regex> =
        LazyLock::new(|| pattern(r"&(?:#([0-9]+);?|#[xX]([0-9a-fA-F]+);?|([^\t\n\x0c <&#;]{1,32};?))"));
    if !text.contains('&') {
        return text.to_owned();
    }
    let replaced = REFERENCE.replace_all(text, |found: &Captures| {
        if let Some(digits) = found.get(1) {
            return numeric(digits.as_str(), 10);
        }
        if let Some(digits) = found.get(2) {
            return numeric(digits.as_str(), 16);
        }
        let whole = &found[0];
        // Python asks for prefixes of at least two characters; no name is shorter.
        let cuts = whole.char_indices().map(|(at, _)| at).skip(1).chain([whole.len()]);
        let mut ends: Vec<usize> = cuts.collect();
        ends.reverse();
        for end in ends {
            if let Some(characters) = named(&whole[..end]) {
                return format!("{characters}{}", &whole[end..]);
            }
        }
        whole.to_owned()
    });
    replaced.into_owned()
}

/// The reading of `ftfy`: only references with their semicolon, and also lower-case names written in
/// capitals, which stand for the capital character.
pub fn unescape_whole(text: &str) -> String {
    static WHOLE: LazyLock<Regex> = LazyLock::new(|| pattern(r"&#?[0-9A-Za-z]{1,24};"));
    if !text.contains('&') {
        return text.to_owned();
    }
    let replaced = WHOLE.replace_all(text, |found: &Captures| {
        let whole = &found[0];
        if let Some(characters) = named(whole) {
            return characters.to_owned();
        }
        let plain = unescape(whole);
        if whole.starts_with("&#") {
            return if plain.contains(';') { whole.to_owned() } else { plain };
        }
        let shouted = whole.to_ascii_uppercase() == whole && plain == whole;
        match named(&whole.to_ascii_lowercase()) {
            Some(characters) if shouted => characters.to_uppercase(),
            _ => whole.to_owned(),
        }
    });
    replaced.into_owned()
}

/// The characters of `&name;` or, where the standard allows it, `&name`.
fn named(reference: &str) -> Option<&'static str> {
    let characters = htmlize::ENTITIES.get(reference.as_bytes())?;
    std::str::from_utf8(characters).ok()
}

/// A reference by number, with the corrections of the HTML standard for numbers that name no character.
fn numeric(digits: &str, radix: u32) -> String {
    let significant = digits.trim_start_matches('0');
    // Ten digits are past every character in both radices, and still fit the integer.
    let code = match significant.len() {
        0 => 0,
        1..=10 => u64::from_str_radix(significant, radix).unwrap_or(u64::MAX),
        _ => u64::MAX,
    };
    let Some(c) = u32::try_from(code).ok().and_then(char::from_u32) else {
        return '\u{fffd}'.to_string();
    };
    match c {
        '\0' => '\u{fffd}'.to_string(),
        '\u{80}'..='\u{9f}' => c1_as_windows_1252(c).to_string(),
        '\u{1}'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' => String::new(),
        '\u{fdd0}'..='\u{fdef}' => String::new(),
        _ if code & 0xfffe == 0xfffe => String::new(),
        _ => c.to_string(),
    }
}
