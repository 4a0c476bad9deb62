//! The order of the repairs, after `ftfy.fix_text` with its default settings.

use super::characters::{
    compose, fix_c1_controls, plain_forms, remove_control_chars, remove_terminal_escapes,
};
use super::html::unescape_whole;
use super::mojibake::fix_encoding;

/// Longest piece that is repaired at once, in characters.
const LONGEST_PIECE: usize = 1_000_000;

/// Repairs a text line by line. From the first line with a "<" on it is taken for markup, and HTML
/// references are kept.
pub fn fix_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut markup = false;
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while !rest.is_empty() {
            let end = rest.char_indices().nth(LONGEST_PIECE).map_or(rest.len(), |(at, _)| at);
            let (piece, after) = rest.split_at(end);
            markup |= piece.contains('<');
            out.push_str(&fix_piece(piece, !markup));
            rest = after;
        }
    }
    out
}

/// Repeats all repairs until none changes the text: each may bring to light work for another.
fn fix_piece(piece: &str, references: bool) -> String {
    let mut current = piece.to_owned();
    loop {
        let mut next = if references { unescape_whole(&current) } else { current.clone() };
        next = fix_encoding(&next);
        next = plain_forms(&fix_c1_controls(&next));
        next = remove_control_chars(&remove_terminal_escapes(&next));
        next = compose(&next);
        if next == current {
            return current;
        }
        current = next;
    }
}
