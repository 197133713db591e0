"""Samplers against the papers' equations, exact solutions, and, with the exact denoiser, the law of the data."""

import inspect
import math
from functools import partial
from itertools import pairwise
from statistics import median

import pytest
import torch
from torch.testing import assert_close

from sora_lib import (
    Cosine,
    GaussianMixture,
    LinearBeta,
    RectifiedFlow,
    ancestral,
    ddim,
    euler,
    heun,
    points,
    real_floor,
    sliced_wasserstein,
)
from sora_lib.datasets import POINT_SETS
from sora_lib.samplers import time_grid

SCHEDULES = [LinearBeta(), Cosine(), RectifiedFlow()]
SAMPLERS = [ancestral, ddim, euler, heun]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.__name__)


pytestmark = pytest.mark.usefixtures("one_thread")


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=rng(seed), dtype=dtype)


def times(*values):
    return torch.tensor(values, dtype=torch.float64)


def answering(x0_hat):
    """A denoiser that always gives the same answer, so that one step can be computed by hand."""
    return lambda x_t, t: x0_hat


def ddpm_tables(steps=1000, start=1e-4, end=0.02):
    """beta_i and alpha_bar_i by DDPM's definitions, i = 1..steps (index 0 is no noise), as float64 numbers."""
    beta = [0.0] + [start + (end - start) * i / (steps - 1) for i in range(steps)]
    alpha_bar = [1.0]
    for b in beta[1:]:
        alpha_bar.append(alpha_bar[-1] * (1 - b))
    return beta, alpha_bar


# --- One step against the papers

I = [2, 3, 10, 100, 500, 999, 1000]  # noqa: E741  DDPM's step numbers


@pytest.mark.parametrize("i", I)
def test_ancestral_is_ddpm_equation_7(i):
    beta, alpha_bar = ddpm_tables()
    x_t, x0 = randn(64, 2, seed=1), randn(64, 2, seed=2)
    mean = (
        math.sqrt(alpha_bar[i - 1]) * beta[i] / (1 - alpha_bar[i]) * x0
        + math.sqrt(1 - beta[i]) * (1 - alpha_bar[i - 1]) / (1 - alpha_bar[i]) * x_t
    )
    beta_tilde = (1 - alpha_bar[i - 1]) / (1 - alpha_bar[i]) * beta[i]
    z = torch.randn(x_t.shape, generator=rng(5))
    x_s = ancestral(answering(x0), LinearBeta(), x_t, times(i / 1000, (i - 1) / 1000), generator=rng(5))
    assert_close(x_s, mean + math.sqrt(beta_tilde) * z, rtol=0, atol=1e-5)


@each_schedule
@pytest.mark.parametrize(("t", "s"), [(1.0, 0.98), (1.0, 0.3), (0.9, 0.85), (0.5, 0.2), (0.05, 0.01), (0.01, 0.001)])
def test_ancestral_is_the_gaussian_posterior(schedule, t, s):
    """Condition the pair (x_s, x_t) given x0, a 2-D Gaussian, on x_t: regression of one coordinate on the other.

    x_s = alpha_s x0 + sigma_s e and x_t = a x_s + independent noise, so Cov(x_s, x_t) = a sigma_s^2.
    """
    (alpha_t, alpha_s), (sigma_t, sigma_s) = schedule.alpha(times(t, s)).tolist(), schedule.sigma(times(t, s)).tolist()
    cov = torch.tensor([[sigma_s**2, 0.0], [0.0, sigma_t**2]], dtype=torch.float64)
    cov[0, 1] = cov[1, 0] = alpha_t / alpha_s * sigma_s**2
    slope = cov[0, 1] / cov[1, 1]
    variance = cov[0, 0] - cov[0, 1] ** 2 / cov[1, 1]

    x_t, x0 = randn(64, 2, seed=1), randn(64, 2, seed=2)
    z = torch.randn(x_t.shape, generator=rng(5))
    by_hand = alpha_s * x0 + slope.float() * (x_t - alpha_t * x0) + variance.sqrt().float() * z
    assert_close(ancestral(answering(x0), schedule, x_t, times(t, s), generator=rng(5)), by_hand, rtol=0, atol=1e-5)


