"""Writes tests/golden/samplers.safetensors: whole trajectories of diffusers' schedulers over a made-up model.

The metadata entry "cases" lists, for each tensor, the scheduler's configuration, the class it is run by, the steps, the
first sample's scale and the timesteps. A tensor holds the sample after each step: [steps, 64] in f32. The first sample
and the noise of the steps come from torch.Generator("cpu").manual_seed(42), 4x4x4 numbers at a time.

A case with `skipped` begins with an image, as the pipelines for images do: the clean latents come first from the
generator, then the noise that `add_noise` adds to them. So many of its steps are left out. Of a case that is `masked`
every third number stays the image's, noised again after each step.
"""

import inspect

import diffusers
import numpy as np
import torch
from common import GOLDEN, write

SEED = 42
SHAPE = (1, 4, 4, 4)
STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
DDIM, DDPM, PNDM = "DDIMScheduler", "DDPMScheduler", "PNDMScheduler"
EULER, EULER_A, DPM = "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler"
UNIPC, DEIS = "UniPCMultistepScheduler", "DEISMultistepScheduler"
EPSILON, V, SAMPLE = ({"prediction_type": p} for p in ("epsilon", "v_prediction", "sample"))
LINSPACE, LEADING, TRAILING = ({"timestep_spacing": s} for s in ("linspace", "leading", "trailing"))
HEUN, LCM, TCD = "HeunDiscreteScheduler", "LCMScheduler", "TCDScheduler"
KARRAS = {"use_karras_sigmas": True}
NO_CLIP = {"clip_sample": False}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
SDE = {"algorithm_type": "sde-dpmsolver++"}
SIGMA_MIN = {"final_sigmas_type": "sigma_min"}
OFFSET = {"steps_offset": 1}
PLMS = {"skip_prk_steps": True}


