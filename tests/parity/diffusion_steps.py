"""Schedules, steps, loops and losses of diffusion: adapters that files of `adm`, `ldm` and `dalle2` take in."""

import math
from collections.abc import Callable
from functools import partial

import torch
from fixture import gradients, inputs
from torch import Tensor

from mmbench.diffusion import denoisers, guidance, objectives, samplers, schedules
from mmbench.diffusion.schedules import Schedule, gathered

NAMED = {"linear": schedules.linear, "cosine": schedules.cosine}


def _seen(denoiser: denoisers.Denoiser) -> tuple[denoisers.Denoiser, list[tuple[Tensor, Tensor]]]:
    """A denoiser, and the list of (x_t, estimate of x_0) that its calls add to."""
    calls: list[tuple[Tensor, Tensor]] = []

    def noted(x: Tensor, step: Tensor, condition: object) -> denoisers.Prediction:
        prediction = denoiser(x, step, condition)
        calls.append((x, prediction.denoised))
        return prediction

    return noted, calls


def adm_schedules(fixture: dict) -> dict[str, Tensor]:
    found = {}
    for name, count in (("linear", 1000), ("cosine", 1000), ("linear", 250), ("cosine", 4000)):
        schedule = NAMED[name](count)
        values = {key: getattr(schedule, key) for key in ("betas", "alphas_cumprod", "log_snr")}
        for key in ("log_variance_clipped", "mean_coef1", "mean_coef2"):
            values[f"posterior_{key}"] = getattr(schedule, f"posterior_{key}")
        values["log_betas"] = schedule.betas.log()
        found |= {f"{name}{count}/{key}": value for key, value in values.items()}
    return found


def adm_respacing(fixture: dict) -> dict[str, Tensor]:
    found = {}
    for case in fixture["config"]["cases"]:
        schedule = schedules.respaced(schedules.linear(case["steps"]), case["spec"])
        stem = f"{case['steps']}/{case['spec']}"
        found[f"{stem}/timesteps"] = schedule.timesteps
        found[f"{stem}/log_betas"] = schedule.betas.log()
        found[f"{stem}/log_snr"] = schedule.log_snr
    return found


PARAMETRISATIONS = {
    "eps": denoisers.predicts_noise,
    "x0": denoisers.predicts_denoised,
    "prev": denoisers.predicts_mean,
}
VARIANCES = {"range": denoisers.learned_range, "learned": denoisers.learned}