def test_ancestral_noise_has_the_posteriors_scale_and_is_gaussian():
    x = ancestral(answering(torch.zeros(200_000, 1)), RectifiedFlow(), torch.zeros(200_000, 1), times(0.8, 0.5))
    a = 0.2 / 0.5
    variance = 0.5**2 * (0.8**2 - a**2 * 0.5**2) / 0.8**2
    assert x.mean().item() == pytest.approx(0, abs=0.006)  # five standard errors of 0.5 / sqrt(n) = 0.0011
    assert x.var().item() == pytest.approx(variance, rel=0.016)  # five of sqrt(2 / n) = 0.0032
    assert ((x / x.std()) ** 4).mean().item() == pytest.approx(3, abs=0.06)  # kurtosis: five of sqrt(24 / n)


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("i", "j"), [(1000, 980), (1000, 1), (500, 499), (300, 100), (20, 3), (2, 1)])
def test_ddim_is_its_equations_12_and_16(i, j, eta):
    """Written with alpha_bar (the paper's alpha) and the noise that the network would predict."""
    _, alpha_bar = ddpm_tables()
    a_t, a_s = alpha_bar[i], alpha_bar[j]
    x_t, eps = randn(64, 2, seed=1), randn(64, 2, seed=2)
    x0_hat = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    sigma = eta * math.sqrt((1 - a_s) / (1 - a_t)) * math.sqrt(1 - a_t / a_s)
    z = torch.randn(x_t.shape, generator=rng(5))
    by_hand = math.sqrt(a_s) * x0_hat + math.sqrt(1 - a_s - sigma**2) * eps + sigma * z
    x_s = ddim(answering(x0_hat), LinearBeta(), x_t, times(i / 1000, j / 1000), eta=eta, generator=rng(5))
    # 1e-5 of the values, which reach 500 where x_t is divided by sqrt(alpha_bar_1000) = 0.006
    assert_close(x_s, by_hand, rtol=1e-5, atol=1e-5)


@each_schedule
def test_ddim_with_eta_1_is_ancestral(schedule):
    denoise = points("gaussians").denoiser(schedule)
    x = randn(64, 2, dtype=torch.float64)
    one = ddim(denoise, schedule, x, 20, eta=1.0, generator=rng(3), trajectory=True)
    other = ancestral(denoise, schedule, x, 20, generator=rng(3), trajectory=True)
    assert_close(one, other, rtol=1e-6, atol=1e-6)  # float64; 20 steps of a denoiser that amplifies differences


@each_schedule
def test_ddim_without_noise_keeps_x0_and_eps_of_a_known_pair(schedule):
    """Where the guess is right, every x_s on the way is alpha_s x0 + sigma_s eps for the same x0 and eps."""
    x0, eps, grid = randn(8, 2, seed=1), randn(8, 2, seed=2), times(0.9, 0.6, 0.5, 0.1)
    start = schedule.add_noise(x0, torch.full([8], 0.9), eps)
    path = ddim(answering(x0), schedule, start, grid, trajectory=True)
    for t, x in zip(grid.tolist(), path, strict=True):
        assert_close(x, schedule.add_noise(x0, torch.full([8], t), eps), rtol=1e-5, atol=1e-5)


def test_euler_is_ddim_on_rectified_flow():
    """There x = (1 - t) x0 + t eps, so x + (s - t)(eps - x0) = (1 - s) x0 + s eps: an Euler step is a DDIM step."""
    denoise = points("moons").denoiser(RectifiedFlow())
    x = randn(64, 2, dtype=torch.float64)
    one, other = (f(denoise, RectifiedFlow(), x, 10, trajectory=True) for f in (euler, ddim))
    assert_close(one, other, rtol=1e-9, atol=1e-9)


