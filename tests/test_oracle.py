"""Exact denoisers against brute force, closed forms and Tweedie's formula."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.testing import assert_close

from sora_lib import Cosine, EmpiricalDenoiser, GaussianMixture, LinearBeta, RectifiedFlow, points

SCHEDULES = [LinearBeta(), Cosine(), RectifiedFlow()]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
MEANS = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
STD = 0.4


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def mixture():
    return GaussianMixture(MEANS, STD, WEIGHTS)


def coefficients(schedule, time):
    t = torch.tensor([time], dtype=torch.float64)
    return schedule.alpha(t).item(), schedule.sigma(t).item()


def prior():
    return MixtureSameFamily(Categorical(WEIGHTS), Independent(Normal(MEANS, torch.tensor(STD).double()), 1))


# --- GaussianMixture: its denoiser


@each_schedule
@pytest.mark.parametrize("time", [0.05, 0.4, 0.7, 0.97])
def test_denoiser_equals_integration_on_a_grid(schedule, time):
    """E[x0 | x_t] = sum over a fine grid of x0 p(x0) N(x_t; alpha x0, sigma^2) / the same without x0."""
    alpha, sigma = coefficients(schedule, time)
    axis = torch.linspace(-5, 5, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)  # [401^2, 2]
    x_t = alpha * torch.tensor([[1.2, 0.3], [0.0, 0.0], [-1.0, -1.0]], dtype=torch.float64) + sigma * 0.5
    x0_hat = mixture().denoiser(schedule)(x_t, torch.full([3], time, dtype=torch.float64))
    for x, answer in zip(x_t, x0_hat, strict=True):
        weight = torch.softmax(prior().log_prob(grid) - (x - alpha * grid).square().sum(1) / (2 * sigma**2), dim=0)
        # the trapezoid rule on Gaussians is exact up to exp(-2 (pi s / h)^2); the narrowest s is about 0.04, h 0.025
        assert_close(answer, weight @ grid, rtol=1e-6, atol=1e-6)


@each_schedule
def test_denoiser_equals_importance_sampling(schedule):
    """No density of the prior at all: weigh the mixture's own samples by N(x_t; alpha x0, sigma^2)."""
    x0 = mixture().sample(400_000, generator=torch.Generator().manual_seed(0)).double()
    alpha, sigma = coefficients(schedule, 0.6)
    x_t = torch.tensor([[0.3, 0.2], [-0.5, 0.8]], dtype=torch.float64)
    x0_hat = mixture().denoiser(schedule)(x_t, torch.full([2], 0.6, dtype=torch.float64))
    for x, answer in zip(x_t, x0_hat, strict=True):
        weight = torch.softmax(-(x - alpha * x0).square().sum(1) / (2 * sigma**2), dim=0)
        estimate = weight @ x0
        error = (weight.square() @ (x0 - estimate).square()).sqrt()  # the estimate's standard error
        assert ((answer - estimate).abs() < 5 * error).all()
        assert (error < 0.01).all()  # so the line above says something


@each_schedule
def test_one_gaussian_has_a_linear_denoiser(schedule):
    """x0_hat = m + Cov(x0, x_t) Var(x_t)^-1 (x_t - alpha m), by solving the linear system for a full covariance."""
    mean, d = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64), 0.7
    t = torch.linspace(0.0, 1.0, 21, dtype=torch.float64)
    x_t = randn(21, 3)
    x0_hat = GaussianMixture(mean, d).denoiser(schedule)(x_t, t)
    for i, time in enumerate(t.tolist()):
        alpha, sigma = coefficients(schedule, time)
        cov, var = alpha * d**2 * torch.eye(3).double(), (alpha**2 * d**2 + sigma**2) * torch.eye(3).double()
        by_hand = mean[0] + cov @ torch.linalg.solve(var, x_t[i] - alpha * mean[0])
        assert_close(x0_hat[i], by_hand, rtol=1e-10, atol=1e-10)  # float64


