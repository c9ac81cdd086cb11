//! `CLIPTextModel` of transformers: token ids → hidden states after the final norm.
//! Radford et al., *Learning Transferable Visual Models From Natural Language Supervision* (2021).

use super::config::Config;
use crate::error::{Error, Result};
use crate::graph::{Activation, Element, Graph, Op, Pack, Path, Rate};
use crate::nn;
use serde_json::Value;

/// `text_encoder/config.json`.
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
        let config = Self {
            vocab_size: c.size("vocab_size", 49408)?,
            max_position_embeddings: c.size("max_position_embeddings", 77)?,
            hidden_size: c.required("hidden_size")?,
            intermediate_size: c.required("intermediate_size")?,
            num_hidden_layers: c.required("num_hidden_layers")?,
            num_attention_heads: c.required("num_attention_heads")?,
            hidden_act: c.activation("hidden_act", "quick_gelu")?,
            layer_norm_eps: c.float("layer_norm_eps", 1e-5)?,
        };
        if config.num_hidden_layers > 256 {
            return Err(Error::Corrupt(format!(
                "num_hidden_layers: expected at most 256, found {}",
                config.num_hidden_layers
            )));
        }
        Ok(config)
    }

    /// The graph for `batch` prompts of `tokens` ids each: `input_ids [batch, tokens]` → `last_hidden_state [batch, tokens, hidden_size]`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where the config's sizes do not fit together.
    pub fn graph(&self, batch: usize, tokens: usize) -> Result<Graph> {
        let mut graph = Graph::new();
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
        g.output("last_hidden_state", x);
        Ok(graph)
    }
}