@each_schedule
@pytest.mark.parametrize(("t", "s"), [(1.0, 0.7), (0.6, 0.5), (0.2, 0.15)])
def test_euler_and_heun_stride_with_the_flows_velocity(schedule, t, s):
    """The probability-flow ODE in Song's form, f x - g^2 score / 2, with f and g^2 by finite differences.

    f = d log(alpha) / dt, g^2 = d(sigma^2)/dt - 2 f sigma^2 (arXiv 2011.13456, eq. 13; 2107.00630 for f and g).
    """
    h = 1e-5
    denoise = GaussianMixture(torch.tensor([[1.0, -0.5]], dtype=torch.float64), 0.6).denoiser(schedule)

    def velocity(x, time):
        time = min(time, 1 - 1e-3)  # off the end, where alpha of two schedules is 0
        low, here, high = times(time - h), times(time), times(time + h)
        f = (schedule.alpha(high).log() - schedule.alpha(low).log()) / (2 * h)
        g2 = (schedule.sigma(high) ** 2 - schedule.sigma(low) ** 2) / (2 * h) - 2 * f * schedule.sigma(here) ** 2
        x0_hat = denoise(x, here.expand(len(x)))
        score = (schedule.alpha(here) * x0_hat - x) / schedule.sigma(here) ** 2
        return f * x - g2 * score / 2

    x = randn(16, 2, dtype=torch.float64)
    first = velocity(x, t)
    straight = x + (s - t) * first
    # At t = 1 the reference is taken 1e-3 inside; elsewhere only LinearBeta's kinks at nodes (1 % of a slope)
    tolerance = {"rtol": 2e-2, "atol": 1e-2} if t == 1 else {"rtol": 5e-3, "atol": 1e-3}
    assert_close(euler(denoise, schedule, x, times(t, s)), straight, **tolerance)
    bent = x + (s - t) * (first + velocity(straight, s)) / 2
    assert_close(heun(denoise, schedule, x, times(t, s)), bent, **tolerance)


# --- Whole runs against an exact solution


def flow_of_one_gaussian(mean, std, x, t, s):
    """Along the flow of a Gaussian the standardised point stays: (x_t - alpha_t m) / spread_t is constant."""

    def spread(u):
        return math.sqrt((1 - u) ** 2 * std**2 + u**2)

    return (1 - s) * mean + spread(s) / spread(t) * (x - (1 - t) * mean)


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (ddim, 1), (heun, 2)], ids=["euler", "ddim", "heun"])
def test_measured_order(sampler, order):
    mean, std = torch.tensor([[1.0, -2.0]], dtype=torch.float64), 0.5
    denoise = GaussianMixture(mean, std).denoiser(RectifiedFlow())
    x = randn(256, 2, dtype=torch.float64)
    exact = flow_of_one_gaussian(mean, std, x, 1.0, 0.0)
    errors = [(sampler(denoise, RectifiedFlow(), x, n) - exact).square().mean().sqrt() for n in (40, 80, 160)]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes == pytest.approx([order] * 2, abs=0.1)  # measured: 0.98 to 1.00 and 1.99 to 2.03


def curve_levels(schedule, t, s):
    """alpha_t, alpha_s, sigma_t, sigma_s as numbers."""
    return *schedule.alpha(times(t, s)).tolist(), *schedule.sigma(times(t, s)).tolist()


def gaussian_solution(schedule, mean, std, x, t, s):
    """The same flow on any schedule: the spread is sqrt(alpha^2 std^2 + sigma^2)."""
    alpha_t, alpha_s, sigma_t, sigma_s = curve_levels(schedule, t, s)
    ratio = math.hypot(alpha_s * std, sigma_s) / math.hypot(alpha_t * std, sigma_t)
    return alpha_s * mean + ratio * (x - alpha_t * mean)


