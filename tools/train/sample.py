"""Drawing: prompts and seeds to pictures, as the pipeline of diffusers does it, many at once."""

import torch
from diffusers import DPMSolverMultistepScheduler, LCMScheduler

from .common import autocast, device, on_gpu
from .models import LATENTS
from .tokenizer import encode

STEPS, GUIDANCE = 20, 3.0
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"}


def teacher_scheduler():
    return DPMSolverMultistepScheduler(**BETAS, steps_offset=1, algorithm_type="dpmsolver++", solver_order=2, timestep_spacing="trailing")


def student_scheduler():
    """Where the steps are those that students learned."""
    return LCMScheduler(**BETAS)


@torch.no_grad()
def contexts(text_encoder, tokenizer, prompts):
    """Each distinct prompt is encoded once: [len(prompts), tokens, width]."""
    distinct = list(dict.fromkeys(prompts))
    ids = encode(tokenizer, distinct).to(device())
    states = torch.cat([text_encoder(part).last_hidden_state for part in ids.split(256)])
    return states[torch.tensor([distinct.index(p) for p in prompts], device=states.device)]


def noise(generators):
    """What the pipeline draws with generators of the CPU."""
    return torch.cat([torch.randn(1, *LATENTS, generator=g) for g in generators]).to(device())


@torch.no_grad()
def denoise(unet, context, empty, latents, scheduler, steps, guidance, classes=None, keep=None, generators=None):
    """From noise to latents in so many steps, or by these timesteps. `keep(i, latents)` sees what goes into step i."""
    asked = {"timesteps": steps} if isinstance(steps, list) else {"num_inference_steps": steps}
    scheduler.set_timesteps(**asked, device=latents.device)
    latents = latents * scheduler.init_noise_sigma
    guided = guidance > 1
    if guided:
        context = torch.cat([empty.expand_as(context), context])
        classes = None if classes is None else torch.cat([classes, classes])
    for i, t in enumerate(scheduler.timesteps):
        if keep:
            keep(i, latents)
        seen = scheduler.scale_model_input(latents, t)
        seen = torch.cat([seen, seen]) if guided else seen
        with autocast():
            v = unet(seen, t, context, class_labels=classes).sample
        v = v.float()
        if guided:
            without, told = v.chunk(2)
            v = without + guidance * (told - without)
        latents = scheduler.step(v, t, latents, generator=generators, return_dict=False)[0]
    return latents


@torch.no_grad()
def pictures(parts, prompts, seeds, style=None, steps=STEPS, guidance=GUIDANCE, scheduler=None):
    """[N, 3, 128, 128] in 0..1. `parts`: unet, text_encoder, tokenizer, vae. `style` for a base, which knows several."""
    size = 512 if on_gpu() else 32
    made = []
    for start in range(0, len(prompts), size):
        words = prompts[start : start + size]
        both = contexts(parts["text_encoder"], parts["tokenizer"], ["", *words])
        classes = None
        if style is not None:
            classes = torch.tensor(style[start : start + size], device=device())
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + size]]
        latents = denoise(
            parts["unet"], both[1:], both[:1], noise(generators), scheduler or teacher_scheduler(), steps, guidance, classes,
            generators=generators,
        )  # fmt: skip
        decoded = [parts["vae"].decoder(l) for l in (latents / parts["vae"].config.scaling_factor).split(64)]
        made.append((torch.cat(decoded) / 2 + 0.5).clamp(0, 1))
    return torch.cat(made)
