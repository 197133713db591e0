"""MLPDenoiser and its parts; a network as a denoiser."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from sora_lib import Cosine, LinearBeta, MLPDenoiser, RectifiedFlow, as_denoiser, convert, points
from sora_lib.denoisers import ResidualBlock, TimeEmbedding

SCHEDULES = [LinearBeta(), Cosine(), RectifiedFlow()]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_time_embedding_is_sines_then_cosines_from_half_a_turn_to_64():
    t, features = torch.tensor([0.0, 0.3, 1.0]), TimeEmbedding(16)(torch.tensor([0.0, 0.3, 1.0]))
    turns = [0.5 * 128 ** (k / 7) for k in range(8)]  # evenly in the log
    by_hand = [[f(2 * math.pi * n * u) for f in (math.sin, math.cos) for n in turns] for u in t.tolist()]
    # a float32 angle of up to 2 pi 64 = 402 is rounded by 2^-24 of itself, 2.4e-5; twice that for the frequency's own
    assert_close(features, torch.tensor(by_hand), rtol=0, atol=1e-4)


def test_time_embedding_is_far_from_linear_in_t():
    """Regress the features on 1 and t: a linear embedding would leave nothing, this one leaves most."""
    t = torch.linspace(0, 1, 500)
    features = TimeEmbedding()(t)
    design = torch.stack([torch.ones(500), t], dim=1)
    left = features - design @ torch.linalg.lstsq(design, features).solution
    assert left.var() > 0.8 * features.var()
    assert features.abs().max() <= 1


def test_time_embedding_tells_all_times_apart():
    features = TimeEmbedding()(torch.linspace(0, 1, 201))
    assert torch.pdist(features).min() > 0.3


def test_residual_block_is_the_formula_in_its_docstring():
    block, h, time = ResidualBlock(8, 4), torch.randn(5, 8), torch.randn(5, 4)
    normed = (h - h.mean(1, keepdim=True)) / (h.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    inner = normed + time @ block.time.weight.T + block.time.bias
    inner = inner @ block.mlp[0].weight.T + block.mlp[0].bias
    inner = inner * torch.sigmoid(inner)
    assert_close(block(h, time), h + inner @ block.mlp[2].weight.T + block.mlp[2].bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("dim", "width", "depth", "time_dim"), [(2, 128, 3, 32), (5, 7, 1, 2)])
def test_output_has_the_shape_of_the_input(dim, width, depth, time_dim):
    model = MLPDenoiser(dim, width, depth, time_dim)
    assert model(torch.randn(6, dim), torch.rand(6)).shape == (6, dim)
    assert len(model.blocks) == depth


def test_each_row_is_answered_by_itself():
    """No batch statistics: a row's answer depends on that row alone, in train() as in eval()."""
    model, x, t = MLPDenoiser(), torch.randn(9, 2), torch.rand(9)
    rows = torch.cat([model(x[i : i + 1], t[i : i + 1]) for i in range(9)])
    assert_close(model(x, t), rows, rtol=1e-4, atol=1e-5)
    assert_close(model.eval()(x, t), rows, rtol=1e-4, atol=1e-5)


def test_it_reads_the_time_and_the_point():
    model, x = MLPDenoiser(), torch.randn(9, 2)
    early, late = model(x, torch.full([9], 0.1)), model(x, torch.full([9], 0.9))
    assert ((early - late).abs().amax(1) > 1e-3).all()
    assert ((model(x + 1, torch.full([9], 0.1)) - early).abs().amax(1) > 1e-3).all()
    t = torch.full([9], 0.4, requires_grad=True)
    (slope,) = torch.autograd.grad(model(x, t).sum(), t)
    assert (slope != 0).all()


def test_every_weight_gets_a_gradient():
    model = MLPDenoiser()
    model(torch.randn(64, 2), torch.rand(64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_the_frequencies_are_no_weights():
    assert not [name for name in MLPDenoiser().state_dict() if "frequencies" in name]


class Oracle(nn.Module):
    """A perfect network: it predicts what the exact denoiser implies."""

    def __init__(self, schedule, prediction):
        super().__init__()
        self.schedule, self.prediction = schedule, prediction
        self.denoise = points("gaussians").denoiser(schedule)

    def forward(self, x_t, t):
        return convert(self.denoise(x_t, t), x_t, t, self.schedule, source="x0", target=self.prediction)


@each_schedule
@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "score"])
def test_as_denoiser_gives_back_x0(schedule, prediction):
    x_t, t = torch.randn(30, 2, dtype=torch.float64), torch.linspace(0.02, 0.98, 30, dtype=torch.float64)
    denoise = as_denoiser(Oracle(schedule, prediction), schedule, prediction)
    assert_close(denoise(x_t, t), points("gaussians").denoiser(schedule)(x_t, t), rtol=1e-9, atol=1e-9)


def test_as_denoiser_predicts_eps_unless_told():
    model, x_t, t = MLPDenoiser(), torch.randn(4, 2), torch.full([4], 0.5)
    by_hand = (x_t - 0.5 * model(x_t, t)) / 0.5
    assert_close(as_denoiser(model, RectifiedFlow())(x_t, t), by_hand, rtol=1e-5, atol=1e-5)


def test_as_denoiser_where_nothing_is_known_of_x0():
    with pytest.raises(ValueError, match="alpha is 0"):
        as_denoiser(MLPDenoiser(), RectifiedFlow(), "eps")(torch.randn(4, 2), torch.ones(4))