@each_schedule
def test_tweedies_formula(schedule):
    """alpha x0_hat = x_t + sigma^2 grad log p_t(x_t), with the gradient by autograd."""
    for time in (0.1, 0.5, 0.9):
        alpha, sigma = coefficients(schedule, time)
        spread = torch.tensor(math.sqrt(alpha**2 * STD**2 + sigma**2), dtype=torch.float64)
        law = MixtureSameFamily(Categorical(WEIGHTS), Independent(Normal(alpha * MEANS, spread.expand(3, 2)), 1))
        x = (2 * randn(50, 2)).requires_grad_(True)
        (score,) = torch.autograd.grad(law.log_prob(x).sum(), x)
        x0_hat = mixture().denoiser(schedule)(x.detach(), torch.full([50], time, dtype=torch.float64))
        assert_close(alpha * x0_hat, x.detach() + sigma**2 * score, rtol=1e-9, atol=1e-9)


@each_schedule
def test_responsibilities_are_bayes_rule(schedule):
    x_t, t = randn(40, 2), torch.linspace(0.05, 1, 40, dtype=torch.float64)
    ours = mixture().responsibilities(x_t, t, schedule)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    spread = (alpha**2 * STD**2 + sigma**2).sqrt()[..., None]  # [B, 1, 1]
    joint = WEIGHTS * Normal(alpha[..., None] * MEANS, spread).log_prob(x_t[:, None]).sum(-1).exp()
    assert_close(ours, joint / joint.sum(1, keepdim=True), rtol=1e-9, atol=1e-12)


@each_schedule
def test_the_ends_of_time(schedule):
    x_t = randn(5, 2, dtype=torch.float32)
    denoise = mixture().denoiser(schedule)
    assert_close(denoise(x_t, torch.zeros(5)), x_t, rtol=1e-6, atol=1e-6)  # float32: a mean added and taken away
    if not isinstance(schedule, LinearBeta):  # alpha(1) = 0: x_t says nothing
        prior_mean = (WEIGHTS @ MEANS).float().expand(5, 2)
        assert_close(denoise(x_t, torch.ones(5)), prior_mean, rtol=1e-6, atol=1e-6)


def test_each_row_uses_its_own_time_and_float32_agrees_with_float64():
    x_t, t = randn(30, 2), torch.linspace(0, 1, 30, dtype=torch.float64)
    denoise = points("moons").denoiser(Cosine())
    rows = torch.cat([denoise(x_t[i : i + 1], t[i : i + 1]) for i in range(30)])
    assert_close(denoise(x_t, t), rows, rtol=1e-9, atol=1e-9)
    # logits up to |x| |m| / variance = 1e3 in float32 err by 1e-4, which moves an average of beads by less than 1e-3
    assert_close(denoise(x_t.float(), t.float()).double(), rows, rtol=1e-3, atol=1e-3)


def test_far_away_points_do_not_overflow():
    x_t = torch.tensor([[1e4, -1e4], [-1e4, 0.0]])
    x0_hat = points("gaussians").denoiser(RectifiedFlow())(x_t, torch.tensor([0.01, 0.99]))
    assert torch.isfinite(x0_hat).all()


# --- GaussianMixture: its samples


def test_samples_have_the_mixtures_moments_and_weights():
    n = 200_000
    x = mixture().sample(n, generator=torch.Generator().manual_seed(0)).double()
    mean = WEIGHTS @ MEANS
    centred = MEANS - mean
    cov = (WEIGHTS[:, None] * centred).T @ centred + STD**2 * torch.eye(2).double()
    # standard errors: 1.2 / sqrt(n) = 0.003 for a mean, about sqrt(2) 1.5 / sqrt(n) = 0.005 for a covariance; four each
    assert_close(x.mean(0), mean, rtol=0, atol=0.012)
    assert_close(x.T.cov(), cov, rtol=0, atol=0.02)
    nearest = torch.cdist(x, MEANS).argmin(1)  # the components are 6 std apart: next to none is misassigned
    shares = torch.bincount(nearest, minlength=3) / n
    assert_close(shares.double(), WEIGHTS, rtol=0, atol=0.005)  # standard error 0.0011


