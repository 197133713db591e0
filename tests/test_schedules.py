"""Schedules against the papers' formulas; conversions by round trip, at both ends, and against a mixture's score."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.testing import assert_close

from sora_lib import Cosine, GaussianMixture, LinearBeta, RectifiedFlow, convert
from sora_lib.schedules import PREDICTIONS, check_schedule, expand

SCHEDULES = [LinearBeta(), Cosine(), RectifiedFlow()]
KINDS = sorted(PREDICTIONS)
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def randn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def betas_of(steps, start, end):
    """beta_j = start + (end - start) (j - 1) / (steps - 1), j = 1..steps, as plain float64 numbers."""
    return [start + (end - start) * j / max(steps - 1, 1) for j in range(steps)]


# --- LinearBeta


@pytest.mark.parametrize(
    "steps, start, end", [(1000, 1e-4, 0.02), (10, 0.01, 0.4), (1, 0.3, 0.3), (4000, 2.5e-5, 5e-3)]
)
def test_linear_beta_is_the_product_of_one_minus_beta(steps, start, end):
    schedule = LinearBeta(steps, start, end)
    product, alpha_bar = 1.0, [1.0]
    for beta in betas_of(steps, start, end):
        product *= 1 - beta
        alpha_bar.append(product)
    alpha_bar = torch.tensor(alpha_bar, dtype=torch.float64)
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    # float64 sums and products of at most 4,000 factors: errors below 4,000 * 2^-52, about 1e-12
    assert_close(schedule.alpha(t) ** 2, alpha_bar, rtol=1e-11, atol=0)
    assert_close(schedule.sigma(t) ** 2, 1 - alpha_bar, rtol=1e-9, atol=1e-15)
    # the contract in float32, where a time i / steps is rounded too: 1e-6
    assert_close(schedule.alpha(t.float()).double() ** 2, alpha_bar, rtol=0, atol=1e-6)
    # sigma keeps its relative precision down to the first node: no 1 - alpha_bar in float32.
    # Measured 4e-7: a time rounded to float32 moves sigma by at most half its own relative error, 3e-8
    assert_close(schedule.sigma(t.float()[1:]).double(), (1 - alpha_bar[1:]).sqrt(), rtol=1e-6, atol=0)


def test_the_first_betas_are_ddpms():
    """Numbers by hand: alpha_bar_1 = 1 - 1e-4, and the second beta is 1e-4 + 0.0199 / 999."""
    alpha = LinearBeta().alpha(torch.tensor([0.0, 0.001, 0.002], dtype=torch.float64))
    second = 0.9999 * (1 - (1e-4 + 0.0199 / 999))
    assert_close(alpha**2, torch.tensor([1.0, 0.9999, second], dtype=torch.float64), rtol=1e-12, atol=0)
    end = LinearBeta().alpha(torch.ones(1)).item() ** 2
    assert 4.0e-5 < end < 4.1e-5  # DDPM, section 4: the prior's KL is about 1e-5 bits a dimension; alpha_bar_T is 4e-5


def test_linear_beta_interpolates_log_alpha_bar_between_nodes():
    schedule, share = LinearBeta(10, 0.01, 0.4), 0.3
    nodes = torch.arange(10, dtype=torch.float64) / 10
    left, right = schedule.alpha(nodes).log(), schedule.alpha(nodes + 0.1).log()
    between = schedule.alpha(nodes + share * 0.1).log()
    assert_close(between, (1 - share) * left + share * right, rtol=1e-12, atol=1e-14)


# --- Cosine and RectifiedFlow


def test_cosine_is_its_papers_formula():
    t = torch.linspace(0, 1, 501, dtype=torch.float64)
    f = lambda u: torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731  (arXiv 2102.09672, eq. 17)
    alpha_bar = f(t) / f(torch.zeros(1, dtype=torch.float64))
    assert_close(Cosine().alpha(t) ** 2, alpha_bar, rtol=0, atol=1e-14)
    assert_close(Cosine().sigma(t) ** 2, 1 - alpha_bar, rtol=0, atol=1e-14)
    assert_close(Cosine().alpha(t.float()).double() ** 2, alpha_bar, rtol=0, atol=2e-7)  # float32: 2^-23 a factor


@each_schedule
def test_ends_are_exact(schedule):
    ends = torch.tensor([0.0, 1.0])
    assert schedule.alpha(ends)[0] == 1 and schedule.sigma(ends)[0] == 0
    if isinstance(schedule, LinearBeta):  # DDPM's process keeps a little of the data
        assert 0.0063 < schedule.alpha(ends)[1] < 0.0064
    else:
        assert schedule.alpha(ends)[1] == 0 and schedule.sigma(ends)[1] == 1
    assert schedule.snr(ends)[0] == math.inf


def test_cosine_sigma_is_precise_at_small_times():
    """sin^2 of a sum, written without cancellation: 1 - cos^2(b) / cos^2(a) = sin(b - a) sin(b + a) / cos^2(a)."""
    t = torch.tensor([1e-6, 1e-4, 1e-3, 1e-2], dtype=torch.float64)
    a, b = 0.008 / 1.008 * math.pi / 2, (t + 0.008) / 1.008 * math.pi / 2
    exact = (torch.sin(b - a) * torch.sin(b + a)).sqrt() / math.cos(a)
    # 1 - alpha^2 in float64 loses 2^-52 / sigma^2, and sigma^2 is 4e-8 at t = 1e-6: 3e-9, halved by the root
    assert_close(Cosine().sigma(t), exact, rtol=5e-9, atol=0)


def test_rectified_flow_is_the_straight_line():
    t = torch.linspace(0, 1, 11)
    assert_close(RectifiedFlow().alpha(t), 1 - t)
    assert_close(RectifiedFlow().sigma(t), t)
    x0, eps = randn(11, 2, seed=1), randn(11, 2, seed=2)
    assert_close(RectifiedFlow().add_noise(x0, t, eps), torch.lerp(x0, eps, t[:, None]))


# --- All schedules


@each_schedule
def test_noise_only_grows(schedule):
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    assert (schedule.alpha(t).diff() < 0).all()
    assert (schedule.sigma(t).diff() > 0).all() or isinstance(schedule, Cosine)  # Cosine: flat in float64 at t = 1
    assert (schedule.snr(t)[1:].diff() < 0).all()
    if not isinstance(schedule, RectifiedFlow):
        assert_close(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones_like(t), rtol=0, atol=1e-14)


@each_schedule
def test_derivatives_equal_autograd_and_finite_differences(schedule):
    t = torch.arange(1, 200, dtype=torch.float64) / 200 + 0.0004  # off the nodes, where LinearBeta has kinks
    t.requires_grad_(True)
    alpha, sigma, alpha_dot, sigma_dot = schedule.curves(t)
    assert_close(
        schedule.alpha_dot(t), torch.autograd.grad(alpha.sum(), t, retain_graph=True)[0], rtol=1e-9, atol=1e-12
    )
    assert_close(schedule.sigma_dot(t), torch.autograd.grad(sigma.sum(), t)[0], rtol=1e-9, atol=1e-12)
    h = 1e-6  # central differences: error h^2 / 6 times a third derivative (below 1e5 here), plus 2^-52 / h
    t = t.detach()
    for curve, slope in [(schedule.alpha, alpha_dot), (schedule.sigma, sigma_dot)]:
        assert_close((curve(t + h) - curve(t - h)) / (2 * h), slope.detach(), rtol=1e-6, atol=1e-7)


@each_schedule
def test_snr_is_the_ratio_of_variances(schedule):
    t = torch.tensor([0.1, 0.5, 0.9])
    x0 = randn(3, 50_000, seed=1)
    signal = schedule.add_noise(x0, t, torch.zeros_like(x0)).var(dim=1)
    noise = schedule.add_noise(torch.zeros_like(x0), t, randn(3, 50_000, seed=2)).var(dim=1)
    # each variance has relative standard error sqrt(2 / 50,000) = 0.6 %; five of them, for a ratio, is 4.5 %
    assert_close(signal / noise, schedule.snr(t), rtol=0.045, atol=0)


@each_schedule
def test_add_noise_on_any_shape_uses_each_samples_own_time(schedule):
    t = torch.tensor([0.2, 0.9])
    x0, eps = randn(2, 3, 4, 5, seed=1), randn(2, 3, 4, 5, seed=2)
    by_hand = torch.stack([schedule.alpha(t)[i] * x0[i] + schedule.sigma(t)[i] * eps[i] for i in range(2)])
    assert_close(schedule.add_noise(x0, t, eps), by_hand)
    assert_close(schedule.add_noise(x0, torch.zeros(2), eps), x0, rtol=0, atol=0)


@each_schedule
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_curves_answer_in_the_dtype_and_shape_of_t(schedule, dtype):
    t = torch.full([3], 0.4, dtype=dtype)
    for curve in (schedule.alpha, schedule.sigma, schedule.alpha_dot, schedule.sigma_dot, schedule.snr):
        assert curve(t).shape == t.shape and curve(t).dtype == dtype


def test_expand_multiplies_per_sample():
    assert expand(torch.ones(4), torch.ones(4, 1, 2, 3)).shape == (4, 1, 1, 1)


# --- Conversions


def true_predictions(schedule, t, shape=(2,)):
    """x_t and all four predictions, written from the definitions, in float64."""
    x0, eps = randn(len(t), *shape, seed=1, dtype=torch.float64), randn(len(t), *shape, seed=2, dtype=torch.float64)
    alpha, sigma, alpha_dot, sigma_dot = (expand(c, x0) for c in schedule.curves(t))
    known = {"eps": eps, "x0": x0, "v": alpha_dot * x0 + sigma_dot * eps, "score": -eps / sigma}
    return alpha * x0 + sigma * eps, known


@each_schedule
@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_conversions_give_what_the_definitions_give_and_come_back(schedule, source, target):
    t = torch.linspace(0.02, 0.98, 49, dtype=torch.float64)
    for shape in [(2,), (1, 4, 3)]:
        x_t, known = true_predictions(schedule, t, shape)
        there = convert(known[source], x_t, t, schedule, source=source, target=target)
        # float64; dividing by alpha >= 0.008 or sigma >= 0.02 loses four digits at most, v twice that
        assert_close(there, known[target], rtol=1e-9, atol=1e-9)
        back = convert(there, x_t, t, schedule, source=target, target=source)
        assert_close(back, known[source], rtol=1e-9, atol=1e-9)


def test_v_of_rectified_flow_is_eps_minus_x0():
    x0, eps, t = randn(5, 2, seed=1), randn(5, 2, seed=2), torch.linspace(0.1, 0.9, 5)
    x_t = RectifiedFlow().add_noise(x0, t, eps)
    v = convert(eps, x_t, t, RectifiedFlow(), source="eps", target="v")
    assert_close(v, eps - x0, rtol=1e-5, atol=1e-5)  # float32, divided by alpha >= 0.1


LINEAR, COSINE, FLOW = SCHEDULES
# For each end of time: the conversions with a finite limit. All others must raise.
AT_0 = {("eps", "x0"), ("score", "x0"), ("score", "eps"), ("x0", "x0"), ("v", "x0")}
AT_1 = {
    ("eps", "score"),
    ("score", "eps"),
    ("x0", "eps"),
    ("x0", "score"),
    ("x0", "v"),
    ("v", "x0"),
    ("v", "eps"),
    ("v", "score"),
}
FINITE = {
    (LINEAR, 0.0): AT_0 | {("v", "eps"), ("v", "score"), ("score", "v")},  # sigma_dot is infinite, sigma sigma_dot not
    (COSINE, 0.0): AT_0 | {("v", "eps"), ("v", "score"), ("score", "v")},
    (FLOW, 0.0): AT_0 | {("v", "eps"), ("eps", "v"), ("score", "v")},
    (LINEAR, 1.0): {(a, b) for a in KINDS for b in KINDS},  # alpha(1) > 0: nothing is lost
    (COSINE, 1.0): AT_1,
    (FLOW, 1.0): AT_1,
}


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("source", KINDS)
@pytest.mark.parametrize(("schedule", "end"), FINITE, ids=lambda v: type(v).__name__ if v in SCHEDULES else str(v))
def test_conversions_at_the_ends(schedule, end, source, target):
    t = torch.full([3], end, dtype=torch.float64)
    x_t, given = randn(3, 2, seed=1, dtype=torch.float64), randn(3, 2, seed=2, dtype=torch.float64)

    def at(time):
        return convert(given, x_t, time, schedule, source=source, target=target)

    if source == target:
        assert_close(at(t), given, rtol=0, atol=0)
    elif (source, target) in FINITE[schedule, end]:
        inside = 1e-9 if end == 0 else 1 - 1e-9
        # continuous up to the end: sigma is at most sqrt(1e-9 * 20) = 1.5e-4 there, and values are below 1,000
        assert_close(at(t), at(torch.full_like(t, inside)), rtol=1e-3, atol=1e-3)
    else:
        with pytest.raises(ValueError, match=f"cannot convert '{source}' to '{target}' at t = {end:g}"):
            at(t)
        with pytest.raises(ValueError, match="cannot convert"):  # one bad time in the batch is enough
            at(torch.tensor([0.5, end, 0.5], dtype=torch.float64))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_at_0_everything_says_that_x0_is_x_t(schedule):
    x_t, given, t = randn(3, 2, seed=1), randn(3, 2, seed=2), torch.zeros(3)
    for source in ("eps", "v", "score"):
        assert_close(convert(given, x_t, t, schedule, source=source, target="x0"), x_t, rtol=0, atol=0)


@pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=lambda s: type(s).__name__)
def test_at_0_the_velocity_of_the_data_is_finite_where_that_of_a_single_point_is_not(schedule):
    """E[v | x] = alpha_dot (x + grad log p_0(x)) on a schedule with alpha^2 + sigma^2 = 1; for one Gaussian by hand."""
    mean, std = torch.tensor([0.5, -1.0], dtype=torch.float64), 0.4
    x = randn(20, 2, dtype=torch.float64)
    zero, soon = torch.zeros(20, dtype=torch.float64), torch.full([20], 1e-7, dtype=torch.float64)
    score = (mean - x) / std**2
    v = convert(score, x, zero, schedule, source="score", target="v")
    assert_close(v, schedule.alpha_dot(zero)[:, None] * (x + score), rtol=1e-12, atol=1e-12)
    assert_close(convert(v, x, zero, schedule, source="v", target="score"), score, rtol=1e-12, atol=1e-12)
    assert convert(v, x, zero, schedule, source="v", target="eps").abs().max() == 0
    x0_hat = GaussianMixture(mean[None], std).denoiser(schedule)(x, soon)
    nearby = convert(x0_hat, x, soon, schedule, source="x0", target="v")
    # at t = 1e-7 the exact answer differs by t times a slope below 1,000; x_t - alpha x0_hat loses sigma^2 >= 4e-9
    assert_close(nearby, v, rtol=1e-3, atol=1e-3)


@each_schedule
def test_the_score_is_the_gradient_of_log_p_t(schedule):
    """The exact x0_hat of a mixture, converted, against autograd through torch.distributions' density."""
    means = torch.tensor([[1.5, 0.0], [-1.0, 1.0], [0.0, -2.0]], dtype=torch.float64)
    weights, std = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), 0.4
    for time in (0.05, 0.3, 0.6, 0.95):
        t = torch.full([64], time, dtype=torch.float64)
        alpha, sigma = schedule.alpha(t)[0], schedule.sigma(t)[0]
        spread = (alpha**2 * std**2 + sigma**2).sqrt()
        law = MixtureSameFamily(Categorical(weights), Independent(Normal(alpha * means, spread.expand(3, 2)), 1))
        x_t = 2 * randn(64, 2, dtype=torch.float64)
        x = x_t.clone().requires_grad_(True)
        (score,) = torch.autograd.grad(law.log_prob(x).sum(), x)
        x0_hat = GaussianMixture(means, std, weights).denoiser(schedule)(x_t, t)
        ours = convert(x0_hat, x_t, t, schedule, source="x0", target="score")
        assert_close(ours, score, rtol=1e-8, atol=1e-8)  # float64, divided by sigma^2 >= 2e-3


def test_only_schedules_are_schedules():
    for wrong in ("cosine", Cosine, None):
        with pytest.raises(TypeError, match="schedule must be"):
            check_schedule(wrong)
