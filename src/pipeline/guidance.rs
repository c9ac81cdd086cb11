//! Classifier-free guidance: the model runs without and with the prompt, in one batch of two or in two passes.
//! Ho and Salimans, *Classifier-Free Diffusion Guidance* (2022).

use super::Models;
use super::plans::{Key, PlanCache, Prepared, schedule_rows};
use crate::cancel::CancelToken;
use crate::error::Result;
use crate::executor::{Data, Executor, View};
use crate::graph::Rate;
use crate::models::unet::{UnetConfig, guidance_embedding};

/// One run of the UNet a step: without the prompt, or with it.
pub(super) struct Branch {
    /// Where the model's input is written.
    pub(super) input: View,
    /// Where the hidden states of each text encoder go.
    pub(super) texts: Vec<View>,
    /// Where the vector for the whole text goes, if the model reads one.
    pub(super) pooled: Option<View>,
    /// Where the mask and the latents of what stays go, if the model paints into pictures.
    condition: Option<View>,
    /// What the model answered.
    pub(super) output: View,
}

/// The UNet of a run, ready to be stepped.
pub(super) struct Denoiser<'a> {
    executor: &'a Executor,
    models: &'a Models,
    pub(super) unet: Prepared,
    pub(super) contexts: usize,
    rows: usize,
    timesteps: Vec<f32>,
    /// Those of guidance, the negative prompt's first.
    pub(super) branches: Vec<Branch>,
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
        let config = &models.unet.config;
        let (tokens, rows) = (models.tokens(), schedule_rows(timesteps.len()));
        let key = plans.fitting(Key::unet(executor, config, size, tokens, timesteps.len(), branches));
        let (batch, contexts) = (key.batch(), key.contexts());
        let unet = plans.get(executor, key).await?;
        let mut branches = Vec::new();
        for (context, part) in (0..contexts).flat_map(|context| (0..batch).map(move |part| (context, part))) {
            let view = |value| Ok(executor.view(&unet.instance, value, context)?.part(part, batch));
            let texts = (0..config.texts.len()).map(|i| view(unet.plan.input(&UnetConfig::text_input(i))?));
            let pooled = config.text_time.map(|_| view(unet.plan.input("text_embeds")?));
            let condition = config.inpaints().then(|| view(unet.plan.input("condition")?));
            branches.push(Branch {
                input: view(unet.plan.input("sample")?)?,
                texts: texts.collect::<Result<_>>()?,
                pooled: pooled.transpose()?,
                condition: condition.transpose()?,
                output: view(unet.plan.output("sample")?)?,
            });
        }
        Ok(Self {
            executor,
            models,
            unet,
            contexts,
            rows,
            timesteps,
            branches,
        })
    }

    /// Writes what a model that paints into pictures reads beside latents.
    pub(super) fn set_condition(&self, condition: &[f32]) -> Result<()> {
        let views = self.branches.iter().filter_map(|branch| branch.condition.as_ref());
        views
            .into_iter()
            .try_for_each(|view| self.executor.fill(view, condition))
    }

    /// Does what is done once a prompt. Texts and condition must have been written. `size` is the picture's height and width.
    pub(super) async fn start(&self, guidance_scale: f32, size: [usize; 2], cancel: &CancelToken) -> Result<()> {
        let config = &self.models.unet.config;
        let scale = config
            .time_cond_proj_dim
            .map(|dim| guidance_embedding(guidance_scale, dim));
        // The original picture and the part of it are what is drawn.
        let [height, width] = size.map(|n| n as f32);
        let time_ids = config.text_time.map(|_| [height, width, 0.0, 0.0, height, width]);
        for context in 0..self.contexts {
            let write = |name, data| self.executor.write(&self.unet.instance, name, context, Data::F32(data));
            scale.iter().try_for_each(|data| write("timestep_cond", data))?;
            time_ids.iter().try_for_each(|data| write("time_ids", data))?;
        }
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

    pub(super) async fn run(&self, rate: Rate, row: usize, cancel: &CancelToken) -> Result<()> {
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
