"""Point sets against scikit-learn's own curves; drawings keep their shape; the digits are scikit-learn's.

Video of things: the law of motion step by step, pictures where the truth says, and what is held out of training.
"""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_moons, make_swiss_roll
from torch.nn.functional import affine_grid, grid_sample
from torch.testing import assert_close

from sora_lib import digits, points
from sora_lib.datasets import (
    HELD_OUT,
    POINT_SETS,
    RGB,
    bounced,
    drawing,
    film,
    held_out,
    random_scene,
    shortened,
    velocity,
)
from sora_lib.metrics import centroids
from sora_lib.text import COLORS, DIGITS, DIRECTIONS, SPEEDS, SUBJECTS, Thing, describe, parse

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


# --- The world

PLAIN = {  # right and down
    "up": (0, -1), "down": (0, 1), "left": (-1, 0), "right": (1, 0),
    "up left": (-1, -1), "up right": (1, -1), "down left": (-1, 1), "down right": (1, 1), "still": (0, 0),
}  # fmt: skip
MOTIONS = [(d, s) for d in DIRECTIONS for s in SPEEDS if d != "still"] + [("still", None)]
SIZES = [(32, 32), (32, 48), (48, 32), (40, 64)]  # height and width
each_size = pytest.mark.parametrize(("height", "width"), SIZES)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def all_motions(subject="circle", color="white", repeats=1):
    return [[Thing(subject, color, *motion)] for motion in MOTIONS for _ in range(repeats)]


def step_by_step(start, speed, room, frames):
    """One number's way, frame by frame: a step, and at a wall the mirror image of what went beyond."""
    at, way, path = start, speed, []
    for _ in range(frames):
        path.append(at)
        at += way
        while not 0 <= at <= room:
            at, way = (-at if at < 0 else 2 * room - at), -way
    return path


# --- Motion


def test_the_law_of_motion_is_step_by_step_reflection():
    """In float64, over hundreds of bounces, with steps of up to a whole room; room differs from axis to axis."""
    room = 10 + 30 * torch.rand(40, 2, generator=seeded(1)).double()
    start = room * torch.rand(40, 2, generator=seeded(2)).double()
    speed = room * (2 * torch.rand(40, 2, generator=seeded(3)).double() - 1)
    paths = bounced(start, speed, room, 300)  # [40, 300, 2]
    for i in range(40):
        for axis in range(2):
            wanted = step_by_step(*(x[i, axis].item() for x in (start, speed, room)), 300)
            assert_close(paths[i, :, axis], torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-9)


def test_a_bounce_by_hand():
    """Room 10: from 7 by 2 a frame: 7, 9, then 11 is mirrored to 9, 7, ... 1, and -1 to 1. On the wall it turns."""
    path = bounced(torch.tensor([[7.0, 4.0]]), torch.tensor([[2.0, -2.0]]), torch.tensor([[10.0, 10.0]]), 9)[0]
    assert path[:, 0].tolist() == [7, 9, 9, 7, 5, 3, 1, 1, 3]
    assert path[:, 1].tolist() == [4, 2, 0, 2, 4, 6, 8, 10, 8]


@pytest.mark.parametrize("speed", SPEEDS)
def test_all_directions_of_one_speed_are_equally_fast(speed):
    pixels = {"slow": 0.5, "fast": 1.5}[speed]
    for direction, (x, y) in PLAIN.items():
        wanted = torch.tensor([x, y]) * pixels / max(1, np.hypot(x, y))
        assert_close(velocity(Thing("one", "red", direction, speed)), wanted.float())
    moving = [velocity(Thing("one", "red", d, speed)).norm() for d in DIRECTIONS if d != "still"]
    assert_close(torch.stack(moving), torch.full([8], pixels))
    assert set(PLAIN) == set(DIRECTIONS)


@each_size
def test_no_wall_is_met_in_the_first_8_steps(height, width):
    """From the centres alone: each of the first 8 steps is the velocity."""
    clips = film(all_motions(repeats=12), frames=9, height=height, width=width, generator=seeded())
    steps = clips.centers[:, 0].diff(dim=1)  # [B, 8, 2]
    wanted = torch.stack([velocity(thing) for (thing,) in clips.scenes])
    assert_close(clips.velocities[:, 0], wanted, rtol=0, atol=0)
    assert_close(steps, wanted[:, None].expand_as(steps), rtol=0, atol=1e-5)  # float32 of up to 64