def cases() -> list[tuple[str, dict, list[int], str | None]]:
    """(class of the configuration, its keys with `eta`, steps, class that runs it where that is another)"""
    some = [1, 4, 20]
    sd = STABLE_DIFFUSION
    return [
        (DDIM, {}, some, None),
        (DDIM, sd | EPSILON | LEADING | OFFSET | NO_CLIP | {"set_alpha_to_one": False}, some, None),
        (DDIM, sd | V | TRAILING | NO_CLIP, some, None),
        (DDIM, sd | V | LINSPACE | {"clip_sample_range": 1.5}, [4], None),
        (DDIM, sd | SAMPLE | LEADING, [4], None),
        (DDIM, sd | V | TRAILING | NO_CLIP | {"rescale_betas_zero_snr": True}, [4, 20], None),
        (DDIM, {"num_train_timesteps": 5, "trained_betas": [0.1, 0.2, 0.3, 0.4, 0.5]}, [3], None),
        (DDPM, {}, some, None),
        (DDPM, sd | EPSILON | LEADING | OFFSET | NO_CLIP, some, None),
        (DDPM, sd | V | TRAILING | {"variance_type": "fixed_large"}, [1, 4], None),
        (DDPM, COSINE | V | LINSPACE | {"variance_type": "fixed_small_log", "clip_sample_range": 2.0}, [4], None),
        (DDPM, sd | SAMPLE | NO_CLIP, [4], None),
        (EULER, sd | EPSILON | LINSPACE, some, None),
        (EULER, sd | EPSILON | LEADING | OFFSET, some, None),
        (EULER, sd | V | TRAILING, some, None),
        (EULER, sd | V | LINSPACE | KARRAS, some, None),
        (EULER, sd | EPSILON | LEADING | OFFSET | {"interpolation_type": "log_linear"}, [4], None),
        (EULER, sd | EPSILON | LINSPACE | {"final_sigmas_type": "sigma_min"}, [4], None),
        (EULER, sd | V | LINSPACE | KARRAS | {"timestep_type": "continuous", "sigma_min": 0.05, "sigma_max": 20.0}, [4], None),
        (EULER, sd | SAMPLE | LINSPACE, [4], None),
        (DPM, sd | EPSILON | LINSPACE, some, None),
        (DPM, sd | V | LINSPACE | OFFSET, some, None),
        (DPM, sd | EPSILON | LEADING | OFFSET | KARRAS, some, None),
        (DPM, sd | V | LINSPACE | KARRAS, [4, 20], None),
        (DPM, sd | EPSILON | LEADING | OFFSET, [4, 20], None),
        (DPM, sd | V | TRAILING, [4, 20], None),
        (DPM, sd | V | LINSPACE | {"solver_type": "heun"}, [4, 20], None),
        (DPM, sd | EPSILON | LINSPACE | {"solver_order": 1}, [4], None),
        (DPM, sd | EPSILON | LINSPACE | {"final_sigmas_type": "sigma_min"}, [4, 20], None),
        (DPM, sd | EPSILON | LINSPACE | {"final_sigmas_type": "sigma_min", "lower_order_final": False}, [4], None),
        (DPM, sd | V | LINSPACE | {"final_sigmas_type": "sigma_min", "euler_at_final": True}, [16], None),
        (DPM, COSINE | EPSILON | LINSPACE | {"lambda_min_clipped": -5.1}, [4, 20], None),
        (DPM, COSINE | V | TRAILING | {"lambda_min_clipped": -5.1}, [4], None),
        (DPM, COSINE | V | LINSPACE | KARRAS, [4], None),
        (DPM, sd | SAMPLE | LINSPACE, [4], None),
        (EULER_A, sd | EPSILON | TRAILING, [1, 4, 20], None),
        (EULER_A, sd | V | LEADING | OFFSET, [4], None),
        (EULER_A, sd | V | LINSPACE, [4], None),
        (PNDM, sd | EPSILON | PLMS | OFFSET | {"set_alpha_to_one": False}, [1, 2, 4, 20], None),
        (PNDM, sd | V | PLMS | TRAILING | {"set_alpha_to_one": True}, [4, 6], None),
        (PNDM, sd | EPSILON | PLMS | LINSPACE, [8], None),
        (PNDM, sd | EPSILON | PLMS | OFFSET | NO_CLIP, [4], EULER_A),
        (DDIM, sd | V | NO_CLIP | LEADING | OFFSET, [4], EULER),
        (DDIM, sd | EPSILON | NO_CLIP, [4], DPM),
        (DPM, sd | V | KARRAS, [4], EULER),
        (EULER, sd | V, [4], DDPM),
        (DPM, sd | EPSILON | OFFSET, [4], DDIM),
        # Two of these steps go from σ 25 to 0.03: diffusers divides the rounding of the first by the second, and is off
        # from itself in f64 by 5e-5.
        (HEUN, {}, [1, 4], None),
        (HEUN, sd | EPSILON | LEADING | OFFSET, [1, 2, 4, 20], None),
        (HEUN, sd | V | TRAILING, [1, 2, 4], None),
        (HEUN, sd | V | LINSPACE | KARRAS, [1, 2, 4, 20], None),
        (HEUN, sd | EPSILON | TRAILING | {"clip_sample": True, "clip_sample_range": 1.5}, [4], None),
        (HEUN, sd | SAMPLE | LINSPACE, [4], None),
        (HEUN, COSINE | V | LEADING | KARRAS, [4], None),
        (EULER, sd | V | KARRAS | {"sigma_min": 0.05, "sigma_max": 20.0, "rescale_betas_zero_snr": True}, [4], HEUN),
        (LCM, {}, [1, 2, 4, 20], None),
        (LCM, sd | V | TRAILING | OFFSET | {"set_alpha_to_one": False}, [1, 2, 4], None),
        (LCM, sd | SAMPLE | {"original_inference_steps": 1000, "timestep_scaling": 0.01}, [7, 20], None),
        (LCM, sd | EPSILON | {"clip_sample": True, "clip_sample_range": 1.5, "original_inference_steps": 7}, [2, 4, 5], None),
        (LCM, sd | V | {"rescale_betas_zero_snr": True}, [4], None),
        (LCM, {"num_train_timesteps": 8, "original_inference_steps": 8, "beta_end": 0.1, "timestep_scaling": 0.1}, [8], None),
        (PNDM, PLMS | EPSILON | OFFSET, [4], LCM),
        (TCD, {}, [1, 2, 4, 20], None),
        (TCD, sd | EPSILON | TRAILING | OFFSET | {"eta": 0.0, "set_alpha_to_one": False}, [1, 2, 4, 20], None),
        (TCD, sd | V | {"eta": 1.0, "original_inference_steps": 30}, [1, 2, 4], None),
        (TCD, sd | V | {"eta": 0.3, "rescale_betas_zero_snr": True, "timestep_scaling": 3.0}, [4], None),
        (TCD, sd | SAMPLE | {"eta": 0.7, "original_inference_steps": 1000, "clip_sample": True}, [7, 20], None),
        (DDIM, NO_CLIP | V | LEADING, [4], TCD),
        (UNIPC, {}, [1, 2, 4, 20], None),
        (UNIPC, sd | EPSILON | LEADING | OFFSET, [2, 4, 20], None),
        (UNIPC, sd | V | TRAILING | {"solver_order": 3}, [1, 2, 4, 20], None),
        (UNIPC, sd | EPSILON | KARRAS, [1, 4, 20], None),
        (UNIPC, sd | V | KARRAS | {"solver_order": 3, "sigma_min": 0.05, "sigma_max": 12.0}, [4], None),
        (UNIPC, sd | V | KARRAS | SIGMA_MIN, [4, 20], None),
        (UNIPC, sd | EPSILON | SIGMA_MIN | {"solver_type": "bh1"}, [1, 2, 4, 20], None),
        (UNIPC, sd | V | SIGMA_MIN | {"solver_type": "bh1", "solver_order": 3}, [4, 20], None),
        (UNIPC, sd | EPSILON | SIGMA_MIN | {"predict_x0": False}, [1, 2, 4, 20], None),
        (UNIPC, sd | V | SIGMA_MIN | {"predict_x0": False, "solver_type": "bh1"}, [4], None),
        (UNIPC, sd | SAMPLE | SIGMA_MIN | TRAILING | {"predict_x0": False, "solver_order": 3}, [4], None),
        (UNIPC, sd | SAMPLE | {"solver_order": 1}, [1, 4], None),
        (UNIPC, sd | SIGMA_MIN | {"solver_order": 3, "lower_order_final": False}, [4], None),
        (UNIPC, sd | V | {"disable_corrector": [0, 2]}, [4, 20], None),
        (UNIPC, sd | {"disable_corrector": [0, 1], "solver_order": 3}, [4], None),
        (UNIPC, sd | V | TRAILING | {"rescale_betas_zero_snr": True}, [4, 20], None),
        (UNIPC, COSINE | V | KARRAS, [4], None),
        (DEIS, {}, [1, 2, 4, 20], None),
        (DEIS, sd | EPSILON | LEADING | OFFSET, [2, 4, 20], None),
        (DEIS, sd | V | TRAILING | {"solver_order": 3}, [2, 4], None),
        (DEIS, sd | EPSILON | KARRAS, [1, 4, 20], None),
        (DEIS, sd | V | KARRAS | {"solver_order": 3, "sigma_min": 0.05, "sigma_max": 12.0}, [4], None),
        (DEIS, sd | SAMPLE | {"solver_order": 1}, [4], None),
        (DEIS, sd | SAMPLE | {"solver_order": 3, "lower_order_final": False}, [4], None),
        (DEIS, sd | V | {"rescale_betas_zero_snr": True, "final_sigmas_type": "zero"}, [4], None),
        (DEIS, COSINE | V | LEADING, [4], None),
        (DPM, sd | V | KARRAS, [4], UNIPC),
        (DPM, sd | EPSILON | {"solver_order": 3}, [1, 2, 4, 20], None),
        (DPM, sd | V | TRAILING | SIGMA_MIN | {"solver_order": 3, "lower_order_final": False}, [4], None),
        (DPM, sd | EPSILON | KARRAS | SDE, [1, 2, 4, 20], None),
        (DPM, sd | V | LEADING | OFFSET | SDE | {"solver_type": "heun"}, [4], None),
        (DPM, sd | V | SDE | {"solver_order": 3}, [4, 20], None),
        (DPM, sd | SAMPLE | SIGMA_MIN | SDE | {"solver_order": 1}, [4], None),
        (DPM, sd | EPSILON | SIGMA_MIN | {"algorithm_type": "dpmsolver"}, [2, 4], None),
        (DPM, sd | V | SIGMA_MIN | {"algorithm_type": "dpmsolver", "solver_type": "heun"}, [4], None),
        (DPM, sd | V | SIGMA_MIN | {"algorithm_type": "dpmsolver", "solver_order": 3}, [6], None),
        (DPM, sd | V | SIGMA_MIN | {"algorithm_type": "sde-dpmsolver"}, [4], None),
        (DPM, sd | V | SIGMA_MIN | {"algorithm_type": "sde-dpmsolver", "solver_type": "heun"}, [4], None),
        (DPM, sd | V | {"solver_type": "heun"}, [4], DEIS),
        (UNIPC, sd | V | {"solver_order": 2}, [4], DPM),
        (DEIS, sd | V, [4], UNIPC),
    ]


