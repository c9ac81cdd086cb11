//! Classifier-free guidance: the model runs without and with the prompt, in one batch of two or in two passes.
//! Ho and Salimans, *Classifier-Free Diffusion Guidance* (2022).

use super::Models;
use super::plans::{Key, PlanCache, Prepared, schedule_rows};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::executor::{Data, Executor, View};
use crate::graph::Rate;

/// The UNet of a run, ready to be stepped.
pub(super) struct Denoiser<'a> {
    executor: &'a Executor,
    models: &'a Models,
    unet: Prepared,
    contexts: usize,
    rows: usize,
    timesteps: Vec<f32>,
    /// Where the model's input is written, once a branch (the negative prompt first).
    pub(super) inputs: Vec<View>,
    /// Where each branch's text goes.
    pub(super) texts: Vec<View>,
    /// What the model answered, once a branch.
    pub(super) outputs: Vec<View>,
}

impl<'a> Denoiser<'a> {
    /// Prepares the UNet for latents of `[height, width]`, one branch or two.
    pub(super) async fn new(
        executor: &'a Executor,
        models: &'a Models,
        plans: &PlanCache,
        size: [usize; 2],
        timesteps: Vec<f32>,
        branches: usize,
    ) -> Result<Self> {
        let (batch, contexts) = executor.batch_and_contexts(branches);
        let (tokens, rows) = (models.tokenizer.length(), schedule_rows(timesteps.len()));
        let key = Key::unet(executor, &models.unet.config, size, tokens, timesteps.len(), branches);
        let unet = plans.get(executor, key).await?;
        let views = |value| -> Result<Vec<View>> {
            let mut views = Vec::new();
            for context in 0..contexts {
                let view = executor.view(&unet.instance, value, context)?;
                views.extend((0..batch).map(|b| view.part(b, batch)));
            }
            Ok(views)
        };
        let inputs = views(unet.plan.input("sample")?)?;
        let texts = views(unet.plan.input("encoder_hidden_states")?)?;
        let outputs = views(unet.plan.output("sample")?)?;
        Ok(Self {
            executor,
            models,
            unet,
            contexts,
            rows,
            timesteps,
            inputs,
            texts,
            outputs,
        })
    }

    /// Does what is done once a prompt. The texts must have been written.
    pub(super) async fn start(&self, cancel: &CancelToken) -> Result<()> {
        self.run(Rate::Prompt, 0, cancel).await
    }

    /// Runs the model for step `index`. The inputs must have been written.
    pub(super) async fn step(&self, index: usize, cancel: &CancelToken) -> Result<()> {
        let row = index % self.rows;
        if row == 0 {
            let rest = &self.timesteps[index..];
            for context in 0..self.contexts {
                let data = Data::F32(&rest[..rest.len().min(self.rows)]);
                self.executor.write(&self.unet.instance, "timesteps", context, data)?;
            }
            self.run(Rate::Schedule, 0, cancel).await?;
        }
        self.run(Rate::Step, row, cancel).await
    }

    async fn run(&self, rate: Rate, row: usize, cancel: &CancelToken) -> Result<()> {
        for context in 0..self.contexts {
            self.executor
                .run(
                    &self.unet.instance,
                    &self.models.unet.weights,
                    rate,
                    context,
                    row,
                    cancel,
                )
                .await?;
        }
        Ok(())
    }
}