@each_schedule
@pytest.mark.parametrize("t", [0.9505, 0.6005, 0.3005, 0.0505])  # between LinearBeta's nodes
def test_velocity_is_the_derivative_of_the_closed_form(schedule, t):
    mean, std, h = torch.tensor([[1.0, -2.0]], dtype=torch.float64), 0.5, 1e-5
    denoise, x = GaussianMixture(mean, std).denoiser(schedule), randn(64, 2, dtype=torch.float64)
    ahead, behind = (gaussian_solution(schedule, mean, std, x, t, t + d) for d in (-h, h))
    slope = (behind - ahead) / (2 * h)
    velocity = (x - euler(denoise, schedule, x, times(t, t - h))) / h
    assert_close(velocity, slope, rtol=1e-6, atol=1e-6)  # h^2 of central differences, and rounding / h


@each_schedule
@pytest.mark.parametrize(("sampler", "atol"), [(euler, 5e-2), (ddim, 5e-2), (heun, 2e-3)])
def test_many_steps_follow_the_closed_form(sampler, atol, schedule):
    """From 0.98 to 0.02 in 100 steps. Largest errors measured: order 1 3.6e-2, Heun 9.4e-4 (LinearBeta's kinks)."""
    mean, std = torch.tensor([[1.0, -2.0]], dtype=torch.float64), 0.5
    x, grid = randn(64, 2, dtype=torch.float64), torch.linspace(0.98, 0.02, 101, dtype=torch.float64)
    end = sampler(GaussianMixture(mean, std).denoiser(schedule), schedule, x, grid)
    assert_close(end, gaussian_solution(schedule, mean, std, x, 0.98, 0.02), rtol=0, atol=atol)


def rk4_on_the_straight_path(law, x, steps):
    """Runge and Kutta's order 4 from t = 1 to 0, with a velocity of its own that divides by no sigma."""

    def velocity(x, t):
        a = 1 - t
        variance = (a * law.std) ** 2 + t**2
        away = x[:, None] - a * law.means  # [B, K, D]
        weights = torch.softmax(law.weights.log() - away.square().sum(-1) / (2 * variance), dim=1)
        center = weights @ law.means
        # eps_hat - x0_hat, where x - a center = (variance / t) eps_hat
        return t / variance * (x - a * center) - center - a * law.std**2 / variance * (x - a * center)

    h = -1 / steps
    for i in range(steps):
        t = 1 + i * h
        k1 = velocity(x, t)
        k2 = velocity(x + h / 2 * k1, t + h / 2)
        k3 = velocity(x + h / 2 * k2, t + h / 2)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + velocity(x + h * k3, t + h))
    return x


@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2)], ids=["euler", "heun"])
def test_measured_order_on_a_mixture(sampler, order):
    """Median error at t = 0 over 256 starts, 50 to 400 steps, against a reference that is shown to have converged."""
    means = torch.tensor([[-1.2, 0.0], [0.9, 0.9], [0.6, -1.0]], dtype=torch.float64)
    law = GaussianMixture(means, 0.3, torch.full([3], 1 / 3, dtype=torch.float64))
    x = randn(256, 2, dtype=torch.float64)
    exact = rk4_on_the_straight_path(law, x, 400)
    assert (exact - rk4_on_the_straight_path(law, x, 200)).norm(dim=1).median() < 1e-8
    ends = [sampler(law.denoiser(RectifiedFlow()), RectifiedFlow(), x, n) for n in (50, 100, 200, 400)]
    errors = [(end - exact).norm(dim=1).median().item() for end in ends]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes == pytest.approx([order] * 3, abs=0.2)  # measured: 1.00, and 1.99 to 2.08
    assert errors[0] < {1: 0.03, 2: 1e-3}[order]  # measured: 0.017 and 4.4e-4


