//! The tokenizer against rows recorded from OpenCLIP (see `fixtures/tokenizer/README.md`), and on random text.

use serde::Deserialize;
use tasr::models::text::cleanup::clean;
use tasr::models::text::tokenizer::{CONTEXT, END, PADDING, START, Tokenizer};

#[derive(Deserialize)]
struct Prompt {
    text: String,
    /// Without padding.
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Cleaned {
    text: String,
    clean: String,
}

#[test]
fn prompts_have_the_ids_of_the_reference() {
    let tokenizer = Tokenizer::new();
    let rows: Vec<Prompt> = serde_json::from_str(include_str!("fixtures/tokenizer/prompts.json")).unwrap();
    assert!(rows.len() > 300, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for Prompt { text, ids } in &rows {
        let found = tokenizer.encode(text);
        let padded: Vec<u32> = ids.iter().copied().chain([PADDING; CONTEXT]).take(CONTEXT).collect();
        if found.ids[..] != padded[..] || found.used != ids.len() {
            wrong.push(format!(
                "{text:?} ({:?}): {:?}, expected {ids:?}",
                clean(text),
                &found.ids[..found.used]
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows differ:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn cleaning_is_that_of_the_reference() {
    let rows: Vec<Cleaned> = serde_json::from_str(include_str!("fixtures/tokenizer/cleaning.json")).unwrap();
    assert!(rows.len() > 200, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for Cleaned { text, clean: expected } in &rows {
        let found = clean(text);
        if found != *expected {
            wrong.push(format!("{text:?}: {found:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows differ:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
}

#[test]
fn the_context_is_filled_to_the_last_id_before_it_truncates() {
    let tokenizer = Tokenizer::new();
    for (words, truncated, used) in
        [(0, false, 2), (74, false, 76), (75, false, 77), (76, true, 77), (500, true, 77)]
    {
        let tokens = tokenizer.encode(&"a ".repeat(words));
        assert_eq!(
            (tokens.truncated, tokens.used, tokens.ids[used - 1]),
            (truncated, used, END),
            "{words} words"
        );
    }
    // One word longer than the context, cut inside.
    let tokens = tokenizer.encode(&"!?".repeat(400));
    assert_eq!((tokens.truncated, tokens.used, tokens.ids[CONTEXT - 1]), (true, CONTEXT, END));
}

#[test]
fn any_text_encodes_to_a_well_formed_row() {
    let tokenizer = Tokenizer::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..6000 {
        let text = random.text();
        let cleaned = clean(&text);
        assert_eq!(cleaned.trim(), cleaned, "{text:?}");
        assert!(!cleaned.contains("  "), "{text:?}: {cleaned:?}");

        let tokens = tokenizer.encode(&text);
        let used = tokens.used;
        assert!((2..=CONTEXT).contains(&used), "{text:?}");
        assert_eq!((tokens.ids[0], tokens.ids[used - 1]), (START, END), "{text:?}");
        assert!(tokens.ids[used..].iter().all(|&id| id == PADDING), "{text:?}");
        assert!(tokens.ids.iter().all(|&id| id <= END), "{text:?}");
        assert!(!tokens.truncated || used == CONTEXT, "{text:?}");
        assert_eq!(tokens, tokenizer.clone().encode(&text), "{text:?}");
    }
}

/// Xorshift, so that a failure repeats.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) % u64::from(bound)) as u32
    }

    fn text(&mut self) -> String {
        let pieces =
            ["&", "&#", "&#x", ";", "Ã", "â€", "Â ", "\u{1b}[", "<", "'", "ſ", "\n", "\u{fffd}", "í\u{a0}"];
        let mut text = String::new();
        for _ in 0..self.below(40) {
            let top = [0x80, 0x100, 0x250, 0x3000, 0x1_0000, 0x11_0000][self.below(6) as usize];
            match self.below(4) {
                0 => text.push_str(pieces[self.below(pieces.len() as u32) as usize]),
                // Surrogates are no characters; the draw is then left out.
                _ => text.extend(char::from_u32(self.below(top))),
            }
        }
        // UTF-8 read as Latin-1, up to three times.
        for _ in 0..self.below(4) {
            text = text.bytes().map(char::from).collect();
        }
        text
    }
}
