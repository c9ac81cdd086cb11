//! Prompts to hidden states.

use super::plans::{Key, PlanCache};
use super::{Models, TextEncoder};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::executor::{Data, Executor, View};
use crate::graph::Rate;

/// Runs the text encoders over one prompt and writes the hidden states of each to `into`. Gives a warning, if the prompt was cut.
pub(super) async fn encode_prompt(
    executor: &Executor,
    models: &Models,
    plans: &PlanCache,
    prompt: &str,
    into: &[View],
    cancel: &CancelToken,
) -> Result<Option<String>> {
    let mut warning = None;
    for (TextEncoder { tokenizer, model }, into) in models.text_encoders.iter().zip(into) {
        let tokens = tokenizer.encode(prompt);
        let text = plans.get(executor, Key::text(&model.config, tokens.ids.len())).await?;
        executor.write(&text.instance, "input_ids", 0, Data::U32(&tokens.ids))?;
        executor
            .run(&text.instance, &model.weights, Rate::Prompt, 0, 0, cancel)
            .await?;
        let hidden = executor.view(&text.instance, text.plan.output("last_hidden_state")?, 0)?;
        executor.combine(into, &[(hidden, 1.0)], None)?;
        let length = tokens.ids.len();
        warning = warning.or(tokens.dropped.map(|dropped| cut_off(&dropped, length)));
    }
    Ok(warning)
}

fn cut_off(dropped: &str, length: usize) -> String {
    const SHOWN: usize = 100;
    let shown: String = dropped.chars().take(SHOWN).collect();
    let more = if shown.len() < dropped.len() { "…" } else { "" };
    format!("the prompt is longer than the {length} tokens that the text encoder takes; cut off: \"{shown}{more}\"")
}
