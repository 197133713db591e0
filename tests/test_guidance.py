"""Guidance and conditions: the formula, what it means in every space, and that labels reach the network."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from sora_lib import Cosine, GaussianMixture, LinearBeta, RectifiedFlow, as_denoiser, convert, guided, heun, train
from sora_lib.samplers import ancestral
from sora_lib.training import denoising_loss
from sora_lib.transformer import DiT

MEANS = torch.tensor([[0.0, 1.0], [-0.9, -0.5], [0.9, -0.5]])
EVERYTHING = GaussianMixture(MEANS, 0.6)
FIRST = GaussianMixture(MEANS[:1], 0.6)
SCHEDULES = [LinearBeta(), Cosine(), RectifiedFlow()]

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


def draws(seed=0, n=64):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 2, generator=g), 0.05 + 0.9 * torch.rand(n, generator=g)


@each_schedule
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.5, 7.5])
def test_guided_equals_the_formula(schedule, scale):
    x_t, t = draws()
    cond, uncond = FIRST.denoiser(schedule)(x_t, t), EVERYTHING.denoiser(schedule)(x_t, t)
    given = guided(FIRST.denoiser(schedule), EVERYTHING.denoiser(schedule), scale)(x_t, t)
    torch.testing.assert_close(given, uncond + scale * (cond - uncond))
    w = scale - 1  # the paper's strength: 2207.12598, eq. 6
    torch.testing.assert_close(given, (1 + w) * cond - w * uncond, atol=1e-5, rtol=1e-5)


def test_scale_0_ignores_the_condition_and_1_is_the_plain_conditional():
    x_t, t = draws(1)
    flow = RectifiedFlow()
    cond, uncond = FIRST.denoiser(flow), EVERYTHING.denoiser(flow)
    assert torch.equal(guided(cond, uncond, 0)(x_t, t), uncond(x_t, t))
    torch.testing.assert_close(guided(cond, uncond, 1)(x_t, t), cond(x_t, t))
    torch.testing.assert_close(guided(cond, cond, 5)(x_t, t), cond(x_t, t))


@each_schedule
@pytest.mark.parametrize("space", ["eps", "v", "score"])
def test_guiding_in_any_space_is_the_same(schedule, space):
    x_t, t = draws(2)
    cond, uncond = FIRST.denoiser(schedule)(x_t, t), EVERYTHING.denoiser(schedule)(x_t, t)
    there = [convert(x0, x_t, t, schedule, source="x0", target=space) for x0 in (cond, uncond)]
    mixed = there[1] + 3 * (there[0] - there[1])
    back = convert(mixed, x_t, t, schedule, source=space, target="x0")
    # float32; LinearBeta's alpha is 0.02 at t = 0.95, and dividing by it multiplies the rounding by 50
    torch.testing.assert_close(back, uncond + 3 * (cond - uncond), atol=2e-3, rtol=1e-4)


def log_density(mixture, x, t, schedule):
    """log p_t(x) of a mixture of round Gaussians, up to a constant that is the same for all mixtures of one width."""
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    variance = (alpha * mixture.std) ** 2 + sigma**2
    squares = (x[:, None] - alpha[..., None] * mixture.means.to(x)).square().sum(-1)  # [B, K]
    return torch.logsumexp(mixture.weights.log().to(x) - squares / (2 * variance), dim=1)


@each_schedule
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0, 6.0])
def test_the_guided_score_is_that_of_the_tilted_density(schedule, scale):
    x_t, t = (a.double() for a in draws(3))
    x_t.requires_grad_()
    tilted = scale * log_density(FIRST, x_t, t, schedule) + (1 - scale) * log_density(EVERYTHING, x_t, t, schedule)
    (exact,) = torch.autograd.grad(tilted.sum(), x_t)
    x_t = x_t.detach()
    x0_hat = guided(FIRST.denoiser(schedule), EVERYTHING.denoiser(schedule), scale)(x_t, t)
    score = convert(x0_hat, x_t, t, schedule, source="x0", target="score")
    torch.testing.assert_close(score, exact, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("scale", [1.5, 3.0])
def test_samples_do_not_follow_the_tilted_density(one_thread, scale):
    """One Gaussian N(0, 1) among all, N(0, 2): three variances, by three formulas (example 1 of arXiv 2408.09000).

    The tilted density has 2 / (1 + s), the deterministic sampler 2^(1 - s), the random one
    (2 - 2^(2 - 2 s)) / (2 s - 1).
    """
    flow, g = RectifiedFlow(), torch.Generator().manual_seed(0)
    narrow, wide = GaussianMixture(torch.zeros(1, 1), 1.0), GaussianMixture(torch.zeros(1, 1), math.sqrt(2))
    denoise = guided(narrow.denoiser(flow), wide.denoiser(flow), scale)
    start = torch.randn(20_000, 1, generator=g)
    start = start / start.std()
    by_ode = heun(denoise, flow, start, 50).var().item()
    by_noise = ancestral(denoise, flow, start, 200, generator=g).var().item()
    assert by_ode == pytest.approx(2 ** (1 - scale), rel=0.02)
    assert by_noise == pytest.approx((2 - 2 ** (2 - 2 * scale)) / (2 * scale - 1), rel=0.08)  # 200 steps leave 4 %
    assert by_ode < by_noise < 0.95 * 2 / (1 + scale)


@pytest.mark.parametrize("scale", [-0.1, math.nan, math.inf, 1e6, "2", None])
def test_a_bad_scale_raises(scale):
    flow = RectifiedFlow()
    with pytest.raises((ValueError, TypeError), match="scale"):
        guided(FIRST.denoiser(flow), EVERYTHING.denoiser(flow), scale)


# --- Conditions on their way to the network


class Listener(nn.Module):
    """A network that keeps what it was called with, and answers with a multiple of the noisy sample."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.heard = []

    def forward(self, x_t, t, *cond):
        self.heard.append(cond)
        return self.factor * x_t