def exact_cases() -> list[tuple[str, dict, list[int], str | None]]:
    """Here diffusers' own coefficients are off by more than the tests allow: they are differences of large numbers in f32
    (the samples are off by up to 2e-5). It is given its sigmas in f64."""
    sd = STABLE_DIFFUSION
    return [
        (DEIS, sd | V | TRAILING | {"solver_order": 3}, [1, 20], None),
        (DEIS, sd | V | KARRAS | {"solver_order": 3, "sigma_min": 0.05, "sigma_max": 12.0}, [20], None),
        (DEIS, sd | SAMPLE | {"solver_order": 1}, [1], None),
    ]


def image_cases() -> list[tuple[str, dict, list[tuple[int, int]]]]:
    """(class, its keys with `eta`, steps and how many of them are left out)"""
    sd = STABLE_DIFFUSION
    few = [(4, 1), (5, 3)]
    return [
        (DDIM, sd | EPSILON | LEADING | OFFSET | NO_CLIP, few),
        (DDIM, sd | V | TRAILING | NO_CLIP | {"rescale_betas_zero_snr": True}, [(4, 0), (4, 2)]),
        (DDPM, sd | EPSILON | LEADING | OFFSET | NO_CLIP, few),
        (DDPM, sd | V | TRAILING, [(6, 2)]),
        (EULER, sd | EPSILON | LINSPACE, few),
        (EULER, sd | V | LEADING | OFFSET, [(4, 0)]),
        (EULER, sd | V | KARRAS, [(5, 2)]),
        (EULER_A, sd | EPSILON | LEADING | OFFSET, few),
        (HEUN, sd | EPSILON | LEADING | OFFSET, few),
        (HEUN, sd | V | KARRAS, [(6, 3)]),
        (LCM, sd | EPSILON, few),
        (TCD, sd | EPSILON | {"eta": 0.0}, few),
        (TCD, sd | V | {"eta": 0.3}, [(4, 2)]),
        (PNDM, sd | EPSILON | PLMS | OFFSET | {"set_alpha_to_one": False}, [(4, 0), (4, 1), (6, 2), (7, 3), (3, 2)]),
        (PNDM, sd | V | PLMS | TRAILING, [(8, 2)]),
        (DPM, sd | EPSILON | LINSPACE, [(4, 1), (6, 3), (20, 9)]),
        (DPM, sd | V | KARRAS, [(5, 2)]),
        (DPM, sd | EPSILON | {"solver_order": 3}, [(6, 1), (20, 12)]),
        (DPM, sd | EPSILON | KARRAS | SDE, [(4, 1)]),
        (DPM, sd | V | SIGMA_MIN | {"algorithm_type": "dpmsolver"}, [(5, 2)]),
        (UNIPC, sd | EPSILON | LEADING | OFFSET, [(4, 1), (6, 3)]),
        (UNIPC, sd | V | TRAILING | {"solver_order": 3}, [(7, 2)]),
        (UNIPC, sd | V | {"disable_corrector": [2]}, [(6, 2)]),
        (UNIPC, sd | EPSILON | SIGMA_MIN | {"predict_x0": False}, [(5, 1)]),
        (DEIS, sd | EPSILON | LEADING | OFFSET, [(4, 1), (6, 3)]),
        (DEIS, sd | V | {"solver_order": 3}, [(7, 2)]),
    ]


