"""Point sets against scikit-learn's own curves; drawings keep their shape; the digits are scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_moons, make_swiss_roll
from torch.testing import assert_close

from sora_lib import digits, points
from sora_lib.datasets import POINT_SETS, drawing

each_set = pytest.mark.parametrize("name", POINT_SETS)


def same_up_to_shift_and_scale(ours, theirs):
    """Rows in the same order: remove mean and one common scale from both."""
    for x in (ours, theirs):
        x -= x.mean(0)
        x /= x.square().mean().sqrt()
    assert_close(ours, theirs, rtol=0, atol=2e-6)  # float32 means against float64


def test_moons_lie_on_scikit_learns_curve():
    """make_moons puts points evenly, ends included, on each arc; our 128 beads are the middles of 128 parts of it.

    So of its 257 points an arc, at i / 256, our beads are those with odd i.
    """
    theirs = torch.tensor(make_moons(2 * 257, shuffle=False, noise=None)[0]).reshape(2, 257, 2)[:, 1::2].reshape(-1, 2)
    same_up_to_shift_and_scale(points("moons").means.double(), theirs)


def test_swiss_roll_lies_on_scikit_learns_curve():
    """make_swiss_roll draws its angles; computed at our beads' angles, its formula must give its own points."""
    xyz, angle = make_swiss_roll(2000, random_state=0)
    theirs = torch.tensor(xyz[:, [0, 2]])
    beads = 1.5 * np.pi * (1 + 2 * (np.arange(256) + 0.5) / 256)
    nearest = np.abs(angle[:, None] - beads).argmin(0)  # of 2,000 drawn angles, the nearest to each bead
    means = points("swiss_roll").means.double()
    # fit the shift and the one scale by least squares, then compare up to the distance of nearest angles
    x, y = means - means.mean(0), theirs[nearest] - theirs[nearest].mean(0)
    scale = (x * y).sum() / (x * x).sum()
    gap = torch.tensor(np.abs(angle[nearest] - beads) * np.sqrt(1 + beads**2))  # arc length
    assert ((scale * x - y).norm(dim=1) < gap + 0.05).all()
    assert scale.item() == pytest.approx(6.7, abs=0.5)


def test_gaussians_are_a_ring_of_eight():
    means = points("gaussians").means
    radius = means.norm(dim=1)
    assert len(means) == 8
    assert_close(radius, radius[:1].expand(8))
    closest = torch.cdist(means, means).fill_diagonal_(9).min()
    assert closest > 6 * points("gaussians").std  # clearly apart


@each_set
def test_mean_0_and_variance_1_averaged_over_x_and_y(name):
    law = points(name)
    mean = law.weights @ law.means
    variance = law.weights @ (law.means - mean).square() + law.std**2
    assert_close(mean, torch.zeros(2), rtol=0, atol=1e-6)
    assert variance.mean().item() == pytest.approx(1, abs=1e-5)
    x = law.sample(100_000, generator=torch.Generator().manual_seed(0))
    assert_close(x.mean(0), torch.zeros(2), rtol=0, atol=0.02)  # standard error 0.003
    assert x.var(0).mean().item() == pytest.approx(1, abs=0.02)  # below 0.004


@pytest.mark.parametrize("name", ["moons", "swiss_roll"])
def test_beads_are_closer_together_than_wide(name):
    """A gap of at most 2 std: then the density along the curve ripples by at most 2 exp(-2 pi^2 / 4) = 1.4 %."""
    law = points(name)
    gaps = (law.means[1:] - law.means[:-1]).norm(dim=1)
    if name == "moons":
        gaps = torch.cat([gaps[:127], gaps[128:]])  # not from arc to arc
    assert gaps.max() < 2 * law.std
    assert gaps.max() < 1.1 * law.std  # measured: 0.35 and 1.04


def hand_drawn(count=60):
    """An arc three times as wide as high, unevenly drawn, somewhere on a canvas of 480 by 320."""
    at = torch.linspace(0, 1, count) ** 1.5
    return torch.stack([90 + 300 * at, 120 + 400 * at * (1 - at)], dim=1)


@pytest.mark.parametrize("size", [1e-3, 1.0, 50.0])
def test_a_drawing_has_mean_0_and_variance_1_at_any_size(size):
    law = drawing(size * hand_drawn())
    assert_close(law.means.mean(0), torch.zeros(2), rtol=0, atol=1e-5)
    variance = law.means.square().mean(0) + law.std**2
    assert variance.mean().item() == pytest.approx(1, abs=1e-5)
    x = law.sample(100_000, generator=torch.Generator().manual_seed(0))
    assert_close(x.mean(0), torch.zeros(2), rtol=0, atol=0.02)  # standard error 0.004
    assert x.var(0).mean().item() == pytest.approx(1, abs=0.02)  # below 0.004


def test_the_beads_of_a_drawing_are_7_percent_of_its_spread_wide():
    """Spread: the root of the variance averaged over x and y. Before scaling, so 0.07 of what is left for the means."""
    xy = hand_drawn().double()
    law = drawing(xy)
    scale = (law.means[-1] - law.means[0]).norm() / (xy[-1] - xy[0]).norm()
    spread = ((xy - xy.mean(0)) ** 2).mean().sqrt()
    assert law.std / scale.item() == pytest.approx(0.07 * spread.item(), rel=1e-9)
    assert law.std == pytest.approx(0.07 / np.sqrt(1 + 0.07**2), rel=1e-9)


def test_a_drawing_is_only_shifted_and_scaled_by_one_number():
    xy = hand_drawn()
    means = drawing(xy).means
    assert_close(means - means[0], (xy - xy[0]) * (means[-1] - means[0])[0] / (xy[-1] - xy[0])[0], rtol=0, atol=1e-5)
    width, height = (means.amax(0) - means.amin(0)).tolist()
    assert width / height == pytest.approx(3, rel=2e-3)
    assert means[-1, 0] > means[0, 0]  # not mirrored


@pytest.mark.parametrize(
    ("xy", "places"),
    [(hand_drawn(19), 19), (torch.ones(100, 2), 1), (hand_drawn(10).repeat(30, 1), 10), (hand_drawn(1), 1)],
)
def test_a_drawing_needs_20_places(xy, places):
    with pytest.raises(ValueError, match=f"at 20 places or more, got {places};"):
        drawing(xy)
    assert drawing(hand_drawn(20)).means.shape == (20, 2)


def test_digits_are_scikit_learns():
    images, labels = digits()
    bunch = load_digits()
    assert images.shape == (1797, 1, 8, 8) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1
    assert_close(images[:, 0].double() * 16, torch.tensor(bunch.images), rtol=0, atol=0)
    assert labels.tolist() == bunch.target.tolist() and not labels.is_floating_point()


def test_digits_come_in_two_halves_in_the_order_of_their_rows():
    images, labels = digits()
    for part, rows in {"train": slice(898), "test": slice(898, 1797)}.items():
        part_images, part_labels = digits(part)
        assert torch.equal(part_images, images[rows]) and torch.equal(part_labels, labels[rows])
    with pytest.raises(ValueError, match="part must be one of 'all', 'train', 'test', got 'valid'"):
        digits("valid")