def test_train_gives_the_network_the_labels_of_its_batch():
    labels = [torch.randint(0, 5, (4,), generator=torch.Generator().manual_seed(i)) for i in range(3)]
    pairs = [(torch.randn(4, 2), label) for label in labels]
    model = Listener()
    assert len(list(train(model, pairs, RectifiedFlow(), steps=3, prediction="v"))) == 3
    assert [len(cond) for cond in model.heard] == [1, 1, 1]
    assert all(torch.equal(cond[0], label) for cond, label in zip(model.heard, labels, strict=True))
    model.heard.clear()
    list(train(model, [x0 for x0, _ in pairs], RectifiedFlow(), steps=3, prediction="v"))
    assert model.heard == [(), (), ()]


def test_as_denoiser_passes_the_condition_at_every_step():
    label, model = torch.tensor([3, 1, 4]), Listener()
    heun(as_denoiser(model, RectifiedFlow(), "v", label), RectifiedFlow(), torch.randn(3, 2), 4)
    assert len(model.heard) == 7  # 2 * 4 - 1
    assert all(torch.equal(cond[0], label) for cond in model.heard)
    model.heard.clear()
    as_denoiser(model, RectifiedFlow(), "v")(torch.randn(3, 2), torch.full([3], 0.5))
    assert model.heard == [()]


def test_the_loss_depends_on_the_labels():
    torch.manual_seed(0)
    model = DiT(width=24, depth=1, heads=2, classes=3)
    for parameter in model.parameters():  # a new DiT answers 0, whatever it is told
        nn.init.normal_(parameter, std=0.2)
    x0, eps, t = torch.randn(4, 1, 1, 4, 4), torch.randn(4, 1, 1, 4, 4), torch.full([4], 0.5)
    one, two = (denoising_loss(model, x0, t, eps, RectifiedFlow(), "v", torch.full([4], k)) for k in (0, 3))
    assert abs(one.item() - two.item()) > 1e-4


def test_a_network_learns_its_condition(one_thread):
    """The class decides the sign of the data; told of it, a network is right, and with the wrong label it is wrong."""

    class Signed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(3, 2)
            self.mix = nn.Linear(2, 2, bias=False)

        def forward(self, x_t, t, label):
            return self.embed(label) + self.mix(x_t)

    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)

    def batches():
        while True:
            label = torch.randint(0, 2, (128,), generator=g)
            x0 = (2.0 * label - 1)[:, None].expand(-1, 2) + 0.1 * torch.randn(128, 2, generator=g)
            yield x0, torch.where(torch.rand(128, generator=g) < 0.2, 2, label)

    *_, (_, _, state) = train(
        Signed(), batches(), RectifiedFlow(), steps=300, prediction="x0", lr=0.1, generator=g, ema=0.9
    )
    x_t, t = torch.zeros(3, 2), torch.full([3], 0.9)
    x0_hat = as_denoiser(state.ema.model, RectifiedFlow(), "x0", torch.tensor([0, 1, 2]))(x_t, t)
    assert (x0_hat[0] < -0.4).all() and (x0_hat[1] > 0.4).all() and (x0_hat[2].abs() < 0.2).all()


# --- Label dropout, as the training script does it


@pytest.fixture(scope="module")
def script():
    path = Path(__file__).resolve().parents[1] / "training" / "digit_dit.py"
    spec = importlib.util.spec_from_file_location("digit_dit", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # it imports ship.py, which lies beside it
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def test_a_tenth_of_the_labels_is_dropped(script):
    g = torch.Generator().manual_seed(0)
    images = torch.linspace(0, 0.9, 10)[:, None, None, None].expand(10, 1, 8, 8)  # an image tells its own label
    run = script.batches(images, torch.arange(10), g)
    pairs = [next(run) for _ in range(100)]
    labels = torch.cat([label for _, label in pairs])
    truth = torch.cat([((x[:, 0, 0, 0, 0] + 1) * 5).round().long() for x, _ in pairs])
    dropped = labels == 10
    assert dropped.float().mean().item() == pytest.approx(0.1, abs=0.011)  # 12,800 labels: four standard deviations
    assert torch.equal(labels[~dropped], truth[~dropped])
    assert truth[dropped].unique().tolist() == list(range(10))
    assert pairs[0][0].shape[1:] == (1, 1, 8, 8)
