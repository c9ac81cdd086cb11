//! `CLIPTextModel` and `CLIPTextModelWithProjection` of transformers: token ids → hidden states, and one vector for the whole text.
//! Radford et al., *Learning Transferable Visual Models From Natural Language Supervision* (2021).

use super::config::Config;
use crate::error::{Error, Result};
use crate::graph::{Activation, Element, Graph, Op, Pack, Path, Rate};
use crate::nn;
use serde_json::Value;

/// Which hidden states a pipeline reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// Those of the last layer, after the final norm.
    Last,
    /// Those that go into the last layer, without a norm (transformers' `hidden_states[-2]`).
    Penultimate,
}

/// `text_encoder/config.json`, and what a pipeline reads.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipTextConfig {
    /// Rows of the token table.
    pub vocab_size: usize,
    /// Longest prompt, in tokens.
    pub max_position_embeddings: usize,
    /// Channels.
    pub hidden_size: usize,
    /// Channels inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads.
    pub num_attention_heads: usize,
    /// Activation of the feed-forward layers.
    pub hidden_act: Activation,
    /// Added to the variance in norms.
    pub layer_norm_eps: f32,
    /// The token that ends a text: the vector for the whole text is taken there.
    pub eos_token_id: u32,
    /// Channels of that vector, if the class is `CLIPTextModelWithProjection`.
    pub projection_dim: Option<usize>,
    /// Not in the file, but the pipeline's: [`Hidden::Last`], until a caller knows better.
    pub hidden: Hidden,
}

impl ClipTextConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for missing or malformed keys, [`Error::Unsupported`] for values that are not implemented.
    pub fn from_json(json: &Value) -> Result<Self> {
        let c = Config::new(json)?;
        // diffusers then masks the padding of a prompt.
        c.only("use_attention_mask", &[false.into()])?;
        let with_projection = json["architectures"][0] == "CLIPTextModelWithProjection";
        let config = Self {
            vocab_size: c.size("vocab_size", 49408)?,
            max_position_embeddings: c.size("max_position_embeddings", 77)?,
            hidden_size: c.required("hidden_size")?,
            intermediate_size: c.required("intermediate_size")?,
            num_hidden_layers: c.required("num_hidden_layers")?,
            num_attention_heads: c.required("num_attention_heads")?,
            hidden_act: c.activation("hidden_act", "quick_gelu")?,
            layer_norm_eps: c.float("layer_norm_eps", 1e-5)?,
            eos_token_id: c.token("eos_token_id", 49407)?,
            projection_dim: with_projection.then(|| c.size("projection_dim", 512)).transpose()?,
            hidden: Hidden::Last,
        };
        if config.num_hidden_layers > 256 {
            return Err(Error::Corrupt(format!(
                "num_hidden_layers: expected at most 256, found {}",
                config.num_hidden_layers
            )));
        }
        Ok(config)
    }

    /// Which token of a text its `text_embeds` are taken at, as transformers has it.
    pub fn pooled_token(&self, ids: &[u32]) -> usize {
        // Configs from before transformers 4.31 have 2, which no tokenizer gives: the end token is taken to be the highest.
        let end = match self.eos_token_id {
            2 => ids.iter().max().copied().unwrap_or(0),
            end => end,
        };
        ids.iter().position(|&id| id == end).unwrap_or(0)
    }

    /// The graph for `batch` prompts of `tokens` ids each: `input_ids [batch, tokens]` → `hidden_states [batch, tokens, hidden_size]`,
    /// and with a projection `text_embeds [batch, tokens, projection_dim]`. A text has the one of [`Self::pooled_token`]; those of
    /// all tokens cost next to nothing, and spare an operation that picks.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the config's sizes do not fit together.
    pub fn graph(&self, batch: usize, tokens: usize) -> Result<Graph> {
        let mut graph = Graph::new();
        graph.stand_half();
        let (g, p) = (&mut graph, Path::root());
        let ids = g.input("input_ids", [batch, tokens], Element::U32, Rate::Prompt);
        let e = p.pp("embeddings");
        let table = |name: &str| e.pp(name).pp("weight").name().to_owned();
        let params = [
            g.param(
                Pack::Table,
                [(table("token_embedding"), vec![self.vocab_size, self.hidden_size])],
            ),
            g.param(
                Pack::Table,
                [(
                    table("position_embedding"),
                    vec![self.max_position_embeddings, self.hidden_size],
                )],
            ),
        ];
        let mut x = g.op(&e, Op::Embedding, &[ids], &params)?;
        for i in 0..self.num_hidden_layers {
            if self.hidden == Hidden::Penultimate && i + 1 == self.num_hidden_layers {
                g.output("hidden_states", x);
                if self.projection_dim.is_none() {
                    return Ok(graph);
                }
            }
            let l = p.pp("encoder").pp("layers").pp(i);
            let h = nn::layer_norm(g, &l.pp("layer_norm1"), x, self.layer_norm_eps)?;
            let a = l.pp("self_attn");
            let h = nn::self_attention(
                g,
                &a,
                h,
                self.num_attention_heads,
                ["q_proj", "k_proj", "v_proj"],
                true,
                true,
            )?;
            let h = nn::linear(g, &a.pp("out_proj"), h, self.hidden_size)?;
            x = nn::add(g, &l, x, h)?;
            let h = nn::layer_norm(g, &l.pp("layer_norm2"), x, self.layer_norm_eps)?;
            let h = nn::linear(g, &l.pp("mlp").pp("fc1"), h, self.intermediate_size)?;
            let h = nn::activation(g, &l.pp("mlp"), h, self.hidden_act)?;
            let h = nn::linear(g, &l.pp("mlp").pp("fc2"), h, self.hidden_size)?;
            x = nn::add(g, &l, x, h)?;
        }
        let x = nn::layer_norm(g, &p.pp("final_layer_norm"), x, self.layer_norm_eps)?;
        if self.hidden == Hidden::Last {
            g.output("hidden_states", x);
        }
        if let Some(channels) = self.projection_dim {
            let x = nn::linear_without_bias(g, &p.pp("text_projection"), x, channels)?;
            g.output("text_embeds", x);
        }
        Ok(graph)
    }
}