@each_schedule
def test_ddim_is_euler_on_x_over_alpha_against_sigma_over_alpha(schedule):
    """d(x / alpha) / d(sigma / alpha) = eps_hat (DDIM, section 4.3); from 0.99, since the ratio is infinite at 1."""
    denoise = points("gaussians").denoiser(schedule)
    x, grid = randn(256, 2, dtype=torch.float64), torch.linspace(0.99, 0, 41, dtype=torch.float64)
    path, y = ddim(denoise, schedule, x, grid, trajectory=True), x / schedule.alpha(grid[:1])
    for i, (t, s) in enumerate(pairwise(grid.tolist()), start=1):
        alpha_t, alpha_s, sigma_t, sigma_s = curve_levels(schedule, t, s)
        x0_hat = denoise(alpha_t * y, torch.full([256], t, dtype=torch.float64))
        y = y + (sigma_s / alpha_s - sigma_t / alpha_t) * (alpha_t * y - alpha_t * x0_hat) / sigma_t
        assert_close(path[i], alpha_s * y, rtol=0, atol=1e-5)


@each_sampler
def test_start_below_1_and_uneven_times(sampler):
    """As in SDEdit: from t = 0.6 on, over uneven times, the law of one Gaussian comes out."""
    law = GaussianMixture(torch.tensor([[1.0, -2.0]], dtype=torch.float64), 0.5)
    denoise, grid = law.denoiser(RectifiedFlow()), 0.6 * torch.linspace(1, 0, 201, dtype=torch.float64) ** 1.5
    x0 = law.sample(8_000, generator=rng(0)).double()
    start = RectifiedFlow().add_noise(x0, torch.full([8_000], 0.6).double(), randn(8_000, 2, dtype=torch.float64))
    x = sampler(denoise, RectifiedFlow(), start, grid, generator=rng(1))
    # standard errors 0.0056 and 0.004, five of each; the first-order bias of 200 steps is below 0.5 % of the std
    assert_close(x.mean(0), law.means[0], rtol=0, atol=0.03)
    assert_close(x.std(0), torch.full([2], 0.5).double(), rtol=0, atol=0.022)


# --- Contracts that all four share


def recorder(answer=0.1):
    """A denoiser that writes down the times it is asked for."""
    seen = []

    def denoise(x_t, t):
        assert t.shape == (len(x_t),) and t.dtype == x_t.dtype and (t == t[0]).all()
        seen.append(t[0].item())
        return torch.full_like(x_t, answer)

    return denoise, seen


@each_sampler
def test_one_signature(sampler):
    names = list(inspect.signature(sampler).parameters)
    assert names[:4] == ["denoise", "schedule", "x_start", "steps"]
    assert {"generator", "trajectory"} < set(names) and ("eta" in names) == (sampler is ddim)


@each_schedule
@each_sampler
def test_denoise_is_asked_at_the_right_times(sampler, schedule):
    denoise, seen = recorder()
    sampler(denoise, schedule, randn(3, 2), 5, generator=rng())
    grid = [1.0, 0.8, 0.6, 0.4, 0.2]
    if sampler is heun:  # both ends of each stride, but for the last: 2 steps - 1
        grid = [1.0, 0.8, 0.8, 0.6, 0.6, 0.4, 0.4, 0.2, 0.2]
    assert seen == pytest.approx(grid, abs=1e-6)


@each_schedule
@each_sampler
@pytest.mark.parametrize("steps", [1, 3, times(1.0, 0.7, 0.0), times(0.2, 0.0)], ids=["1", "3", "tensor", "from 0.2"])
def test_a_step_that_ends_at_0_returns_the_guess(sampler, schedule, steps):
    """Exactly: no noise is added at the end."""
    seen = []

    def denoise(x_t, t):
        seen.append(0.5 * x_t + 1)
        return seen[-1]

    x = sampler(denoise, schedule, randn(4, 2), steps, generator=rng())
    assert torch.equal(x, seen[-1])


@each_schedule
@each_sampler
def test_finite_from_pure_noise(sampler, schedule):
    for steps in (1, 2, 1000):
        x = sampler(recorder()[0], schedule, randn(3, 2), steps, generator=rng(), trajectory=True)
        assert torch.isfinite(x).all()
        assert x.abs().max() < 20