@each_size
def test_film_follows_the_law_and_stays_in_the_frame(height, width):
    clips = film(all_motions(repeats=2), frames=60, height=height, width=width, generator=seeded(1))
    room = (width - 14, height - 14)
    bounces = 0
    for centers, speed in zip(clips.centers[:, 0], clips.velocities[:, 0], strict=True):
        for axis in range(2):
            wanted = step_by_step(centers[0, axis].item() - 7, speed[axis].item(), room[axis], 60)
            assert_close(centers[:, axis] - 7, torch.tensor(wanted), rtol=0, atol=1e-4)  # float32 over 60 steps
            bounces += (centers[:, axis].diff() * speed[axis] < 0).any().item()
    assert bounces > 10
    assert clips.centers.min() > 7 - 1e-4
    assert (clips.centers.amax((0, 1, 2)) < torch.tensor([width, height]) - 7 + 1e-4).all()


def test_a_clip_may_start_anywhere_from_which_8_steps_are_free():
    """For a thing that goes down fast in 40 x 64: x from 7 to 57, y from 7 to 40 - 7 - 8 * 1.5 = 21, evenly."""
    clips = film([[Thing("circle", "red", "down", "fast")]] * 400, frames=1, height=40, width=64, generator=seeded())
    share = (clips.centers[:, 0, 0] - 7) / torch.tensor([50.0, 14.0])
    assert share.min() >= 0 and share.max() <= 1
    assert (share.amin(0) < 0.02).all() and (share.amax(0) > 0.98).all()  # (1 - 0.02)^400 = 0.0003
    assert_close(share.mean(0), torch.full([2], 0.5), rtol=0, atol=5 * 12**-0.5 / 20)  # five standard errors


def test_what_stands_still_is_the_same_picture_in_every_frame():
    clips = film([[Thing(name, "green", "still")] for name in SUBJECTS], frames=17, generator=seeded())
    assert torch.equal(clips.video, clips.video[:, :, :1].expand_as(clips.video))
    assert torch.equal(clips.velocities, torch.zeros(13, 1, 2))


# --- Pictures


@each_size
def test_the_disc_is_drawn_where_its_centre_is(height, width):
    """All motions, bounces included. Sampling moves the centre of light by 0.062 pixels at most, measured."""
    clips = film(all_motions(), frames=33, height=height, width=width, generator=seeded(2))
    assert clips.video.shape == (17, 3, 33, height, width)
    assert_close(centroids(clips.video), clips.centers[:, 0], rtol=0, atol=0.1)


def test_up_in_the_caption_is_up_in_the_picture():
    scenes = [[Thing("square", "red", d, "fast")] for d in ("up", "right", "down left")]
    moved = centroids(film(scenes, frames=9, generator=seeded()).video).diff(dim=1).sum(1)
    assert_close(moved, 12 * torch.tensor([[0.0, -1.0], [1.0, 0.0], [-(0.5**0.5), 0.5**0.5]]), rtol=0, atol=0.15)


def test_colours_are_what_they_are_called():
    """The pixel in the middle of a square: which of red, green and blue are bright."""
    bright = {"red": "100", "green": "010", "blue": "001", "yellow": "110", "purple": "101", "white": "111"}
    assert set(bright) == set(COLORS)
    clips = film([[Thing("square", color, "still")] for color in COLORS], frames=1, generator=seeded())
    for video, center, (thing,) in zip(clips.video, clips.centers[:, 0, 0].int().tolist(), clips.scenes, strict=True):
        pixel = video[:, 0, center[1], center[0]]
        assert "".join(str(int(value > 0.5)) for value in pixel) == bright[thing.color]
        assert_close(pixel, torch.tensor(RGB[thing.color]))
    assert len({RGB[color] for color in COLORS}) == 6
    assert clips.video.min() == 0 and clips.video.max() == 1


