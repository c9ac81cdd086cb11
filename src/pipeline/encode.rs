//! Prompts to hidden states.

use super::guidance::Branch;
use super::plans::{Key, PlanCache};
use super::{Models, TextEncoder};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::executor::{Data, Executor};
use crate::graph::Rate;

/// Runs the text encoders over one prompt and writes what the UNet reads of it. Gives a warning, if the prompt was cut.
pub(super) async fn encode_prompt(
    executor: &Executor,
    models: &Models,
    plans: &PlanCache,
    prompt: &str,
    into: &Branch,
    cancel: &CancelToken,
) -> Result<Option<String>> {
    let mut warning = None;
    for (TextEncoder { tokenizer, model }, hidden) in models.text_encoders.iter().zip(&into.texts) {
        let tokens = tokenizer.encode(prompt);
        let text = plans.get(executor, Key::text(&model.config, tokens.ids.len())).await?;
        executor.write(&text.instance, "input_ids", 0, Data::U32(&tokens.ids))?;
        executor
            .run(&text.instance, &model.weights, Rate::Prompt, 0, 0, cancel)
            .await?;
        let view = |output| executor.view(&text.instance, text.plan.output(output)?, 0);
        executor.combine(hidden, &[(view("hidden_states")?, 1.0)], None)?;
        let length = tokens.ids.len();
        if let (Some(pooled), Some(_)) = (&into.pooled, model.config.projection_dim) {
            let embeds = view("text_embeds")?.part(model.config.pooled_token(&tokens.ids), length);
            executor.combine(pooled, &[(embeds, 1.0)], None)?;
        }
        warning = warning.or(tokens.dropped.map(|dropped| cut_off(&dropped, length)));
    }
    Ok(warning)
}

/// What stands for a text where there is none.
pub(super) fn encode_nothing(executor: &Executor, into: &Branch) -> Result<()> {
    (into.texts.iter().chain(&into.pooled)).try_for_each(|view| executor.fill(view, &vec![0.0; view.len]))
}

fn cut_off(dropped: &str, length: usize) -> String {
    const SHOWN: usize = 100;
    let shown: String = dropped.chars().take(SHOWN).collect();
    let more = if shown.len() < dropped.len() { "…" } else { "" };
    format!("the prompt is longer than the {length} tokens that the text encoder takes; cut off: \"{shown}{more}\"")
}
