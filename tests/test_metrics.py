"""Distances between sets of samples: exact answers, and the faults that each must see."""

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.linalg
import torch

from sora_lib import digits, points, real_floor, sliced_wasserstein
from sora_lib.datasets import film
from sora_lib.metrics import (
    DigitProbe,
    VideoProbe,
    adherence,
    centroids,
    frechet_distance,
    motion_error,
    nearest_distance,
    precision_recall,
)
from sora_lib.text import COLORS, DIRECTIONS, KINDS, Thing


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
    assert frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0], [7.0]])) == pytest.approx(25)


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


# --- Video


def block_video(corners, height=40, width=64, side=4, color=(0.0, 1.0, 0.0)):
    """A square of light with its upper left corner at (x, y) in each frame, whole pixels: `[1, 3, F, H, W]`."""
    video = torch.zeros(1, 3, len(corners), height, width)
    for f, (x, y) in enumerate(corners):
        video[0, :, f, y : y + side, x : x + side] = torch.tensor(color)[:, None, None]
    return video


# A pixel of light counts 0.75, the dark 1e-6 a pixel: 40 * 64 of them pull 12 by 2e-4 of at most 40 pixels' distance.
DARK = 0.01


def test_the_centre_of_light_by_hand():
    """x to the right, y down, in pixels, in a frame that is no square; whatever the colour; black gives the middle."""
    video = torch.cat([block_video([(10, 3), (50, 30)], color=c) for c in ((1, 0, 0), (0, 1, 0), (1, 0, 1))])
    wanted = torch.tensor([[12.0, 5.0], [52.0, 32.0]]).expand(3, 2, 2)
    torch.testing.assert_close(centroids(video), wanted, rtol=0, atol=DARK)
    middle = torch.tensor([32.0, 20.0]).expand(1, 2, 2)
    torch.testing.assert_close(centroids(0 * video[:1]), middle, rtol=0, atol=1e-4)


def test_the_centre_of_light_weighs_what_is_brighter_than_a_quarter():
    """Squares of 1 and 0.5 weigh 0.75 and 0.25: a quarter of the way. A grey background of 0.25 weighs nothing."""
    video = block_video([(10, 4)]) + 0.5 * block_video([(30, 24)])
    wanted = torch.tensor([[[12 + 20 / 4, 6 + 20 / 4]]])
    torch.testing.assert_close(centroids(video), wanted, rtol=0, atol=DARK)
    torch.testing.assert_close(centroids(video.clamp(min=0.25)), centroids(video), rtol=0, atol=1e-5)
    assert (centroids(video.clamp(min=0.3)) - wanted).norm() > 1  # and one of 0.3 does


def test_motion_error_by_hand():
    """A square that moves by (1, 2) a frame, against its own velocity, none, another, and the wrong way round."""
    video = block_video([(5 + f, 4 + 2 * f) for f in range(10)]).expand(4, -1, -1, -1, -1)
    velocities = torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.3, 2.4], [2.0, 1.0]])
    wanted = torch.tensor([0, 5**0.5, 0.5, 2**0.5])
    torch.testing.assert_close(motion_error(video, velocities), wanted, rtol=0, atol=DARK)


def test_motion_error_is_a_mean_of_lengths_over_the_first_steps():
    """Steps of (3, 4) and (-3, -4), in turns, against none: 5 each, though they cancel. Then it stands still."""
    zigzag = [(10, 10), (13, 14)] * 5  # 9 steps
    video, none = block_video([*zigzag, *[zigzag[-1]] * 10]), torch.zeros(1, 2)
    assert motion_error(video, none).item() == pytest.approx(5, abs=DARK)
    assert motion_error(video, none, steps=9).item() == pytest.approx(5, abs=DARK)
    assert motion_error(video, none, steps=18).item() == pytest.approx(2.5, abs=DARK)
    assert motion_error(video, none, steps=100).item() == pytest.approx(45 / 19, abs=DARK)


def test_motion_error_of_real_film_is_small_and_of_a_wrong_caption_large():
    """A disc drawn between pixels: at most 0.09 pixels a step, measured; the next direction is off by 0.38."""
    directions = [d for d in DIRECTIONS if d != "still"]
    scenes = [
        [Thing("circle", color, d, "slow")] for color, d in zip((*COLORS, "red", "blue"), directions, strict=True)
    ]
    clips = film(scenes, generator=torch.Generator().manual_seed(0))
    right = motion_error(clips.video, clips.velocities[:, 0])
    wrong = motion_error(clips.video, clips.velocities[:, 0].roll(1, 0))
    assert right.max() < 0.12 and wrong.min() > 0.29


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda v: centroids(v[0]), ValueError, "video must have shape"),
        (lambda v: centroids(v[:, :1]), ValueError, "video must have shape"),
        (lambda v: centroids(v.int()), TypeError, "video must be a float tensor"),
        (lambda v: motion_error(v, torch.zeros(2)), ValueError, "velocities must have shape [1, 2], got [2]"),
        (lambda v: motion_error(v, torch.zeros(3, 2)), ValueError, "velocities must have shape [1, 2], got [3, 2]"),
        (lambda v: motion_error(v[:, :, :1], torch.zeros(1, 2)), ValueError, "video must have 2 frames or more"),
        (lambda v: motion_error(v, torch.zeros(1, 2), steps=0), ValueError, "steps must be 1 or more"),
    ],
)
def test_motion_measures_refuse(call, error, words):
    with pytest.raises(error) as caught:
        call(block_video([(1, 1), (2, 2)]))
    assert words in str(caught.value)


