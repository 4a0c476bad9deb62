//! The prompts of a run: one a picture and the negative one, tokenised, and encoded once.

use std::collections::HashMap;

use super::prompts::PromptList;
use crate::cli::upscale::flags::{NEGATIVE_PROMPT, Sampling};
use crate::error::Result;
use crate::image::Job;
use crate::models::text::{Tokenizer, Tokens};
use crate::ops::Cx;
use crate::pipeline::progress::Progress;
use crate::pipeline::{TextFeatures, Weights};

/// A prompt and its tokens.
#[derive(Clone, Debug)]
pub struct Prompt {
    pub text: String,
    pub tokens: Tokens,
}

/// The prompts of a run.
#[derive(Debug)]
pub struct Prompts {
    distinct: Vec<Prompt>,
    /// of each job: place among `distinct`
    of_job: Vec<usize>,
    pub negative: Prompt,
}

impl Prompts {
    /// The prompt of each job, from the list or else from the flag. What is odd is said.
    pub fn new(
        flags: &Sampling,
        list: Option<&PromptList>,
        jobs: &[Job],
        progress: &dyn Progress,
    ) -> Prompts {
        let tokenizer = Tokenizer::new();
        let read = |text: &str| Prompt { text: text.to_owned(), tokens: tokenizer.encode(text) };
        let (mut distinct, mut places, mut unlisted) = (Vec::new(), HashMap::new(), 0);
        let mut of_job = Vec::with_capacity(jobs.len());
        for job in jobs {
            let listed = list.and_then(|list| list.prompt_of(&job.input));
            unlisted += usize::from(list.is_some() && listed.is_none());
            let text = listed.unwrap_or(&flags.prompt);
            of_job.push(*places.entry(text.to_owned()).or_insert_with(|| {
                distinct.push(read(text));
                distinct.len() - 1
            }));
        }
        if unlisted > 0 {
            progress.note(&format!(
                "pictures that the list of prompts does not have: {unlisted}; they take --prompt"
            ));
        }
        let prompts = Prompts { distinct, of_job, negative: read(&flags.negative_prompt) };
        let truncated = prompts.distinct.iter().filter(|prompt| prompt.tokens.truncated);
        for (i, prompt) in truncated.enumerate() {
            let start: String = prompt.text.chars().take(40).collect();
            if i < 3 {
                progress.note(&format!("a prompt is longer than 75 tokens, its end is left out: {start}..."));
            } else if i == 3 {
                progress.note("more prompts are longer than 75 tokens, their ends are left out");
            }
        }
        if prompts.negative.tokens.truncated {
            progress.note("the negative prompt is longer than 75 tokens, its end is left out");
        }
        prompts
    }

    /// Whether any picture has a prompt, or the negative one was changed.
    pub fn are_given(&self) -> bool {
        self.distinct.iter().any(|prompt| !prompt.text.is_empty()) || self.negative.text != NEGATIVE_PROMPT
    }

    /// The prompt of job `index`.
    pub fn of(&self, index: usize) -> &Prompt {
        &self.distinct[self.of_job[index]]
    }

    /// Features of the prompts of the jobs `needed`, and of the negative prompt if `negative`, by the text tower of
    /// `weights`, which is gone afterwards.
    ///
    /// # Errors
    /// The tower cannot be loaded; memory that runs out, an interrupt.
    pub fn encode(
        &self,
        cx: &Cx,
        weights: &Weights,
        needed: &[usize],
        negative: bool,
        progress: &dyn Progress,
    ) -> Result<TextFeatures> {
        let rows = needed.iter().map(|&index| self.of(index).tokens.ids.as_slice());
        let rows: Vec<&[u32]> = rows.chain(negative.then_some(self.negative.tokens.ids.as_slice())).collect();
        TextFeatures::of(cx, weights, &rows, progress)
    }
}