def test_shapes_are_what_they_are_called():
    """Widths of the white rows, in pixels: a disc's are chords, a square's all one, a triangle's grow downwards."""
    shapes = ("circle", "square", "triangle")
    clips = film([[Thing(name, "white", "still")] for name in shapes], frames=1, generator=seeded(1))
    y = torch.arange(32) + 0.5 - clips.centers[:, 0, 0, 1:]  # [3, 32], from the centre
    rows = dict(zip(shapes, clips.video[:, 0, 0].sum(2), strict=True))
    inside = y.abs() < 4
    chord = 2 * (6.02**2 - y[0][inside[0]] ** 2).sqrt()
    assert_close(rows["circle"][inside[0]], chord, rtol=0, atol=0.5)  # measured: 0.2
    assert_close(rows["square"][inside[1]], torch.full([int(inside[1].sum())], 2 * 5.32), rtol=0, atol=0.5)
    assert_close(rows["triangle"][inside[2]], (y[2][inside[2]] + 6.44) / 0.96, rtol=0, atol=0.5)


@pytest.mark.parametrize("part", ["train", "test"])
def test_digits_are_in_the_handwriting_of_their_half(part):
    """Read back from the video: of all 1,797 pictures the nearest is the one that `sprites` names, of that half."""
    scenes = [[Thing(name, color, *motion)] for name in DIGITS for color, motion in zip(COLORS, MOTIONS, strict=False)]
    clips = film(scenes, frames=1, part=part, generator=seeded())
    theta = torch.zeros(len(scenes), 2, 3)
    theta[:, [0, 1], [0, 1]] = 14 / 32
    theta[:, :, 2] = clips.centers[:, 0, 0] / 16 - 1
    grid = affine_grid(theta, [len(scenes), 1, 8, 8], align_corners=False)
    crops = grid_sample(clips.video[:, :, 0].amax(1, keepdim=True), grid, align_corners=False)
    images, labels = digits("all")
    nearest = torch.cdist(crops.flatten(1), images.flatten(1)).argmin(1)
    assert torch.equal(nearest, clips.sprites[:, 0] + (898 if part == "test" else 0))
    assert [DIGITS[i] for i in labels[nearest]] == [thing.subject for (thing,) in scenes]
    assert len(set(nearest.tolist())) > 50  # of 60: many hands


def test_of_two_things_the_nearer_hides_the_farther():
    """Squares of half a side 5.32: pixels 4 or less from the centre are inside, beyond 6.7 outside, whatever blurs."""
    scenes = [[Thing("square", "red", "still"), Thing("square", "green", "still")]] * 40
    clips = film(scenes, frames=1, generator=seeded())
    places = torch.stack(torch.meshgrid(torch.arange(32), torch.arange(32), indexing="xy"), dim=-1) + 0.5  # [H, W, 2]
    away = (places - clips.centers[:, :, 0, None, None]).abs().amax(-1)  # [B, 2, H, W]
    near, far = (away < 4).unbind(1)
    outside = (away > 6.7).unbind(1)
    picture = clips.video[:, :, 0].movedim(1, -1)  # [B, H, W, 3]
    red, green = torch.tensor(RGB["red"]), torch.tensor(RGB["green"])
    assert (near & far).sum() > 200
    assert_close(picture[near], red.expand(int(near.sum()), 3))
    assert_close(picture[far & outside[0]], green.expand(int((far & outside[0]).sum()), 3))
    assert not picture[outside[0] & outside[1]].any()


# --- Scenes


def test_training_never_shows_a_held_out_combination_and_held_out_shows_nothing_else():
    g = seeded()
    for combinations, wanted in {"training": {False}, "held out": {True}, "all": {False, True}}.items():
        drawn = [thing for _ in range(1500) for thing in random_scene(2, combinations=combinations, generator=g)]
        pairs = {(t.subject, t.color) for t in drawn} | {(t.subject, t.direction) for t in drawn}
        kept = {bool({(t.subject, t.color), (t.subject, t.direction)} & HELD_OUT) for t in drawn}
        assert kept == wanted == {held_out(t) for t in drawn}
        if combinations == "training":  # each of the 13 * 15 - 19 others: missed with (1 - 1/117)^3000 < 1e-11
            assert pairs == set(product(SUBJECTS, COLORS + DIRECTIONS)) - HELD_OUT
    assert random_scene(generator=seeded(5)) == random_scene(combinations="training", generator=seeded(5))