def test_sample_noise_is_gaussian():
    x = GaussianMixture(torch.zeros(1, 1), 1.0).sample(100_000, generator=torch.Generator().manual_seed(0))
    assert x.pow(4).mean().item() == pytest.approx(3, abs=0.15)  # kurtosis; standard error sqrt(96 / n) = 0.03
    assert GaussianMixture(torch.zeros(1, 1), 1.0).weights.tolist() == [1.0]


def test_sampling_follows_the_generator_and_leaves_the_global_one_alone():
    before = torch.get_rng_state()
    a, b, c = (mixture().sample(50, generator=torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


# --- EmpiricalDenoiser


@each_schedule
def test_empirical_denoiser_equals_float64_brute_force(schedule):
    data = randn(40, 3, seed=1)
    x_t, t = randn(12, 3, seed=2), torch.linspace(0.03, 1, 12, dtype=torch.float64)
    ours = EmpiricalDenoiser(data, schedule)(x_t, t)
    for i in range(12):
        alpha, sigma = coefficients(schedule, t[i].item())
        logits = [-sum((x_t[i] - alpha * row).tolist()[j] ** 2 for j in range(3)) / (2 * sigma**2) for row in data]
        weights = [math.exp(logit - max(logits)) for logit in logits]
        by_hand = sum(w * row for w, row in zip(weights, data, strict=True)) / sum(weights)
        assert_close(ours[i], by_hand, rtol=1e-9, atol=1e-9)
    assert_close(EmpiricalDenoiser(data.float(), schedule)(x_t.float(), t.float()).double(), ours, rtol=1e-3, atol=1e-3)


@each_schedule
def test_empirical_denoiser_is_the_limit_of_narrow_beads(schedule):
    data = randn(20, 2, seed=1)
    x_t, t = randn(30, 2, seed=2), torch.linspace(0.1, 1, 30, dtype=torch.float64)
    narrow = GaussianMixture(data, 1e-4).denoiser(schedule)(x_t, t)
    # the beads' std enters as std^2 / sigma^2, at most 1e-8 / 0.001 = 1e-5 (LinearBeta, t = 0.1: sigma^2 = 0.1)
    assert_close(EmpiricalDenoiser(data, schedule)(x_t, t), narrow, rtol=1e-4, atol=1e-4)


@each_schedule
def test_empirical_denoiser_memorises(schedule):
    """With a little noise on a data point it returns that very point; with no noise x_t; with nothing else the mean."""
    data = randn(50, 1, 8, 8, seed=1, dtype=torch.float32)
    denoise = EmpiricalDenoiser(data, schedule)
    t = torch.full([50], 0.05)
    noisy = schedule.add_noise(data, t, randn(50, 1, 8, 8, seed=2, dtype=torch.float32))
    assert_close(denoise(noisy, t), data, rtol=1e-5, atol=1e-5)  # the next point weighs exp(-1000) or less
    assert_close(denoise(noisy, torch.zeros(50)), noisy, rtol=0, atol=0)
    if not isinstance(schedule, LinearBeta):
        mean = data.mean(0).expand(50, 1, 8, 8)
        assert_close(denoise(noisy, torch.ones(50)), mean, rtol=1e-5, atol=1e-5)


def test_empirical_denoiser_keeps_the_shape_of_images():
    data = randn(9, 3, 4, 5, seed=1)
    x_t, t = randn(7, 3, 4, 5, seed=2), torch.linspace(0.1, 0.9, 7, dtype=torch.float64)
    flat = EmpiricalDenoiser(data.flatten(1), Cosine())(x_t.flatten(1), t)
    assert_close(EmpiricalDenoiser(data, Cosine())(x_t, t), flat.reshape(x_t.shape), rtol=0, atol=0)
