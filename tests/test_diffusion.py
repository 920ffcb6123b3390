"""Diffusion: samplers against data whose denoiser is known exactly, guidance, losses, and what is refused."""

import math
from functools import partial
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
import torch

from mmbench.core.noise import Noise
from mmbench.diffusion import denoisers, guidance, objectives, samplers, schedules
from mmbench.diffusion.denoisers import Prediction
from mmbench.diffusion.schedules import Schedule, gathered

MEAN, DEVIATION = 0.4, 0.25  # of the data, each pixel for itself


def numbers(*shape, seed=0, dtype=torch.float64):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).to(dtype)


def marginal(level, mean=MEAN, deviation=DEVIATION):
    """Mean and standard deviation of x_t where x_0 is normal."""
    return level**0.5 * mean, (level * deviation**2 + 1 - level) ** 0.5


def exact(schedule, mean=MEAN, deviation=DEVIATION):
    """The denoiser of normal data with the variance of p(x_(t-1) | x_t), which is normal, too."""

    def denoiser(x, step, condition):
        level = gathered(schedule.alphas_cumprod, step, x)
        centre, spread = marginal(level, mean, deviation)
        denoised = mean + level.sqrt() * deviation**2 / spread**2 * (x - centre)
        left = deviation**2 * (1 - level) / spread**2
        coefficient = gathered(schedule.posterior_mean_coef1, step, x)
        variance = gathered(schedule.posterior_variance, step, x) + coefficient**2 * left
        return Prediction(denoised, variance.log().expand_as(x))

    return denoiser


def without_variance(denoiser):
    return lambda x, step, condition: denoiser(x, step, condition)._replace(log_variance=None)


def even_in_log_snr(count):
    """A schedule whose steps have one length in log(alpha/sigma), from -3 to 2."""
    levels = torch.sigmoid(2 * torch.linspace(2, -3, count + 1, dtype=torch.float64))
    return Schedule(levels[1:], torch.arange(count), float(levels[0]))


def drawn(shape, seed=1):
    return lambda step: numbers(*shape, seed=(seed, step))


def solution(schedule, start):
    """Where the differential equation that deterministic samplers follow leads from x_T: it keeps the rank of x."""
    centre, spread = marginal(float(schedule.alphas_cumprod[-1]))
    final_centre, final_spread = marginal(schedule.final_alpha_cumprod)
    return final_centre + final_spread / spread * (start - centre)


DETERMINISTIC = {"ddim": samplers.ddim, "plms": samplers.plms, "dpm_solver_pp_2m": samplers.dpm_solver_pp_2m}
# Of 100 steps of ADM's linear schedule: largest difference from the exact solution, over the distance from the mean.
CLOSE = {"ddim": 0.08, "plms": 0.02, "dpm_solver_pp_2m": 0.08}


def start_of(schedule):
    """x_T as it is distributed, without chance: 4001 numbers with equal shares of the probability between them."""
    centre, spread = marginal(float(schedule.alphas_cumprod[-1]))
    shares = (torch.arange(4001, dtype=torch.float64) + 0.5) / 4001
    return centre + spread * torch.special.ndtri(shares)[:, None]


def assert_moments(x, mean, deviation, bound):
    """Bounds are three times what chance makes of as many numbers, or more."""
    assert float(x.mean()) == pytest.approx(mean, abs=bound * deviation)
    assert float(x.std()) == pytest.approx(deviation, rel=bound)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_deterministic_sampler_follows_the_exact_solution_and_keeps_the_moments(name):
    schedule = schedules.respaced(schedules.linear(1000), 100)
    start = start_of(schedule)
    found = DETERMINISTIC[name](exact(schedule), schedule, start, None)
    expected = solution(schedule, start)
    distance = (expected - MEAN).abs().clamp(min=DEVIATION)
    assert float(((found - expected).abs() / distance).max()) < CLOSE[name]
    assert_moments(found, MEAN, DEVIATION, CLOSE[name])


@pytest.mark.parametrize("count", [5, 50])
def test_ancestral_sampling_with_the_true_variance_is_exact_in_any_number_of_steps(count):
    schedule = schedules.respaced(schedules.cosine(1000), count)
    start = start_of(schedule)
    found = samplers.ancestral(exact(schedule), schedule, start, None, drawn(start.shape))
    assert_moments(found, MEAN, DEVIATION, 0.05)


