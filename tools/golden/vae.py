"""Autoencoders that take the place of a checkpoint's own, in the forms in which they are published, and the pictures that diffusers
draws with them.

tests/golden/vae/: `kl/` and `taesd/`, diffusers' folders, the first one also in halves; `kl-ldm.safetensors`, the first one in the names of the original code, with what
training leaves in a file; `kl-old.safetensors`, in diffusers' names of before 0.17; `taesd_decoder.safetensors` and
`taesd_encoder.safetensors`, the second one in its author's names. expected.safetensors: `<checkpoint>/<autoencoder>` u8 [height, width, 3];
`kl-file` is what a file without a configuration is taken to be. The size of a picture is that of the latents, times the factor.
`<checkpoint>/<autoencoder>/over` is drawn over `image/<autoencoder>`, as asked for in the metadata entry "over".
"""

import json

import numpy as np
import torch
from common import GOLDEN, fresh, write
from diffusers import AutoencoderKL, AutoencoderTiny, AutoPipelineForImage2Image, DiffusionPipeline
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from images import draw as draw_over
from images import floats, spread_latents, test_image
from pipelines import draw, spread_picture, vae_kl, vae_tiny
from safetensors.torch import load_file
from single_files import inverted
from single_files import vae as ldm_names

HERE = GOLDEN / "vae"
BASES = ["sd1-ddim", "sdxl"]
OVER = dict(prompt="red apple", negative_prompt="", steps=5, guidance_scale=2.5, strength=0.6, seed=3)
OLDER = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def asked(base, factor):
    case = json.loads((GOLDEN / "pipelines" / base / "case.json").read_text())
    # Both draw with an autoencoder of factor 4.
    return {**case, "width": case["width"] // 4 * factor, "height": case["height"] // 4 * factor}


def load(base, vae):
    folder = GOLDEN / "pipelines" / base
    pipe = DiffusionPipeline.from_pretrained(folder, vae=vae, dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def original(name):
    """The name that TAESD's author has for a tensor: the decoder has a layer more, which clamps."""
    side, _, layer, rest = name.split(".", 3)
    return f"{int(layer) + (side == 'decoder')}.{rest}"


def main():
    fresh(HERE)
    made = {
        "kl": vae_kl("elsewhere", block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=4, scaling_factor=0.18215, sample_size=32),
        "taesd": vae_tiny("elsewhere tiny", 8, (1, 2, 1, 3), (2, 3, 1, 1)),
    }
    for name, vae in made.items():
        pipe = load(BASES[0], vae)
        latents, _ = draw(pipe, asked(BASES[0], pipe.vae_scale_factor))
        spread_picture(pipe, latents[-1:].permute(0, 3, 1, 2))
        spread_latents(vae, floats(test_image(name, 64, 64)))
        vae.save_pretrained(HERE / name)
        if name == "kl":
            vae.half().save_pretrained(HERE / name, variant="fp16")
        for file in (HERE / name).iterdir():
            file.chmod(0o644)

    kl = load_file(HERE / "kl" / "diffusion_pytorch_model.safetensors")
    config = json.loads((HERE / "kl" / "config.json").read_text())
    shapes = ldm_names(config)
    names = inverted(shapes, lambda checkpoint: convert_ldm_vae_checkpoint(checkpoint, config))
    ldm = {names[name]: t.reshape(shapes[names[name]]) for name, t in kl.items()}
    assert len(ldm) == len(shapes)
    write(HERE / "kl-ldm.safetensors", {**ldm, "loss.logvar": torch.zeros(1), "model_ema.decay": torch.zeros(1)})
    old = {}
    for name, t in kl.items():
        for now, before in OLDER.items():
            name = name.replace(f"attentions.0.{now}.", f"attentions.0.{before}.")
        old[name] = t
    assert sum(name not in kl for name in old) == 16
    write(HERE / "kl-old.safetensors", old)
    tiny = load_file(HERE / "taesd" / "diffusion_pytorch_model.safetensors")
    for side in ["decoder", "encoder"]:
        write(HERE / f"taesd_{side}.safetensors", {original(name): t for name, t in tiny.items() if name.startswith(side)})

    images = {name: test_image(name, 32, 48) for name in made}
    expected = {f"image/{name}": torch.from_numpy(image) for name, image in images.items()}
    for base in BASES:
        own = 0.13025 if base == "sdxl" else 0.18215
        cases = {
            "kl": AutoencoderKL.from_pretrained(HERE / "kl", dtype=torch.float32),
            "kl-file": AutoencoderKL.from_pretrained(HERE / "kl", dtype=torch.float32, scaling_factor=own),
            "taesd": AutoencoderTiny.from_pretrained(HERE / "taesd", dtype=torch.float32),
        }
        for name, vae in cases.items():
            pipe = load(base, vae)
            _, picture = draw(pipe, asked(base, pipe.vae_scale_factor))
            clipped, spread = ((picture == 0) | (picture == 255)).mean(), picture.astype(float).std((0, 1)).min()
            print(f"{base}, {name}: {picture.shape}, clipped {clipped:.1%}, std {spread:.0f}")
            assert spread > 15 and clipped < 0.3, (base, name)
            expected[f"{base}/{name}"] = torch.from_numpy(picture)
            over = AutoPipelineForImage2Image.from_pipe(pipe)
            over.set_progress_bar_config(disable=True)
            _, picture = draw_over(over, OVER, images[name.removesuffix("-file")], None)
            print(f"  over an image: {picture.shape}, std {picture.astype(float).std((0, 1)).min():.0f}")
            expected[f"{base}/{name}/over"] = torch.from_numpy(picture)
        far = np.abs(expected[f"{base}/kl"].numpy().astype(int) - expected[f"{base}/kl-file"].numpy()).mean()
        assert (far > 1) == (base == "sdxl"), far
    write(HERE / "expected.safetensors", expected, ("over", OVER))


if __name__ == "__main__":
    main()