def test_what_is_held_out_exists():
    assert not HELD_OUT - set(product(SUBJECTS, COLORS + DIRECTIONS)) and len(HELD_OUT) == 19
    assert {subject for subject, _ in HELD_OUT} == set(SUBJECTS)
    assert {value for _, value in HELD_OUT} == {*COLORS, *DIRECTIONS} - {"still"}


def test_all_combinations_are_equally_likely():
    g = seeded()
    things = [random_scene(combinations="all", generator=g)[0] for _ in range(4000)]
    for kind, values in {
        "subject": SUBJECTS,
        "color": COLORS,
        "direction": DIRECTIONS,
        "speed": (*SPEEDS, None),
    }.items():
        shares = [1 / len(values)] * len(values) if kind != "speed" else [4 / 9, 4 / 9, 1 / 9]
        counts = Counter(getattr(thing, kind) for thing in things)
        for value, share in zip(values, shares, strict=True):
            assert counts[value] / 4000 == pytest.approx(share, abs=5 * (share * (1 - share) / 4000) ** 0.5)
    assert all((thing.speed is None) == (thing.direction == "still") for thing in things)


def test_two_things_differ_in_colour_and_subjects_may_be_chosen():
    g = seeded()
    scenes = [random_scene(2, subjects=("circle", "one"), generator=g) for _ in range(300)]
    assert all(len(scene) == 2 and scene[0].color != scene[1].color for scene in scenes)
    assert {thing.subject for scene in scenes for thing in scene} == {"circle", "one"}
    assert {scene[0].subject == scene[1].subject for scene in scenes} == {True, False}


def test_a_shortened_scene_leaves_each_part_out_by_the_toss_of_a_coin():
    g, scene = seeded(), (Thing("one", "red", "up", "fast"), Thing("two", "blue", "still"))
    drawn = [shortened(scene, g) for _ in range(2000)]
    assert all([thing.subject for thing in things] == ["one", "two"] for things in drawn)
    said = Counter(tuple(value is not None for value in (t.color, t.direction, t.speed)) for t, _ in drawn)
    assert len(said) == 8
    for count in said.values():  # eight equally likely; five standard errors
        assert count / 2000 == pytest.approx(1 / 8, abs=5 * (7 / 64 / 2000) ** 0.5)
    assert {t.color for t, _ in drawn} == {"red", None} and {t.color for _, t in drawn} == {"blue", None}
    assert {t.direction for t, _ in drawn} == {"up", None} and {t.direction for _, t in drawn} == {"still", None}
    assert {t.speed for t, _ in drawn} == {"fast", None} and {t.speed for _, t in drawn} == {None}


# --- Clips


def test_everything_comes_from_the_generator():
    before = torch.get_rng_state()

    def clips(seed):
        g = seeded(seed)
        scenes = [random_scene(2, generator=g) for _ in range(4)]
        return [shortened(scene, g) for scene in scenes], film(scenes, frames=3, generator=g)

    (said, one), (said_again, same), (_, other) = clips(1), clips(1), clips(2)
    assert said == said_again and one.scenes == same.scenes != other.scenes
    assert torch.equal(one.video, same.video) and torch.equal(one.centers, same.centers)
    assert not torch.equal(one.video, other.video)
    again = film(one.scenes, frames=3, generator=seeded(3))  # the same scenes at other places
    assert (again.centers - one.centers).abs().max() > 1
    assert torch.equal(torch.get_rng_state(), before)


def test_captions_are_the_plain_ones_or_those_given():
    scenes = [random_scene(2, generator=seeded(s)) for s in range(3)]
    clips = film(scenes, frames=1, generator=seeded())
    assert clips.captions == [describe(scene) for scene in scenes]
    assert [parse(caption) for caption in clips.captions] == clips.scenes == scenes
    assert film(scenes, frames=1, captions=["a one", "a two", "a six"]).captions == ["a one", "a two", "a six"]