@each_sampler
@pytest.mark.parametrize("shape", [(5, 2), (2, 1, 8, 8), (2, 3, 4, 5, 6)])
def test_shapes_and_trajectory(sampler, shape):
    x = randn(*shape)
    kept = x.clone()
    plain = sampler(recorder()[0], Cosine(), x, 4, generator=rng(1))
    path = sampler(recorder()[0], Cosine(), x, 4, generator=rng(1), trajectory=True)
    assert plain.shape == shape and path.shape == (5, *shape)
    assert torch.equal(path[0], kept) and torch.equal(x, kept) and torch.equal(path[-1], plain)
    two = sampler(recorder()[0], Cosine(), x, times(0.9, 0.5, 0.3), generator=rng(1), trajectory=True)
    assert two.shape == (3, *shape)


@each_sampler
def test_a_tensor_of_times_equals_the_number(sampler):
    denoise, x = points("gaussians").denoiser(Cosine()), randn(6, 2)
    one = sampler(denoise, Cosine(), x, 8, generator=rng(1))
    other = sampler(denoise, Cosine(), x, torch.linspace(1, 0, 9, dtype=torch.float64), generator=rng(1))
    assert torch.equal(one, other)
    assert torch.equal(time_grid(8), torch.linspace(1, 0, 9, dtype=torch.float64))


@each_sampler
def test_randomness_follows_the_generator_and_leaves_the_global_one_alone(sampler):
    denoise, x = points("gaussians").denoiser(Cosine()), randn(6, 2)
    before = torch.get_rng_state()
    options = {"eta": 0.5} if sampler is ddim else {}
    a, b, c = (sampler(denoise, Cosine(), x, 8, generator=rng(s), **options) for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert torch.equal(a, c) == (sampler in (euler, heun))  # those two draw nothing
    assert torch.equal(torch.get_rng_state(), before)


def test_ddim_draws_nothing_at_eta_0():
    generator = rng(1)
    before = generator.get_state()
    ddim(recorder()[0], Cosine(), randn(3, 2), 4, generator=generator)
    assert torch.equal(generator.get_state(), before)


@each_sampler
def test_no_gradients_and_a_float32_sample_stays_float32(sampler):
    weight = torch.nn.Parameter(torch.tensor(0.5))
    x = sampler(lambda x_t, t: weight * x_t, LinearBeta(), randn(3, 2), 4, generator=rng())
    assert not x.requires_grad and x.dtype == torch.float32


# --- With the exact denoiser, the law of the data

N = 4000
# All four samplers, all three schedules and all three sets, each at least once: the sets of 256 beads take long.
PAIRS = [
    ("moons", ancestral, "LinearBeta"), ("swiss_roll", ddim, "Cosine"),
    ("gaussians", euler, "LinearBeta"), ("gaussians", heun, "RectifiedFlow"),
]  # fmt: skip


@pytest.fixture(scope="module")
def floors():
    """The real-real floor of each set: the median over 20 independent pairs."""
    result = {}
    for name in POINT_SETS:
        sample = partial(points(name).sample, N, generator=rng(100))
        result[name] = real_floor(sample, pairs=20)
    return result


@pytest.mark.parametrize(("name", "sampler", "schedule"), PAIRS, ids=[f"{n}-{s.__name__}-{c}" for n, s, c in PAIRS])
def test_exact_denoiser_lands_on_the_data(name, sampler, schedule, floors):
    """200 steps, 4,000 samples against 4,000: the median of seven seeds is within 1.5 times the floor."""
    law, schedule = points(name), next(s for s in SCHEDULES if type(s).__name__ == schedule)
    denoise, ratios = law.denoiser(schedule), []
    for seed in range(7):
        generator = rng(seed)
        start = torch.randn(N, 2, generator=generator)
        x = sampler(denoise, schedule, start, 200, generator=generator)
        ratios.append(sliced_wasserstein(x, law.sample(N, generator=generator)) / floors[name])
    assert median(ratios) < 1.5, ratios