def video_probe(width=4, features=6):
    torch.manual_seed(0)
    return VideoProbe({name: len(values) for name, values in KINDS.items()}, width, features).eval()


def noisy(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 32, 32), (9, 32, 48), (17, 48, 32), (33, 32, 32)])
def test_the_video_probe_takes_any_size_and_length(frames, height, width):
    probe, video = video_probe(), noisy(2, 3, frames, height, width)
    answers = probe(video)
    assert {name: list(logits.shape) for name, logits in answers.items()} == {
        "subject": [2, 13], "color": [2, 6], "direction": [2, 9], "speed": [2, 2]
    }  # fmt: skip
    for name, logits in probe(video[1:]).items():
        torch.testing.assert_close(logits, answers[name][1:])


def test_subject_and_colour_are_read_from_the_looks_direction_and_speed_from_the_motion():
    probe, video = video_probe(), noisy(2, 3, 9, 16, 16)
    looks, motion = probe.features(video)
    answers = probe(video)
    for name, seen in {"subject": looks, "color": looks, "direction": motion, "speed": motion}.items():
        torch.testing.assert_close(answers[name], probe.heads[name](seen))


@pytest.mark.parametrize("frame", range(12))
def test_the_video_probe_looks_at_these_frames_and_no_others(frame):
    """Looks: 0, 4 and 8. Motion: 0, 2, 4, 6 and 8, before the first bounce. Bit for bit."""
    probe, video = video_probe(), noisy(1, 3, 12, 16, 16)
    other = video.clone()
    other[:, :, frame] = noisy(1, 3, 16, 16, seed=1)
    changed = [not torch.equal(a, b) for a, b in zip(probe.features(video), probe.features(other), strict=True)]
    assert changed == [frame in (0, 4, 8), frame in (0, 2, 4, 6, 8)]


def test_looks_are_the_mean_over_frames_and_know_no_order_and_motion_knows_no_colour():
    probe, video = video_probe(), noisy(1, 3, 9, 16, 16)
    looks, motion = probe.features(video)
    alone = [probe.features(video[:, :, [f]])[0] for f in (0, 4, 8)]
    torch.testing.assert_close(looks, sum(alone) / 3)
    backwards = probe.features(video.flip(2))
    torch.testing.assert_close(backwards[0], looks)
    assert (backwards[1] - motion).abs().max() > 1e-4
    torch.testing.assert_close(probe.features(video[:, [2, 0, 1]])[1], motion)
    assert (probe.features(video[:, [2, 0, 1]])[0] - looks).abs().max() > 1e-4


def test_one_frame_is_seen_as_a_picture_that_stands_still():
    probe, image = video_probe(), noisy(1, 3, 1, 16, 16)
    for one, nine in zip(probe.features(image), probe.features(image.expand(-1, -1, 9, -1, -1)), strict=True):
        torch.testing.assert_close(one, nine)


def test_adherence_by_hand():
    """Five videos: both right; colour wrong; speed wrong; only a colour asked for, and right; nothing asked for."""
    logits = {
        "color": torch.eye(3)[[0, 1, 2, 1, 2]] - 5,  # seen: 0, 1, 2, 1, 2
        "speed": torch.eye(2)[[0, 1, 0, 1, 0]] * 9,  # seen: 0, 1, 0, 1, 0
    }
    wanted = {"color": torch.tensor([0, 2, 2, 1, -1]), "speed": torch.tensor([0, 1, 1, -1, -1])}
    assert adherence(logits, wanted) == pytest.approx({"color": 3 / 4, "speed": 2 / 3, "all": 3 / 5})
    assert adherence(logits, {"speed": wanted["speed"]}) == pytest.approx({"speed": 2 / 3, "all": 4 / 5})


@pytest.mark.parametrize("video", [noisy(1, 1, 9, 16, 16), noisy(3, 9, 16, 16), noisy(1, 3, 16, 16)])
def test_the_video_probe_refuses(video):
    with pytest.raises(ValueError, match="video must have shape"):
        video_probe()(video)
