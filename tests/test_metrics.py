"""Distances between sets of samples: exact answers, and the faults that each must see."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import torch

from sora_lib import digits, points, real_floor, sliced_wasserstein
from sora_lib.metrics import DigitProbe, frechet_distance, nearest_distance, precision_recall


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


def test_frechet_distance_of_gaussians_known_exactly():
    """Per axis (m_a - m_b)^2 + (s_a - s_b)^2: a shift by 3 and a doubling of one axis of standard deviation 1.

    The sets are made to have exactly these means and covariances.
    """
    a = randn(200, 2).double()
    a = (a - a.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(a.T))).T  # mean 0, covariance 1
    b = a * torch.tensor([2.0, 1.0]) + torch.tensor([0.0, 3.0])
    assert frechet_distance(a, b) == pytest.approx(9 + 1, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(10, rel=1e-9)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_correlated_sets():
    """Against scipy's matrix square root of S_a S_b, which need not be symmetric."""
    mix = randn(5, 5, seed=3).double()
    a, b = randn(300, 5).double() @ mix, randn(300, 5, seed=1).double() + 1
    s_a, s_b = np.cov(a.T.numpy()), np.cov(b.T.numpy())
    expected = (a.mean(0) - b.mean(0)).square().sum().item()
    expected += np.trace(s_a + s_b - 2 * scipy.linalg.sqrtm(s_a @ s_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_distance_turns_with_the_axes():
    rotation, _ = torch.linalg.qr(randn(4, 4, seed=2))
    a, b = randn(100, 4), 2 * randn(100, 4, seed=1)
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(frechet_distance(a, b), rel=1e-4)


def test_frechet_distance_takes_one_feature_and_survives_equal_rows():
    assert frechet_distance(torch.zeros(5, 3), torch.ones(4, 3)) == pytest.approx(3)


@pytest.mark.parametrize(("a", "b"), [(randn(5, 2), randn(5, 3)), (randn(1, 2), randn(5, 2)), (randn(5), randn(5))])
def test_frechet_distance_refuses(a, b):
    with pytest.raises(ValueError, match=r"a and b|a must"):
        frechet_distance(a, b)


def test_precision_and_recall_on_a_line():
    """k = 1. Real 0, 1, 10, 11 with radii 1. Generated 0.5, 0.6, 30: the first two lie on the real manifold, 30 not.

    Their own radii are 0.1, 0.1 and 29.4, so 1, 10 and 11 are within reach of 30 (29, 20 and 19), while 0 is not.
    """
    real, generated = torch.tensor([[0.0], [1.0], [10.0], [11.0]]), torch.tensor([[0.5], [0.6], [30.0]])
    assert precision_recall(real, generated, neighbours=1) == pytest.approx((2 / 3, 3 / 4))


def test_precision_and_recall_see_different_faults():
    real = torch.cat([randn(200, 2), randn(200, 2, seed=1) + 20])
    dropped, strayed = randn(200, 2, seed=2), torch.cat([randn(200, 2, seed=3), randn(200, 2, seed=4) - 40])
    precision, recall = precision_recall(real, dropped)  # one of two modes
    assert precision > 0.8 and recall < 0.55
    precision, _ = precision_recall(real, strayed)  # half of it elsewhere
    assert precision < 0.55
    assert precision_recall(real, real) == (1, 1)


def test_precision_and_recall_change_places_with_the_sets():
    a, b = randn(100, 3), randn(150, 3, seed=1) + 0.5
    assert precision_recall(a, b) == precision_recall(b, a)[::-1]


def test_precision_recall_refuses():
    with pytest.raises(ValueError, match="generated must have shape"):
        precision_recall(randn(9, 2), randn(9, 3))
    with pytest.raises(ValueError, match="more rows than neighbours, 3; got 3, 9"):
        precision_recall(randn(3, 2), randn(9, 2))
    with pytest.raises(ValueError, match="neighbours must be 1 or more"):
        precision_recall(randn(9, 2), randn(9, 2), neighbours=0)


def test_nearest_distance_finds_planted_copies():
    reference, samples = digits("train")[0], digits("test")[0][:100].clone()
    samples[7] = reference[500]
    samples[8] = reference[501] + 0.5 / 8  # 64 pixels, each off by 1/16: 0.5 away at most
    distance = nearest_distance(samples, reference)
    assert distance.shape == (100,) and distance[7] == pytest.approx(0, abs=1e-3) and distance[8] <= 0.5
    assert distance[9:].min() > 0.5  # no real digit of the other half is so near to one of this half
    flat = (samples.flatten(1)[:, None] - reference.flatten(1)).square().sum(-1).sqrt().min(1).values
    torch.testing.assert_close(distance, flat, atol=2e-3, rtol=1e-4)


def test_nearest_distance_refuses():
    with pytest.raises(ValueError, match="samples and reference"):
        nearest_distance(randn(4, 3), randn(4, 2))


def test_the_digit_probe_reads_images():
    probe = DigitProbe().eval()
    images = digits()[0][:4]
    assert probe(images).shape == (4, 10) and probe.features(images).shape == (4, 32)
    torch.testing.assert_close(probe.head(probe.features(images)), probe(images))
    with pytest.raises(ValueError, match="images must have shape"):
        probe(images[:, 0])
