"""Chapter 07's table of conventions: its own lines with other random values, and each row on an exact denoiser."""

from pathlib import Path

import nbformat
import pytest
import torch
from torch.testing import assert_close

from sora_lib import Cosine, GaussianMixture, LinearBeta, RectifiedFlow, convert
from sora_lib.samplers import guided
from sora_lib.schedules import expand

CHAPTER = Path(__file__).resolve().parents[1] / "notebooks" / "07_flow_matching.ipynb"
CELLS = [c for c in nbformat.read(CHAPTER, as_version=4).cells if c.cell_type == "code"]
ROSETTA = {c.id: c.source for c in CELLS if c.id.startswith("rosetta")}
LINEAR, COSINE, FLOW = LinearBeta(), Cosine(), RectifiedFlow()
T = torch.tensor([0.1, 0.3, 0.5, 0.8]).double()
each_schedule = pytest.mark.parametrize("schedule", [LINEAR, COSINE, FLOW], ids=lambda s: type(s).__name__)
preserving = pytest.mark.parametrize("schedule", [LINEAR, COSINE], ids=lambda s: type(s).__name__)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LAW = GaussianMixture(randn(5, 2, seed=9), 0.3)  # its exact denoiser works in float64


def exact(schedule, t=T):
    """x_t and the exact eps, x0, v and score there."""
    x_t = randn(len(t), 2, seed=3)
    x0 = LAW.denoiser(schedule)(x_t, t)
    known = {kind: convert(x0, x_t, t, schedule, source="x0", target=kind) for kind in ("eps", "x0", "v", "score")}
    return x_t, known, [expand(c, x_t) for c in schedule.curves(t)]


# --- The chapter's own lines


def names(seed):
    """What the chapter's cells need from the cells before them."""
    generator = torch.Generator().manual_seed(seed)
    code = {"flow": FLOW, "ddpm": LINEAR, "moons": LAW, "g": generator}
    exec(next(c.source for c in CELLS if c.id == "setup").split("use_style()")[0], code)
    return code


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_line_of_the_page_holds_for_other_values(seed):
    code = names(seed)
    assert len(ROSETTA) >= 9
    for source in ROSETTA.values():
        exec(source, code)  # every `same` raises where its two sides differ


def test_every_line_of_the_page_fails_when_its_left_side_is_one_per_cent_off():
    code, lines = names(0), 0
    for source in ROSETTA.values():
        for line in [s for s in source.splitlines() if s.startswith("same(")]:
            spoiled = line.replace("same(", "same(1.01 * ", 1)
            with pytest.raises(AssertionError):
                exec(source.replace(line, spoiled), dict(code))
            lines += 1
        exec(source, code)
    assert lines >= 20


# --- Each row, written anew, on an exact mixture


@each_schedule
def test_time_the_other_way_round(schedule):
    """Minus the velocity, at 1 - t, is the field that a library with noise at 0 integrates upwards: autograd of x_s."""
    x_t, known, _ = exact(schedule)
    s = (1 - T).requires_grad_(True)
    alpha, sigma, *_ = schedule.curves(1 - s)
    x_s = expand(alpha, x_t) * known["x0"] + expand(sigma, x_t) * known["eps"]
    slope = torch.stack([torch.autograd.grad(x_s[:, i].sum(), s, retain_graph=True)[0] for i in range(2)], dim=1)
    assert_close(-slope, known["v"], rtol=1e-8, atol=1e-8)
    assert_close(x_s.detach(), x_t, rtol=1e-10, atol=1e-10)


@preserving
def test_the_other_v_is_ours_over_the_turning_speed(schedule):
    x_t, known, (alpha, sigma, alpha_dot, sigma_dot) = exact(schedule)
    other = alpha * known["eps"] - sigma * known["x0"]  # Salimans and Ho
    assert_close(known["v"] / (alpha * sigma_dot - sigma * alpha_dot), other, rtol=1e-9, atol=1e-9)
    assert_close(alpha * x_t - sigma * other, known["x0"], rtol=1e-9, atol=1e-9)


@each_schedule
def test_the_other_v_on_any_schedule(schedule):
    x_t, known, (alpha, sigma, alpha_dot, sigma_dot) = exact(schedule)
    turning, growing = alpha * sigma_dot - sigma * alpha_dot, alpha * alpha_dot + sigma * sigma_dot
    other = ((alpha**2 + sigma**2) * known["v"] - growing * x_t) / turning
    assert_close(other, alpha * known["eps"] - sigma * known["x0"], rtol=1e-9, atol=1e-9)


@each_schedule
def test_divided_by_alpha_every_schedule_is_variance_exploding(schedule):
    """The mixture's denoiser written for y = x0 + sigma eps, without any schedule, by Bayes' rule."""
    x_t, known, (alpha, sigma, *_) = exact(schedule)
    y, ve = x_t / alpha, sigma / alpha
    means, variance = LAW.means.double(), LAW.std**2
    r = torch.softmax(-torch.cdist(y, means).square() / (2 * (variance + ve**2)), dim=1)  # [B, K]
    mean = r @ means
    assert_close(mean + variance / (variance + ve**2) * (y - mean), known["x0"], rtol=1e-6, atol=1e-6)


def test_edms_sigma_and_the_flows_time():
    sigma = torch.tensor([0.002, 0.5, 1.0, 80.0]).double()  # EDM's range
    t = sigma / (1 + sigma)
    assert_close(FLOW.sigma(t) / FLOW.alpha(t), sigma, rtol=1e-12, atol=0)


def test_alpha_bar_and_steps():
    table = torch.ones(()).double()
    for k, beta in enumerate(torch.linspace(1e-4, 0.02, 1000).double()):
        table = table * (1 - beta)
        if k in (0, 1, 499, 999):
            assert_close(LINEAR.alpha(torch.tensor([(k + 1) / 1000]).double()) ** 2, table[None], rtol=1e-6, atol=0)


def test_guidance_one_is_plain_and_so_is_w_zero():
    cond, uncond = randn(3, 2, seed=1), randn(3, 2, seed=2)
    for w in (0.0, 0.5, 6.5):
        ours = guided(lambda x, t: cond, lambda x, t: uncond, 1 + w)(None, None)
        assert_close(ours, (1 + w) * cond - w * uncond)