def test_a_clip_of_two_things_holds_both():
    """Each thing's own centre and velocity stand in the place of the thing."""
    scenes = [[Thing("circle", "red", "right", "fast"), Thing("square", "blue", "down", "slow")]] * 6
    clips = film(scenes, frames=9, height=64, width=64, generator=seeded())
    wanted = torch.tensor([[1.5, 0.0], [0.0, 0.5]])
    assert_close(clips.velocities, wanted.expand(6, 2, 2))
    assert_close(clips.centers.diff(dim=2), wanted[:, None].expand(6, 2, 8, 2), rtol=0, atol=1e-5)
    for i, f in product(range(6), (0, 8)):
        x, y = clips.centers[i, 0, f].int().tolist()  # the nearer one is always seen
        assert_close(clips.video[i, :, f, y, x], torch.tensor(RGB["red"]))
    assert clips.sprites.tolist() == [[898, 899]] * 6  # after the 898 digits: circle, square, triangle


def test_a_longer_film_begins_like_a_shorter_one():
    scenes = [random_scene(generator=seeded(s)) for s in range(5)]
    long, short = (film(scenes, frames=frames, generator=seeded(7)) for frames in (33, 5))
    assert torch.equal(long.centers[:, :, :5], short.centers)
    assert_close(long.video[:, :, :5], short.video)


ONE = [[Thing("one", "red", "up", "slow")]]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: film(ONE, height=16),
            ValueError,
            "height and width must be 32 or more, so that things have room, got 16",
        ),
        (lambda: film(ONE, width=31), ValueError, "got 32 and 31"),
        (lambda: film(ONE, height=32.0), TypeError, "height must be a whole number"),
        (lambda: film(ONE, frames=0), ValueError, "frames must be 1 or more, got 0"),
        (lambda: film(ONE, frames=1.5), TypeError, "frames must be a whole number"),
        (lambda: film(ONE, part="valid"), ValueError, "part must be one of 'all', 'train', 'test', got 'valid'"),
        (lambda: film([]), ValueError, "scenes must be one or more, with equally many things in each"),
        (lambda: film([[]]), ValueError, "scenes must be one or more, with equally many things in each, got [0]"),
        (lambda: film([*ONE, ONE[0] * 2]), ValueError, "equally many things in each, got [1, 2] things"),
        (lambda: film([[Thing("one")]]), ValueError, "the color of a thing must be one of 'red', "),
        (lambda: film([[Thing("one", "red")]]), ValueError, "the direction of a thing must be one of 'up', "),
        (
            lambda: film([[Thing("one", "red", "up")]]),
            ValueError,
            "the speed of a thing must be one of 'slow', 'fast', got",
        ),
        (lambda: film([[Thing("ten", "red", "still")]]), ValueError, "the subject of a thing must be one of 'zero', "),
        (lambda: film([[Thing("one", "pink", "still")]]), ValueError, "the color of a thing must be"),
        (lambda: film(ONE, captions=["a one", "a two"]), ValueError, "captions must be one a scene, 1, got 2"),
        (lambda: film([ONE[0] * 3]), ValueError, "scene must be one or two things, got 3"),
        (lambda: random_scene(0), ValueError, "things must be 1 or more, got 0"),
        (lambda: random_scene(3), ValueError, "things must be 1 or 2, got 3"),
        (
            lambda: random_scene(combinations="test"),
            ValueError,
            "combinations must be one of 'training', 'held out', 'all'",
        ),
        (lambda: random_scene(subjects=()), ValueError, "subjects must be some of zero, one"),
        (lambda: random_scene(subjects=("one", "ten")), ValueError, "subjects must be some of zero, one"),
        (lambda: random_scene(subjects="one"), TypeError, "subjects must be a list, got 'one'"),
        (
            lambda: random_scene(2, subjects=("three",), combinations="held out"),  # every one of them is red
            ValueError,
            "subjects ('three',) give no 2 things of different colours, held out",
        ),
    ],
)
def test_a_film_that_cannot_be_is_refused(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
