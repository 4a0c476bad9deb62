//! What happens to a prompt before it is split into words, equal to OpenCLIP's cleaning in mode "lower":
//! `ftfy.fix_text`, `html.unescape` twice, white space collapsed, lower case.
//!
//! Each step is equal to its Python original (ftfy 6.3, Python's `html` and `str`). Rust strings hold no
//! lone surrogates, so the step of ftfy that joins them has no counterpart. Letters newer than the
//! reference's Unicode tables may be lower-cased here and not there.

mod badness;
mod characters;
mod codecs;
mod html;
mod mojibake;
mod repair;

use regex::{Regex, RegexBuilder};

/// The text the tokenizer sees for `text`.
pub fn clean(text: &str) -> String {
    let repaired = repair::fix_text(text);
    let plain = html::unescape(&html::unescape(&repaired));
    let mut out = String::with_capacity(plain.len());
    for word in plain.split(is_space).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    // The standard library's lower-casing follows the same rules as Python's: full mappings, and the
    // capital sigma by its place in the word.
    out.to_lowercase()
}

/// Python's `str.isspace`: Unicode white space and the four ASCII separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Compiles one of this module's fixed patterns.
pub(super) fn pattern(source: &str) -> Regex {
    RegexBuilder::new(source).build().expect("the pattern is fixed and each is compiled by a test")
}
