//! Prompts to hidden states.

use super::Models;
use super::plans::{Key, PlanCache};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::executor::{Data, Executor, View};
use crate::graph::Rate;

/// Runs the text encoder over one prompt and writes its hidden states to each of `into`. Gives a warning, if the prompt was cut.
pub(super) async fn encode_prompt(
    executor: &Executor,
    models: &Models,
    plans: &PlanCache,
    prompt: &str,
    into: &[View],
    cancel: &CancelToken,
) -> Result<Option<String>> {
    let tokens = models.tokenizer.encode(prompt);
    let encoder = &models.text_encoder;
    let text = plans
        .get(executor, Key::text(&encoder.config, tokens.ids.len()))
        .await?;
    executor.write(&text.instance, "input_ids", 0, Data::U32(&tokens.ids))?;
    executor
        .run(&text.instance, &encoder.weights, Rate::Prompt, 0, 0, cancel)
        .await?;
    let hidden = executor.view(&text.instance, text.plan.output("last_hidden_state")?, 0)?;
    for view in into {
        executor.combine(view, &[(hidden.clone(), 1.0)], None)?;
    }
    Ok(tokens.dropped.map(|dropped| {
        const SHOWN: usize = 100;
        let shown: String = dropped.chars().take(SHOWN).collect();
        let more = if shown.len() < dropped.len() { "…" } else { "" };
        let length = tokens.ids.len();
        format!("the prompt is longer than the {length} tokens that the text encoder takes; cut off: \"{shown}{more}\"")
    }))
}
