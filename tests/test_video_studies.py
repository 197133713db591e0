"""What the scripts in training/ do by themselves: attention by turns, and times that change as training goes on."""

import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sora_lib.mini_sora import told

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))
from mini_sora import times
from video_studies import STUDIES, Factorised


def network(depth):
    """With random weights in all layers, so that nothing is hidden by a zero."""
    torch.manual_seed(0)
    model = Factorised(width=48, depth=depth, heads=4)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
    return model, torch.randn(2, 8, 3, 4, 6), told(["a red circle", "a blue two"], (3, 4, 6))


def changed(depth, idle=False):
    """Where the answer changes, `[n, h, w]`, if one place of the second of 3 x 4 x 6 latents does; patches (1, 2, 2).

    idle: the first block hands its input on.
    """
    (model, x, request), t = network(depth), torch.tensor([0.3, 0.6])
    with torch.no_grad():
        if idle:
            for weight in model.blocks[0].modulation.parameters():
                weight.zero_()
        other = x.clone()
        other[:, :, 1, 2, 5] += 1
        return ((model(other, t, request) - model(x, t, request)).abs() > 1e-6).any(1).all(0)


def test_the_first_block_attends_within_a_frame():
    where = changed(depth=1)
    assert where[1].all() and not where[[0, 2]].any()


def test_the_second_block_attends_within_a_place():
    where = changed(depth=2, idle=True)
    assert where[:, 2:, 4:].all() and not where[:, :2].any() and not where[:, 2:, :4].any()


def test_two_blocks_reach_everything():
    assert changed(depth=2).all()


def test_each_sample_has_its_own_condition():
    model, x, request = network(2)
    with torch.no_grad():
        one, other = (model(x, torch.tensor([0.3, t]), request) for t in (0.6, 0.9))
    torch.testing.assert_close(one[0], other[0])
    assert not torch.allclose(one[1], other[1], atol=1e-3)


def test_arms_differ_in_one_thing_and_compute_in_steps_alone():
    for name, arms in STUDIES.items():
        first, *others = (vars(arm) for arm in arms.values())
        for other in others:
            assert {key for key in first if first[key] != other[key]} == {
                {"captions": "short", "attention": "factorised", "crops": "crop", "compute": "steps"}[name]
            }
    steps = [arm.steps for arm in STUDIES["compute"].values()]
    assert [s / steps[0] for s in steps] == [1, 4, 32]


@pytest.mark.parametrize(("step", "mean"), [(0, 1.6), (99, 1.6), (100, 0.3), (5000, 0.3)])
def test_the_times_change_at_the_switch(step, mean):
    args = Namespace(mean=1.6, std=1.2, switch=100)
    t = times(args, 0.3, SimpleNamespace(step=step), 20_000, torch.Generator().manual_seed(0))
    assert abs(torch.logit(t).mean().item() - mean) < 0.05  # five standard errors are 0.042