@pytest.mark.parametrize("kind", ["small", "large"])
def test_ancestral_sampling_with_a_fixed_variance_has_the_moments_in_many_steps(kind):
    schedule = schedules.linear(300)
    start = start_of(schedule)
    fixed = None if kind == "small" else schedule.large_log_variance
    found = samplers.ancestral(without_variance(exact(schedule)), schedule, start, None, drawn(start.shape), fixed)
    assert_moments(found, MEAN, DEVIATION, 0.06)


def test_a_fixed_variance_that_is_too_small_narrows_a_distribution_in_few_steps():
    """So that the test above can fail: the posterior's variance is that of data which are one point."""
    schedule = schedules.respaced(schedules.linear(1000), 10)
    start = start_of(schedule)
    found = samplers.ancestral(without_variance(exact(schedule)), schedule, start, None, drawn(start.shape))
    assert float(found.std()) < 0.9 * DEVIATION


def test_ddim_with_eta_1_has_the_moments():
    schedule = schedules.linear(300)
    start = start_of(schedule)
    found = samplers.ddim(exact(schedule), schedule, start, None, drawn(start.shape), eta=1.0)
    assert_moments(found, MEAN, DEVIATION, 0.06)


def test_ddim_with_eta_1_is_ancestral_sampling_with_the_posterior_variance():
    schedule = schedules.respaced(schedules.cosine(1000), 20)
    start, plain = numbers(3, 2, 4, 4), without_variance(exact(schedule))
    one = samplers.ddim(plain, schedule, start, None, drawn(start.shape), eta=1.0)
    other = samplers.ancestral(plain, schedule, start, None, drawn(start.shape))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


ORDERS = {"ddim": 1, "plms": 2, "dpm_solver_pp_2m": 2}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_error_falls_with_the_order_of_the_solver(name):
    """Twice the steps: half the error of DDIM, a quarter of that of a solver of second order."""
    errors = []
    for count in (40, 80, 160):
        schedule = even_in_log_snr(count)
        start = start_of(schedule)
        found = DETERMINISTIC[name](exact(schedule), schedule, start, None)
        errors.append(float((found - solution(schedule, start)).abs().max()))
    for more, fewer in pairwise(errors):
        assert 0.9 < more / fewer / 2 ** ORDERS[name] < 1.2


def test_inversion_and_sampling_give_the_start_back():
    clean, differences = MEAN + DEVIATION * numbers(500, 1), []
    for count in (50, 100, 200):
        schedule = schedules.respaced(schedules.cosine(1000), count)
        denoiser = exact(schedule)
        latent = samplers.ddim_inversion(denoiser, schedule, clean, None)
        again = samplers.ddim(denoiser, schedule, latent, None)
        differences.append(float((again - clean).abs().max()))
    assert differences[-1] < 0.03  # an eighth of the data's deviation, at three deviations from their mean
    assert differences[0] > 1.7 * differences[1] > 1.7**2 * differences[2]
    assert_moments(latent, 0, 1, 0.1)


def toy_network(channels=3, wide=False):
    """Neither linear nor alike in any two places."""
    weight = numbers(channels * (2 if wide else 1), channels, 3, 3, seed=5, dtype=torch.float32) / 4

    def network(x, timesteps, condition):
        time = timesteps.reshape(-1, 1, 1, 1) / 500
        return torch.tanh(torch.conv2d(x, weight.to(x.dtype), padding=1) + condition[:, None, None, None] * time)

    return network


