"""The sliced Wasserstein distance: exact answers and the laws of a distance."""

import math
from itertools import pairwise

import pytest
import torch

from sora_lib import points, real_floor, sliced_wasserstein


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_in_one_dimension_it_pairs_sorted_points():
    """Every direction is +1 or -1; sorted, 0 1 2 pairs with 1 1 5: gaps 1, 0, 3."""
    a, b = torch.tensor([[2.0], [0.0], [1.0]]), torch.tensor([[1.0], [5.0], [1.0]])
    assert sliced_wasserstein(a, b) == pytest.approx(math.sqrt((1 + 0 + 9) / 3), rel=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_a_shift_is_its_length_over_the_root_of_the_dimension(dim):
    """Along a unit direction w all gaps are w.d, and E[(w.d)^2] = |d|^2 / D."""
    a, shift = randn(500, dim), randn(dim, seed=1)
    distance = sliced_wasserstein(a, a + shift, directions=20_000)
    # (w.d)^2 D / |d|^2 has a variance of at most 2, so the mean square errs by sqrt(2 / 20,000) = 1 %, its root 0.5 %
    assert distance == pytest.approx(shift.norm().item() / math.sqrt(dim), rel=0.02)


def test_scaling_a_gaussian():
    """W2 between N(0, 1) and N(0, 2^2) is 1 along every direction, also between a set and its double: its rms."""
    a = randn(4000, 2)
    assert sliced_wasserstein(a, 2 * a) == pytest.approx(a.square().mean().sqrt().item(), rel=0.02)


def test_laws_of_a_distance():
    a, b, c = randn(300, 2, seed=1), randn(300, 2, seed=2) + 1, points("moons").sample(300)
    assert sliced_wasserstein(a, a) == 0
    assert sliced_wasserstein(a, b) == pytest.approx(sliced_wasserstein(b, a), rel=1e-6)
    assert sliced_wasserstein(a, c) <= sliced_wasserstein(a, b) + sliced_wasserstein(b, c)
    shuffled = a[torch.randperm(300, generator=torch.Generator().manual_seed(3))]
    assert sliced_wasserstein(a, shuffled) == 0
    assert sliced_wasserstein(shuffled, b) == pytest.approx(sliced_wasserstein(a, b), rel=1e-6)


def test_same_numbers_every_time_and_the_global_generator_untouched():
    a, b = randn(50, 2, seed=1), randn(50, 2, seed=2)
    before = torch.get_rng_state()
    assert sliced_wasserstein(a, b) == sliced_wasserstein(a, b)
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(sliced_wasserstein(a, b), float)


def test_it_takes_the_output_of_a_network():
    a = torch.nn.Linear(2, 2)(randn(50, 2))
    assert sliced_wasserstein(a, randn(50, 2)) > 0
    assert sliced_wasserstein(a.double(), randn(50, 2).double()) > 0


def test_the_floor_is_the_median_over_pairs():
    """With sets that lie 1, 2, 3 and 4 apart along the line, the median is 2.5."""
    values = iter([0.0, 1.0, 0.0, 4.0, 0.0, 3.0, 0.0, 2.0])
    assert real_floor(lambda: torch.full([5, 1], next(values)), pairs=4) == pytest.approx(2.5, rel=1e-6)
    assert next(values, None) is None


def test_the_floor_falls_as_one_over_the_root_of_n():
    generator = torch.Generator().manual_seed(0)
    law = points("gaussians")
    floors = [real_floor(lambda n=n: law.sample(n, generator=generator), pairs=40) for n in (200, 800, 3200)]
    slopes = [math.log(a / b) / math.log(4) for a, b in pairwise(floors)]
    # a median of 40 pairs, each spread by about 30 %, errs by 6 %: 0.06 in a slope, and half that in their mean
    assert slopes == pytest.approx([0.5, 0.5], abs=0.2)
    assert sum(slopes) / 2 == pytest.approx(0.5, abs=0.12)