def adm_steps(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    schedule = schedules.respaced(NAMED[config["noise_schedule"]](config["steps"]), config["timestep_respacing"])
    x, step, noise = given["xt"], given["t"], given["noise"]
    told = []
    found = {
        "q_sample": schedule.noised(given["x0"], step, noise),
        "posterior_mean": schedule.posterior_mean(given["x0"], x, step),
        "posterior_log_variance": gathered(schedule.posterior_log_variance_clipped, step, x).expand_as(x),
    }

    def network(x: Tensor, timesteps: Tensor, wide: bool) -> Tensor:
        told.append(timesteps)
        return torch.cat([given["eps"], given["v"]], 1) if wide else given["eps"]

    for name in ("eps-range", "eps-large", "eps-small", "eps-learned", "x0-range", "prev-small"):
        kind, spread = name.split("-")
        plain = PARAMETRISATIONS[kind](network, schedule, VARIANCES.get(spread))
        found |= {f"{name}/{key}": value for key, value in _steps(schedule, plain, spread, x, step, noise).items()}
    # Of a network that gives the mean, only what is shown of x_0 is clipped.
    fixed = gathered(schedule.posterior_log_variance_clipped, step, x)
    free = denoisers.denoised_from_mean(schedule, x, step, given["eps"])
    found["prev-small/clip/mean"] = found["prev-small/noclip/mean"]
    found["prev-small/ddpm"] = samplers.ancestral_step(schedule, x, step, free, fixed, noise)
    within = denoisers.clipped(denoisers.predicts_noise(network, schedule, denoisers.learned_range))
    pull = lambda x, timesteps, condition: given["gradient"]  # noqa: E731
    leaning = guidance.classifier_ancestral(within, schedule, pull)(x, step, True)
    found["guided/ddpm"] = samplers.ancestral_step(schedule, x, step, leaning.denoised, leaning.log_variance, noise)
    leaning = guidance.classifier(within, schedule, pull)(x, step, True)
    found["guided/ddim"] = samplers.ddim_step(schedule, x, step, leaning.denoised)
    return {**found, "model_timesteps": told[0]}


def _steps(
    schedule: Schedule, plain: denoisers.Denoiser, spread: str, x: Tensor, step: Tensor, noise: Tensor
) -> dict[str, Tensor]:
    fixed = {"large": schedule.large_log_variance, "small": schedule.posterior_log_variance_clipped}
    wide, found = spread not in fixed, {}
    for name, denoiser in (("clip", denoisers.clipped(plain)), ("noclip", plain)):
        denoised, log_variance = denoiser(x, step, wide)
        found[f"{name}/mean"] = schedule.posterior_mean(denoised, x, step)
        found[f"{name}/pred_xstart"] = denoised
    if not wide:
        log_variance = gathered(fixed[spread], step, x).expand_as(x)
    found["log_variance"] = log_variance
    clipped = found["clip/pred_xstart"]
    found["ddpm"] = samplers.ancestral_step(schedule, x, step, clipped, log_variance, noise)
    for eta in (0.0, 0.5, 1.0):
        found[f"ddim-eta{eta}"] = samplers.ddim_step(schedule, x, step, clipped, noise, eta)
    above = torch.cat([schedule.alphas_cumprod[1:], torch.zeros(1)])
    eps = denoisers.noise_from_denoised(schedule, x, step, found["noclip/pred_xstart"])
    level, other = gathered(schedule.alphas_cumprod, step, x), gathered(above, step, x)
    return {**found, "ddim-reverse": samplers.moved(x, eps, level, other)}


def adm_loops(fixture: dict) -> dict[str, Tensor]:
    given, config, told = inputs(fixture), fixture["config"], []
    schedule = schedules.respaced(NAMED[config["noise_schedule"]](config["steps"]), config["timestep_respacing"])

    def network(x: Tensor, timesteps: Tensor, condition: None) -> Tensor:
        told.append(timesteps[0].float())
        eps = (1 + 0.03 * given["a"]) * x + 0.03 * given["b"] * torch.sin(timesteps[:, None, None, None] / 100)
        return torch.cat([eps, given["c"] * x], 1)

    def whole(sampler: Callable) -> tuple[Tensor, list]:
        plain = denoisers.predicts_noise(network, schedule, denoisers.learned_range)
        denoiser, calls = _seen(denoisers.clipped(plain))
        return sampler(denoiser, schedule, given["start"], None, noise=lambda step: given["noise"]), calls

    image, calls = whole(samplers.ddim)
    found = {"ddim": image, "ddim_step10": calls[10][0], "ddim_pred_step10": calls[9][1]}
    found["model_timesteps"] = torch.stack(told)
    image, calls = whole(samplers.ancestral)
    return {**found, "ddpm": image, "ddpm_step10": calls[10][0]}


def adm_losses(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    schedule = NAMED[config["noise_schedule"]](config["steps"])
    clean, step, noise, eps, v = (given[name] for name in ("x0", "t", "noise", "eps", "v"))
    x = schedule.noised(clean, step, noise)
    log_variance = denoisers.learned_range(schedule, v, step)
    from_noise = partial(denoisers.denoised_from_noise, schedule, x, step)
    bits = partial(objectives.variational_bits, schedule, clean, x, step)
    mse, vb = objectives.squared_error(eps, noise), bits(from_noise(eps.detach()), log_variance)
    both = objectives.hybrid(lambda *seen: torch.cat([eps, v], 1), schedule, clean, step, noise, None)
    simple = objectives.simple_noise(lambda *seen: eps, schedule, clean, step, noise, None)
    start_mse = objectives.simple_denoised(lambda *seen: eps, schedule, clean, step, noise, None)
    start_vb = bits(eps, log_variance)
    found = {
        **{f"{kind}-range/vb": vb for kind in ("mse", "rescaled")},
        **{f"{kind}-range/mse": mse for kind in ("mse", "rescaled")},
        **{f"{kind}-range/loss": both for kind in ("mse", "rescaled")},
        "loss": both.mean(),
        "mse-fixed/mse": simple,
        "mse-fixed/loss": simple,
        "kl-range/loss": bits(from_noise(eps), log_variance) * len(schedule),
        "x0-range/vb": start_vb,
        "x0-range/mse": start_mse,
        "x0-range/loss": start_mse + start_vb,
        "prior_bpd": 1e4 * objectives.prior_bits(schedule, clean),
        "vlb_clipped": bits(from_noise(eps).clamp(-1, 1), log_variance),
        "log_likelihood": objectives.discretised_log_likelihood(clean, given["means"], v - 1),
        "gaussian_kl": objectives.gaussian_kl(eps, v, given["means"], noise),
    }
    return {**found, **gradients(fixture, found["loss"], given)}


def ldm_schedules(fixture: dict) -> dict[str, Tensor]:
    count, ends = fixture["config"]["timesteps"], fixture["config"]["ends"]
    named = {name: schedules.scaled_linear(count, *pair) for name, pair in ends.items()}
    found = {f"{name}/log_snr": schedule.log_snr for name, schedule in named.items()}
    named |= {
        "sqrt_linear": schedules.linear(count, *ends["default"]),
        "sqrt": schedules.square_root(count, *ends["default"]),
    }
    found |= {f"{name}/log_betas": schedule.betas.log() for name, schedule in named.items()}
    spaced = {f"uniform{n}": schedules.evenly_spaced(named["text2img"], n) for n in (50, 200, 250, 30)}
    spaced["quad20"] = schedules.quadratically_spaced(named["text2img"], 20)
    for name, schedule in spaced.items():
        found[f"{name}/timesteps"] = schedule.timesteps
        found[f"{name}/alphas"] = schedule.alphas_cumprod
        found[f"{name}/alphas_prev"] = schedule.alphas_cumprod_previous
        found[f"{name}/sigmas"] = samplers.ddim_sigmas(schedule, 1.0)
    return found


def _ldm_network(x: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
    mean = condition.mean(1)[:, :, None, None]
    wave = 0.2 * torch.sin(timesteps[:, None, None, None] / 150)
    return torch.tanh(0.9 * x + 0.3 * mean) + wave + 0.1 * x.roll(1, 3)


def ldm_samplers(fixture: dict) -> dict[str, Tensor]:
    given, config, told = inputs(fixture), fixture["config"], []
    start, condition, noise = given["start"], given["cond"], given["noise"]
    every = schedules.scaled_linear(config["timesteps"], config["linear_start"], config["linear_end"])
    schedule = schedules.evenly_spaced(every, config["S"])

    def network(x: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        told.append(timesteps[0])
        return _ldm_network(x, timesteps, condition)

    def whole(sampler: Callable, scale: float = 1.0, **settings: object) -> tuple[Tensor, list]:
        plain = denoisers.predicts_noise(network, schedule)
        denoiser, calls = _seen(guidance.classifier_free(plain, scale, given["uncond"]))
        told.clear()
        return sampler(denoiser, schedule, start, condition, **settings), calls

    before = []  # x_t as steps leave it

    def keeps(x: Tensor, step: Tensor) -> Tensor:
        before.append(x)
        return schedule.noised(given["x0"], step, noise) * given["mask"] + (1 - given["mask"]) * x

    def drawn(step: int) -> Tensor:
        return noise

    runs = {
        "plain": {},
        "guided": {"scale": 5.0},
        "eta1": {"eta": 1.0, "noise": drawn},
        "inpaint": {"constraint": keeps, "scale": 3.0},
    }
    found = {}
    for name, settings in runs.items():
        image, calls = whole(samplers.ddim, **settings)
        found |= {f"ddim/{name}": image, f"ddim/{name}/step1": calls[1][0], f"ddim/{name}/pred1": calls[0][1]}
        found["ddim/timesteps"] = torch.stack(told)
    found["ddim/inpaint/step1"] = before[1]
    for name in ("guided", "plain"):
        image, calls = whole(samplers.plms, **runs[name])
        found[f"plms/{name}"] = image
        found |= {f"plms/{name}/step{n}": calls[n + 1][0] for n in range(1, 6)}  # two calls in the first step
    found["plms/timesteps"] = torch.stack(told)
    return {**found, **_ldm_single(given, every)}


def _ldm_single(given: dict[str, Tensor], every: Schedule) -> dict[str, Tensor]:
    schedule = schedules.evenly_spaced(every, 50)
    step = torch.full((len(given["start"]),), 20)
    plain = denoisers.predicts_noise(_ldm_network, schedule)
    denoised = guidance.classifier_free(plain, 7.5, given["uncond"])(given["start"], step, given["cond"]).denoised
    x = samplers.ddim_step(schedule, given["start"], step, denoised, 0.8 * given["noise"], 0.3)
    return {"single": x, "single_pred": denoised}


def ldm_training_loss(fixture: dict) -> dict[str, Tensor]:
    given, config = inputs(fixture), fixture["config"]
    schedule = schedules.scaled_linear(1000, config["linear_start"], config["linear_end"])
    clean, step, noise = given["x0"], given["t"], given["noise"]

    def network(x: Tensor, timesteps: Tensor, condition: None) -> Tensor:
        return given["prediction"] + 0.5 * x

    errors = objectives.simple_noise(network, schedule, clean, step, noise, None)
    weights = objectives.noise_bound_weights(schedule)
    vlb = (gathered(weights, step, errors) * errors).mean()
    logvar = config["logvar"]
    loss = config["l_simple_weight"] * (errors / math.exp(logvar) + logvar).mean()
    loss = loss + config["original_elbo_weight"] * vlb
    found = {
        "x_t": schedule.noised(clean, step, noise),
        "simple": errors.mean(),
        "vlb": vlb,
        "loss": loss,
        "log_lvlb_weights": weights.log(),
    }
    return {**found, **gradients(fixture, loss, given)}


def dalle2_noise_scheduler(fixture: dict) -> dict[str, Tensor]:
    given, count = inputs(fixture), fixture["config"]["timesteps"]
    clean, noise, step = given["x_start"], given["noise"], given["times"]
    ends = [schedules.LEAST_BETA * 1000 / count, schedules.GREATEST_BETA * 1000 / count]
    named = {
        "cosine": schedules.cosine(count),
        "linear": schedules.linear(count),
        "quadratic": schedules.scaled_linear(count, *ends),
        "jsd": schedules.reciprocal(count),
        "sigmoid": schedules.sigmoid(count, *ends),
    }
    found = {f"{name}/betas": schedule.betas for name, schedule in named.items()}
    found |= {f"{name}/alphas_cumprod": schedule.alphas_cumprod for name, schedule in named.items()}
    schedule = named["cosine"]
    x = schedule.noised(clean, step, noise)
    v = denoisers.velocity(schedule, clean, step, noise)
    return {
        **found,
        "posterior_log_variance_clipped": schedule.posterior_variance.clamp(min=1e-20).log(),
        "p2_loss_weight": objectives.p2_weights(schedule, fixture["config"]["gamma"]),
        "q_sample": x,
        "v": v,
        "posterior_mean": schedule.posterior_mean(clean, x, step),
        "start_from_v": denoisers.denoised_from_velocity(schedule, x, step, v),
        "start_from_noise": denoisers.denoised_from_noise(schedule, x, step, noise),
        "noise_from_start": denoisers.noise_from_denoised(schedule, x, step, clean),
    }


ADM: dict[str, Callable] = {
    "adm/schedules": adm_schedules,
    "adm/respacing": adm_respacing,
    "adm/steps": adm_steps,
    "adm/loops": adm_loops,
    "adm/losses": adm_losses,
}
LDM: dict[str, Callable] = {
    "ldm/schedules": ldm_schedules,
    "ldm/samplers": ldm_samplers,
    "ldm/training-loss": ldm_training_loss,
}
DALLE2: dict[str, Callable] = {"dalle2/noise-scheduler": dalle2_noise_scheduler}