def model(x: torch.Tensor, t: float) -> torch.Tensor:
    index = np.arange(x.numel()).reshape(x.shape)
    return torch.from_numpy((0.3 * np.tanh(x.numpy().astype(np.float64)) + 0.1 * np.cos(t / 100 + index)).astype(np.float32))


def trajectory(scheduler, steps: int, eta: float | None, exact: bool) -> tuple[float, list[float], np.ndarray]:
    generator = torch.Generator("cpu").manual_seed(SEED)
    scheduler.set_timesteps(steps)
    if exact:
        scheduler.sigmas = scheduler.sigmas.double()
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)  # without it, a first timestep that occurs twice makes diffusers skip a step
    draws = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    if eta is not None:
        draws["eta"] = eta
    sample = torch.randn(SHAPE, generator=generator) * scheduler.init_noise_sigma
    samples = []
    for t in scheduler.timesteps:
        output = model(scheduler.scale_model_input(sample, t), float(t))
        sample = scheduler.step(output, t, sample, **draws).prev_sample.float()
        samples.append(sample.flatten().numpy().copy())
    samples = np.stack(samples)
    assert np.isfinite(samples).all()
    return float(scheduler.init_noise_sigma), [float(t) for t in scheduler.timesteps], samples


def from_image(scheduler, steps: int, eta: float | None, skipped: int, masked: bool) -> tuple[float, list[float], np.ndarray]:
    """A run as `StableDiffusionImg2ImgPipeline` makes it or, where it is masked, `StableDiffusionInpaintPipeline`."""
    generator = torch.Generator("cpu").manual_seed(SEED)
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps[skipped * scheduler.order :]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped * scheduler.order)
    draws = {"generator": generator} if "generator" in inspect.signature(scheduler.step).parameters else {}
    if eta is not None:
        draws["eta"] = eta
    original = torch.randn(SHAPE, generator=generator)
    noise = torch.randn(SHAPE, generator=generator)
    mask = (torch.arange(original.numel()).reshape(SHAPE) % 3 != 0).float()
    sample = scheduler.add_noise(original, noise, timesteps[:1])
    samples = []
    for i, t in enumerate(timesteps):
        output = model(scheduler.scale_model_input(sample, t), float(t))
        sample = scheduler.step(output, t, sample, **draws).prev_sample.float()
        if masked:
            kept = original
            if i < len(timesteps) - 1:
                kept = scheduler.add_noise(original, noise, torch.tensor([timesteps[i + 1]]))
            sample = (1 - mask) * kept + mask * sample
        samples.append(sample.flatten().numpy().copy())
    samples = np.stack(samples)
    assert np.isfinite(samples).all()
    return float(scheduler.init_noise_sigma), [float(t) for t in timesteps], samples


