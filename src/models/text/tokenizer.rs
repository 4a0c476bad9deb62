//! Prompts to token ids, equal to OpenCLIP's `tokenize` for ViT-H/14.
//!
//! The text is cleaned ([`clean`]), split into words, and each word is encoded by byte pairs over the CLIP
//! vocabulary `bpe_simple_vocab_16e6` (256 byte symbols, the same 256 ending a word, 48,894 merges, two
//! markers). Sources: `open_clip/tokenizer.py` (`SimpleTokenizer`), Radford et al. 2021, "Learning
//! Transferable Visual Models From Natural Language Supervision", and Sennrich et al. 2016, "Neural Machine
//! Translation of Rare Words with Subword Units", for the byte pairs.

use std::fmt;
use std::sync::{Arc, LazyLock};

use instant_clip_tokenizer as clip;
use regex::Regex;

use super::cleanup::{clean, pattern};

/// Ids in one encoded prompt: the context length of the text tower.
pub const CONTEXT: usize = 77;
/// The id that opens every prompt, `<start_of_text>`.
pub const START: u32 = 49406;
/// The id that closes every prompt, `<end_of_text>`.
pub const END: u32 = 49407;
/// The id after the end. It is also the id of "!" inside a word, as in the reference.
pub const PADDING: u32 = 0;

/// One encoded prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// [`START`], the words, [`END`], then [`PADDING`].
    pub ids: [u32; CONTEXT],
    /// The prompt was longer than the context; its tail was dropped and the last id is [`END`].
    pub truncated: bool,
    /// Ids before the padding, start and end included: 2 for an empty prompt, at most [`CONTEXT`].
    pub used: usize,
}

/// The CLIP byte-pair tokenizer. Building it parses the vocabulary (tens of milliseconds); a clone shares it.
#[derive(Clone)]
pub struct Tokenizer {
    vocabulary: Arc<clip::Tokenizer>,
}

impl Tokenizer {
    pub fn new() -> Self {
        Tokenizer { vocabulary: Arc::new(clip::Tokenizer::new()) }
    }

    /// Encodes one prompt. Every text has an encoding; what does not fit the context is dropped from its end.
    ///
    /// Contrived text can cost quadratic time, as in the reference: one word of 100,000 letters, or 25,000
    /// nested `&amp;`, takes seconds.
    ///
    /// ```
    /// use tasr::models::text::tokenizer::Tokenizer;
    /// let tokens = Tokenizer::new().encode("a photo, of a cat");
    /// assert_eq!(tokens.ids[..tokens.used], [49406, 320, 1125, 267, 539, 320, 2368, 49407]);
    /// ```
    pub fn encode(&self, text: &str) -> Tokens {
        let room = CONTEXT - 2;
        let mut body = Vec::with_capacity(CONTEXT);
        for word in WORDS.find_iter(&clean(text)) {
            if body.len() > room {
                break;
            }
            self.encode_word(word.as_str(), &mut body);
        }
        let truncated = body.len() > room;
        body.truncate(room);

        let mut ids = [PADDING; CONTEXT];
        ids[0] = START;
        ids[1..=body.len()].copy_from_slice(&body);
        ids[body.len() + 1] = END;
        Tokens { ids, truncated, used: body.len() + 2 }
    }

    fn encode_word(&self, word: &str, out: &mut Vec<u32>) {
        // The reference splits without regard to case, and the long s folds to "s". These two words are
        // therefore whole there while the vocabulary's own splitter would cut them; no other lower-case
        // text is split differently.
        match word {
            "'ſ" => return out.extend(LONG_S_CONTRACTION),
            "<ſtart_of_text>" => return out.extend(LONG_S_START),
            _ => {}
        }
        let mut tokens = Vec::new();
        self.vocabulary.encode(word, &mut tokens);
        out.extend(tokens.into_iter().map(|token| u32::from(token.to_u16())));
    }
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").finish_non_exhaustive()
    }
}

/// `'`, the two bytes of the long s, the last ending the word.
const LONG_S_CONTRACTION: [u32; 3] = [6, 129, 379];
/// `<`, the two bytes of the long s, `tart`, `_`, `of`, `_`, `text`, `>` ending the word.
const LONG_S_START: [u32; 9] = [27, 129, 123, 16707, 62, 684, 62, 18169, 285];

/// How cleaned text falls into words: a marker, an English contraction, letters, one number character, or
/// a run of anything else. U+0345 (the iota below) is in no class: without regard to case it is an iota, so
/// not "anything else", and it is a mark, so not a letter; the reference drops it.
static WORDS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"<[sſ]tart_of_text>|<end_of_text>|'[sſ]|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+",
    )
});