SAMPLERS = {
    **{name: lambda *given, noise, sampler=sampler: sampler(*given) for name, sampler in DETERMINISTIC.items()},
    "ancestral": samplers.ancestral,
    "ddim with eta 1": partial(samplers.ddim, eta=1.0),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_does_not_depend_on_its_batch(name):
    schedule = schedules.respaced(schedules.linear(1000), 8)
    plain = denoisers.predicts_noise(toy_network(wide=True), schedule, denoisers.learned_range)
    condition, keys = torch.tensor([0.3, -0.6, 0.9]), [("a", 0, 0), ("b", 0, 0), ("c", 0, 0)]

    def made(rows):
        noise = Noise(0, [keys[row] for row in rows])
        guided = guidance.classifier_free(plain, 2.0, torch.zeros(len(rows)))
        denoiser = denoisers.clipped(guided)
        start = noise.normal("start", 3, 5, 6)
        draws = {"noise": lambda step: noise.normal(f"step {step}", 3, 5, 6)}
        return SAMPLERS[name](denoiser, schedule, start, condition[rows], **draws)

    together = made([0, 1, 2])
    for row in range(3):
        torch.testing.assert_close(made([row])[0], together[row], rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_latents_stay_in_float32_where_the_network_answers_in_half_precision(name):
    schedule = schedules.respaced(schedules.linear(1000), 4)
    network = toy_network()
    halved = denoisers.predicts_noise(lambda *given: network(*given).bfloat16(), schedule)
    start = numbers(1, 3, 4, 4, dtype=torch.float32)
    found = SAMPLERS[name](halved, schedule, start, torch.zeros(1), noise=lambda step: torch.zeros_like(start))
    assert found.dtype == torch.float32


PARAMETRISED = {
    "noise": (denoisers.predicts_noise, lambda schedule, clean, step, noise: noise),
    "denoised": (denoisers.predicts_denoised, lambda schedule, clean, step, noise: clean),
    "velocity": (denoisers.predicts_velocity, denoisers.velocity),
}
SIMPLE = {
    "noise": objectives.simple_noise,
    "denoised": objectives.simple_denoised,
    "velocity": objectives.simple_velocity,
}


@pytest.mark.parametrize("name", PARAMETRISED)
def test_a_perfect_network_denoises_exactly_and_has_no_loss(name):
    adapted, target = PARAMETRISED[name]
    schedule = schedules.cosine(100)
    clean, noise, step = numbers(4, 3, 5, 5), numbers(4, 3, 5, 5, seed=1), torch.tensor([0, 20, 60, 95])
    right = target(schedule, clean, step, noise)
    x = schedule.noised(clean, step, noise)
    torch.testing.assert_close(adapted(lambda *given: right, schedule)(x, step, None).denoised, clean)
    found = SIMPLE[name](lambda *given: right, schedule, clean, step, noise, None)
    torch.testing.assert_close(found, torch.zeros(4, dtype=torch.float64))
    found = SIMPLE[name](lambda *given: right + 0.5, schedule, clean, step, noise, None)
    torch.testing.assert_close(found, torch.full((4,), 0.25, dtype=torch.float64))


def test_the_network_is_told_the_timestep_of_the_whole_schedule():
    schedule, told = schedules.respaced(schedules.linear(1000), "ddim25"), []

    def network(x, timesteps, condition):
        told.append(timesteps.tolist())
        return x

    samplers.ddim(denoisers.predicts_noise(network, schedule), schedule, numbers(2, 1), None)
    assert told == [[timestep] * 2 for timestep in range(960, -1, -40)]


def test_guidance_of_scale_1_is_none_and_of_0_the_unconditional_image():
    schedule = schedules.respaced(schedules.linear(1000), 6)
    plain = denoisers.predicts_noise(toy_network(), schedule)
    start, condition, empty = numbers(2, 3, 4, 4), torch.tensor([0.7, -0.4]), torch.zeros(2)

    def made(scale, condition):
        return samplers.ddim(guidance.classifier_free(plain, scale, empty), schedule, start, condition)

    given, without = made(1, condition), samplers.ddim(plain, schedule, start, empty)
    assert torch.equal(given, samplers.ddim(plain, schedule, start, condition))
    torch.testing.assert_close(made(0.0, condition), without)
    assert float((given - without).abs().max()) > 0.01
    torch.testing.assert_close(made(1 + 1e-9, condition), given, rtol=0, atol=1e-6)


def test_guidance_extrapolates_a_dictionary_of_conditions():
    def denoiser(x, step, condition):
        return Prediction(x + condition["shift"][:, None], condition["shift"][:, None])

    conditions = {"shift": torch.tensor([1.0, 2.0]), "layers": None}
    guided = guidance.classifier_free(denoiser, 3.0, {"shift": torch.tensor([0.5, 0.0]), "layers": None})
    found = guided(torch.zeros(2, 1), torch.tensor([4, 4]), conditions)
    assert found.denoised.tolist() == [[2.0], [6.0]]  # 0.5 + 3 * 0.5 and 0 + 3 * 2
    assert found.log_variance.tolist() == [[1.0], [2.0]]


OBSERVED, BLUR = 0.9, 0.3  # a "classifier" that says how well x_0 + normal noise explains what was observed


def _observation_gradient(schedule):
    def gradient(x, timesteps, condition):
        level = gathered(schedule.alphas_cumprod, timesteps, x)
        centre, spread = marginal(level)
        slope = level.sqrt() * DEVIATION**2 / spread**2
        expected = MEAN + slope * (x - centre)
        variance = DEVIATION**2 * (1 - level) / spread**2 + BLUR**2
        return (OBSERVED - expected) / variance * slope

    return gradient


def test_classifier_guidance_samples_what_is_true_given_the_observation():
    """Normal data and a normal observation: what is true given it is normal, too, by Bayes' rule."""
    precision = 1 / DEVIATION**2 + 1 / BLUR**2
    mean, deviation = (MEAN / DEVIATION**2 + OBSERVED / BLUR**2) / precision, precision**-0.5
    schedule = schedules.linear(300)
    guided = guidance.classifier(exact(schedule), schedule, _observation_gradient(schedule))
    x, step = numbers(4, 6), torch.tensor([10, 50, 150, 290])
    torch.testing.assert_close(guided(x, step, None).denoised, exact(schedule, mean, deviation)(x, step, None).denoised)
    start = start_of(schedule)
    assert_moments(samplers.dpm_solver_pp_2m(guided, schedule, start, None), mean, deviation, 0.02)
    moved = guidance.classifier_ancestral(exact(schedule), schedule, _observation_gradient(schedule))
    found = samplers.ancestral(moved, schedule, start, None, drawn(start.shape))
    assert_moments(found, mean, deviation, 0.06)


@pytest.mark.parametrize("learns", [True, False])
def test_classifier_guidance_moves_the_mean_by_variance_times_gradient(learns):
    schedule = schedules.respaced(schedules.linear(1000), 50)
    denoiser = exact(schedule) if learns else without_variance(exact(schedule))
    x, step, gradient = numbers(3, 4), torch.tensor([1, 20, 49]), numbers(3, 4, seed=2)
    fixed = schedule.large_log_variance
    guided = guidance.classifier_ancestral(denoiser, schedule, lambda *given: gradient, fixed)
    after = guided(x, step, None)
    before = denoiser(x, step, None)
    spread = before.log_variance if learns else gathered(fixed, step, x)
    difference = schedule.posterior_mean(after.denoised, x, step) - schedule.posterior_mean(before.denoised, x, step)
    torch.testing.assert_close(difference, spread.exp() * gradient)
    torch.testing.assert_close(after.log_variance, before.log_variance)


def test_gradient_of_a_classifier_is_found_in_inference_mode():
    weight, label = numbers(5, 4), torch.tensor([3, 0])
    with torch.inference_mode():
        x = numbers(2, 4)
        gradient = guidance.log_probability_gradient(lambda x, timesteps, label: x @ weight.T, 2.0)
        found = gradient(x, torch.tensor([1, 1]), label)
    expected = 2 * (weight[label] - (x @ weight.T).softmax(1) @ weight)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_clipping_holds_estimates_within_the_range_of_images():
    denoiser = denoisers.clipped(lambda x, step, condition: Prediction(3 * x, x))
    found = denoiser(torch.tensor([[-1.0, 0.1, 1.0]]), torch.tensor([0]), None)
    assert found.denoised.tolist() == [[-1.0, pytest.approx(0.3), 1.0]]
    assert found.log_variance.tolist() == [[-1.0, pytest.approx(0.1), 1.0]]


def test_a_constraint_holds_at_every_step():
    schedule, seen = schedules.respaced(schedules.linear(1000), 5), []

    def constraint(x, step):
        seen.append(int(step[0]))
        return torch.where(torch.tensor([True, False]), 0.5, x)

    def denoiser(x, step, condition):
        assert x[:, 0].tolist() == [0.5, 0.5]
        return Prediction(torch.zeros_like(x))

    samplers.ddim(denoiser, schedule, numbers(2, 2), None, constraint=constraint)
    assert seen == [4, 3, 2, 1, 0]


def test_variational_terms_are_those_of_the_exact_denoiser_at_their_least():
    """Whatever changes the right mean or variance costs bits; the right ones cost what x_0 is uncertain by."""
    schedule = schedules.linear(200)
    clean = (MEAN + DEVIATION * numbers(4, 3, 40, 40)).clamp(-1, 1)
    step = torch.tensor([1, 40, 120, 190])
    x = schedule.noised(clean, step, numbers(4, 3, 40, 40, seed=1))
    denoised, log_variance = exact(schedule)(x, step, None)
    bits = partial(objectives.variational_bits, schedule, clean, x, step)
    least = bits(denoised, log_variance)
    assert bool((least > 0).all())
    for other in (bits(denoised + 0.1, log_variance), bits(denoised, log_variance + 0.3)):
        assert bool((other > least).all())
    # Where x_0 is known, nothing is left.
    known = gathered(schedule.posterior_log_variance_clipped, step, x).expand_as(x)
    torch.testing.assert_close(bits(clean, known), torch.zeros(4, dtype=torch.float64))


def test_likelihoods_of_all_256_values_sum_to_1():
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, log_deviation in ((0.3, -1.0), (-1.2, 0.5), (0.9, -3.0)):
        found = objectives.discretised_log_likelihood(values, torch.tensor(mean), torch.tensor(log_deviation)).exp()
        assert float(found.sum()) == pytest.approx(1, abs=1e-6)


def test_the_variational_term_trains_the_variance_alone():
    schedule = schedules.linear(100)
    clean, noise, step = numbers(2, 3, 4, 4), numbers(2, 3, 4, 4, seed=1), torch.tensor([0, 50])
    output = numbers(2, 6, 4, 4, seed=2).requires_grad_()
    slopes = []
    for variational in (0.0, 1.0):
        loss = objectives.hybrid(lambda *given: output, schedule, clean, step, noise, None, variational).sum()
        slopes.append(torch.autograd.grad(loss, output)[0])
    assert torch.equal(slopes[0][:, :3], slopes[1][:, :3])
    assert not slopes[0][:, 3:].any()
    assert slopes[1][:, 3:].all()


def test_the_hybrid_loss_of_a_velocity_is_that_of_the_noise_it_stands_for_but_for_its_weight():
    schedule, step = schedules.linear(100), torch.tensor([10, 60])
    clean, noise = numbers(2, 3, 4, 4), numbers(2, 3, 4, 4, seed=1)
    said, spread = numbers(2, 3, 4, 4, seed=2), numbers(2, 3, 4, 4, seed=3)
    x = schedule.noised(clean, step, noise)
    denoised = denoisers.denoised_from_velocity(schedule, x, step, said)
    same = denoisers.noise_from_denoised(schedule, x, step, denoised)

    def loss(output, variational, predicts):
        network = lambda *given: torch.cat((output, spread), dim=1)  # noqa: E731
        return objectives.hybrid(network, schedule, clean, step, noise, None, variational, predicts)

    of_velocity, of_noise = denoisers.predicted_velocity(), denoisers.predicted_noise()
    simple = loss(said, 0.0, of_velocity)
    as_noise = loss(same, 0.0, of_noise)
    torch.testing.assert_close(simple * schedule.alphas_cumprod[step], as_noise)
    bound = loss(same, 1.0, of_noise) - as_noise
    torch.testing.assert_close(loss(said, 1.0, of_velocity) - simple, bound)


def test_fewer_steps_keep_levels_and_timesteps():
    whole = schedules.cosine(1000)
    for fewer in (schedules.respaced(whole, "50"), schedules.respaced(whole, "20,10"), schedules.respaced(whole, 7)):
        assert torch.equal(fewer.alphas_cumprod, whole.alphas_cumprod[fewer.timesteps])
        torch.testing.assert_close(torch.cumprod(1 - fewer.betas, 0), fewer.alphas_cumprod)
    assert torch.equal(schedules.respaced(whole, 1000).timesteps, whole.timesteps)
    assert len(schedules.respaced(whole, 1)) == 1


def test_every_step_is_drawn_equally_often():
    schedule = schedules.linear(50)
    found = schedule.drawn(torch.arange(5000, dtype=torch.float32) / 5000)
    assert torch.bincount(found).tolist() == [100] * 50
    assert int(schedule.drawn(torch.tensor([1 - 2**-24]))) == 49


def _none(x, step, condition):
    return Prediction(x * math.nan)


SMALL = schedules.linear(100)
REFUSED = {
    "more steps than there are": (lambda: schedules.respaced(SMALL, 101), "from 1 to 100 steps.*found 101"),
    "of a part": (lambda: schedules.respaced(SMALL, "10,60"), "from 1 to 50 steps.*found 60"),
    "of DDIM": (lambda: schedules.respaced(SMALL, "ddim200"), "from 1 to 100 steps.*found 200"),
    "of LDM": (lambda: schedules.evenly_spaced(SMALL, 101), "from 1 to 100 steps.*found 101"),
    "of LDM's squares": (lambda: schedules.quadratically_spaced(SMALL, 200), "from 1 to 100 steps.*found 200"),
    "no even distance": (lambda: schedules.respaced(SMALL, "ddim40"), "an even distance divides 100 into.*ddim40"),
    "a step beyond the end": (lambda: schedules.evenly_spaced(SMALL, 100), "steps from 0 to 99, found .*100"),
    "two steps that are one": (lambda: schedules.quadratically_spaced(SMALL, 60), "levels alphas_cumprod that fall"),
    "no number": (lambda: schedules.respaced(SMALL, "fast"), "a number of steps as 250.*found 'fast'"),
    "a negative number": (lambda: schedules.respaced(SMALL, -5), "a number of steps as 250.*found -5"),
    "no steps": (lambda: schedules.respaced(SMALL, 0), "a number of steps as 250.*found 0"),
    "a beta above 1": (lambda: schedules.linear(10), "levels alphas_cumprod that fall.*betas from 0 to 1"),
    "no schedule": (lambda: schedules.cosine(0), "levels alphas_cumprod that fall"),
    "other timesteps": (lambda: Schedule(SMALL.alphas_cumprod, torch.arange(9)), "for each of 100 levels, found 9"),
    "guidance without": (lambda: guidance.classifier_free(_none, 2.0, None), "unconditional branch.*scale of 2.0"),
    "eta without noise": (lambda: samplers.ddim(_none, SMALL, numbers(1, 1), None, eta=0.5), "eta.*found 0.5 and None"),
    "negative eta": (lambda: samplers.ddim(_none, SMALL, numbers(1, 1), None, drawn((1, 1)), -1), "eta.*found -1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_sampled_is_refused_in_one_line(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as refused:
        call()
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("name", [*SAMPLERS, "inversion"])
def test_a_latent_that_is_not_finite_is_refused_with_its_step(name):
    sampler = {**SAMPLERS, "inversion": lambda *given, noise: samplers.ddim_inversion(*given)}[name]
    schedule = schedules.respaced(SMALL, 10)

    def denoiser(x, step, condition):
        return Prediction(torch.where(step[:, None] == 4, math.nan, x))

    with pytest.raises(ValueError, match="finite numbers in the latent, found NaN or infinity after step 4: train"):
        sampler(denoiser, schedule, numbers(2, 1), None, noise=drawn((2, 1)))


PEERS = {
    "dpm_solver_pp_2m": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "final_sigmas_type": "zero"},
        1.0,
    ),
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": True}, 1.0),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}, None),
}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("diffusers") is None, reason="not run: diffusers is not installed")
@pytest.mark.parametrize("count", [10, 25, 50])
@pytest.mark.parametrize("name", PEERS)
def test_a_solver_gives_what_diffusers_gives(name, count):
    import diffusers

    kind, settings, final = PEERS[name]
    ends = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    peer = getattr(diffusers, kind)(num_train_timesteps=1000, **ends, **settings)
    peer.set_timesteps(count)
    whole = schedules.scaled_linear(1000, 0.00085, 0.012)
    fewer = schedules.kept(whole, sorted(set(peer.timesteps.tolist())))
    schedule = Schedule(fewer.alphas_cumprod, fewer.timesteps, final or float(whole.alphas_cumprod[0]))
    network, condition = toy_network(), torch.tensor([0.5, -0.5])
    start = x = numbers(2, 3, 8, 8, dtype=torch.float32)
    for timestep in peer.timesteps:
        x = peer.step(network(x, timestep.expand(2), condition), timestep, x).prev_sample
    ours = DETERMINISTIC[name](denoisers.predicts_noise(network, schedule), schedule, start, condition)
    assert float((ours - x).abs().max() / x.std()) < 2e-5