def main() -> None:
    listed, tensors = [], {}
    both = [(False, *case) for case in cases()] + [(True, *case) for case in exact_cases()]
    for exact, class_name, keys, all_steps, run_by in both:
        for steps in all_steps:
            config = {"_class_name": class_name} | keys
            eta = config.pop("eta", None)  # no key of a configuration: it is passed to each step
            scheduler = getattr(diffusers, run_by or class_name).from_config(config)
            sigma, timesteps, samples = trajectory(scheduler, steps, eta, exact)
            name = f"{len(listed):03}"
            tensors[name] = samples
            case = {"name": name, "config": config, "run_by": run_by, "steps": steps}
            case |= {} if eta is None else {"eta": eta}
            listed.append(case | {"init_noise_sigma": sigma, "timesteps": timesteps})
    images = [(*case, how, masked) for case in image_cases() for how in case[2] for masked in (False, True)]
    for class_name, keys, _, (steps, skipped), masked in images:
        config = {"_class_name": class_name} | keys
        eta = config.pop("eta", None)
        scheduler = getattr(diffusers, class_name).from_config(config)
        sigma, timesteps, samples = from_image(scheduler, steps, eta, skipped, masked)
        name = f"{len(listed):03}"
        tensors[name] = samples
        case = {"name": name, "config": config, "steps": steps, "skipped": skipped, "masked": masked}
        case |= {} if eta is None else {"eta": eta}
        listed.append(case | {"init_noise_sigma": sigma, "timesteps": timesteps})
    write(GOLDEN / "samplers.safetensors", tensors, ("cases", listed))


if __name__ == "__main__":
    main()
