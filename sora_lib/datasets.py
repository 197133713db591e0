"""Data to learn from: 2-D points whose exact law is known, real handwritten digits, and captioned video of them."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from .oracle import GaussianMixture
from .text import COLORS, DIGITS, DIRECTIONS, KINDS, SHAPES, SPEEDS, SUBJECTS, Thing, describe
from .validate import check_choice, check_count, check_list, check_memory, check_number, check_same_shape, check_tensor

POINT_SETS = ("moons", "swiss_roll", "gaussians")
PARTS = {"all": slice(None), "train": slice(898), "test": slice(898, None)}  # of the digits


def points(name: str) -> GaussianMixture:
    """A 2-D point set as a distribution: draw from it with `.sample(n)`, denoise exactly with `.denoiser(schedule)`.

    "moons" and "swiss_roll" are scikit-learn's curves, strung with 256 Gaussian beads closer together than they are
    wide; "gaussians" is a ring of eight. Each is shifted and scaled to mean 0 and variance 1 (averaged over x and y).
    Raises ValueError for another name.
    """
    check_choice("name", name, POINT_SETS)
    if name == "moons":
        angle = math.pi * _even(128)
        upper = torch.stack([angle.cos(), angle.sin()], dim=1)
        lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
        return _standardised(torch.cat([upper, lower]), 0.07)
    if name == "swiss_roll":
        angle = 1.5 * math.pi * (1 + 2 * _even(256))
        return _standardised(torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1), 0.5)
    angle = math.pi / 4 * torch.arange(8)
    return _standardised(torch.stack([angle.cos(), angle.sin()], dim=1), 0.1)


def drawing(xy: Tensor) -> GaussianMixture:
    """A hand-drawn shape as a distribution: a Gaussian bead on each of the points `[N, 2]`, 7 % of the spread wide.

    Like `points`, it is shifted and scaled to mean 0 and variance 1. Raises ValueError for fewer than 20 places.
    """
    xy = check_tensor("xy", xy, [None, 2])
    places = len(xy.unique(dim=0))
    if places < 20:
        raise ValueError(
            f"a drawing needs points at 20 places or more, got {places}; draw a longer line, or pick a shape"
        )
    spread = xy.std(dim=0, correction=0).square().mean().sqrt().item()
    return _standardised(xy, 0.07 * check_number("the spread of xy", spread, 1e-9, 1e9))


def _even(n: int) -> Tensor:
    """The middles of n equal parts of [0, 1], `[n]`."""
    return (torch.arange(n) + 0.5) / n


def _standardised(means: Tensor, std: float) -> GaussianMixture:
    """The mixture of equal beads, moved to mean 0 and scaled to variance 1, averaged over the coordinates."""
    scale = math.sqrt(means.var(dim=0, correction=0).mean().item() + std**2)
    return GaussianMixture((means - means.mean(0)) / scale, std / scale)


def digits(part: str = "all") -> tuple[Tensor, Tensor]:
    """The real handwritten digits that scikit-learn ships: images `[N, 1, 8, 8]` in [0, 1] and labels `[N]`.

    part: "all" 1797, or "train", the first 898 rows, or "test", the others. The rows are not shuffled: the two halves
    come, for the most part, from different writers. Raises ValueError for another part.
    """
    from sklearn.datasets import load_digits  # imported here: it costs more than the rest of the library together

    check_choice("part", part, PARTS)
    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16  # [1797, 1, 8, 8]
    return images[PARTS[part]], torch.tensor(bunch.target)[PARTS[part]]


FPS = 8  # frames a second, for showing
SIZE = 14.0  # pixels: the side of the square that holds a thing
PIXELS_PER_FRAME = {"slow": 0.5, "fast": 1.5}
STRAIGHT = 8  # frame steps at least before the first bounce
RGB = {
    "red": (1.0, 0.15, 0.15),
    "green": (0.1, 0.85, 0.25),
    "blue": (0.2, 0.4, 1.0),
    "yellow": (1.0, 0.85, 0.1),
    "purple": (0.75, 0.2, 0.95),
    "white": (1.0, 1.0, 1.0),
}
HELD_OUT = {  # pairs that no training video shows
    *(("zero", "green"), ("one", "purple"), ("two", "yellow"), ("three", "red"), ("four", "white"), ("six", "blue")),
    *(("seven", "green"), ("nine", "yellow"), ("circle", "blue"), ("square", "purple"), ("triangle", "red")),
    *(("zero", "left"), ("two", "up right"), ("five", "down"), ("eight", "up left"), ("nine", "right")),
    *(("circle", "down left"), ("square", "up"), ("triangle", "down right")),
}


def held_out(thing: Thing) -> bool:
    """Whether this combination of subject and colour, or of subject and direction, is kept out of training."""
    return not HELD_OUT.isdisjoint(((thing.subject, thing.color), (thing.subject, thing.direction)))


def _choice(options: Sequence[str], generator: torch.Generator | None) -> str:
    return options[int(torch.randint(len(options), (), generator=generator))]


def random_scene(
    things: int = 1,
    *,
    subjects: Sequence[str] = SUBJECTS,
    combinations: str = "training",
    generator: torch.Generator | None = None,
) -> tuple[Thing, ...]:
    """One or two things, nearer first, uniform over all that `combinations` allows; two differ in colour.

    combinations: "training", "held out" or "all". Raises ValueError where there are no such things.
    """
    check_choice("combinations", combinations, ("training", "held out", "all"))
    if check_count("things", things) > 2:
        raise ValueError(f"things must be 1 or 2, got {things}")
    if not check_list("subjects", subjects, str) or not set(subjects) <= set(SUBJECTS):
        raise ValueError(f"subjects must be some of {', '.join(SUBJECTS)}, got {subjects!r:.80}")
    scene: list[Thing] = []
    for _ in range(1000):  # one draw in eleven is taken, or more
        direction = _choice(DIRECTIONS, generator)
        speed = None if direction == "still" else _choice(SPEEDS, generator)
        thing = Thing(_choice(subjects, generator), _choice(COLORS, generator), direction, speed)
        allowed = combinations == "all" or held_out(thing) == (combinations == "held out")
        if allowed and thing.color not in [other.color for other in scene]:
            scene.append(thing)
        if len(scene) == things:
            return tuple(scene)
    raise ValueError(f"subjects {subjects!r:.80} give no {things} things of different colours, {combinations}")


def shortened(scene: Sequence[Thing], generator: torch.Generator | None = None) -> tuple[Thing, ...]:
    """The same things with each of colour, motion and speed left out of the description by the toss of a coin."""

    def maybe(value: str | None) -> str | None:
        return value if torch.rand((), generator=generator) < 0.5 else None

    return tuple(
        Thing(thing.subject, maybe(thing.color), maybe(thing.direction), maybe(thing.speed))
        for thing in check_list("scene", scene, Thing)
    )


@functools.cache
def _sprites(part: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Pictures of all subjects, `[N, 1, 28, 28]`, and for each subject the indices of its pictures."""
    images, labels = digits(part)
    images = interpolate(images, size=28, mode="bicubic", align_corners=False).clamp(0, 1)
    axis = (torch.arange(28) + 0.5) / 14 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = {  # how far a pixel lies inside, in half sides
        "circle": 0.86 - (x**2 + y**2).sqrt(),
        "square": 0.76 - torch.maximum(x.abs(), y.abs()),
        "triangle": torch.minimum(0.8 - y, (y + 0.92 - 1.92 * x.abs()) / 2.16),
    }
    shapes = torch.stack([(inside[name] * 14 + 0.5).clamp(0, 1) for name in SHAPES])[:, None]
    which = {name: (labels == i).nonzero().flatten() for i, name in enumerate(DIGITS)}
    which |= {name: torch.tensor([len(images) + i]) for i, name in enumerate(SHAPES)}
    return torch.cat([images, shapes]), which


def velocity(thing: Thing) -> Tensor:
    """Pixels a frame to the right and down, `[2]`; all eight directions of one speed are equally fast."""
    check_choice("the direction of a thing", thing.direction, DIRECTIONS)
    words = thing.direction.split()
    way = torch.tensor([float("right" in words) - ("left" in words), float("down" in words) - ("up" in words)])
    return way / way.norm().clamp(min=1) * PIXELS_PER_FRAME.get(thing.speed, 0.0)


def bounced(start: Tensor, speed: Tensor, room: Tensor, frames: int) -> Tensor:
    """Positions `[B, frames, 2]` under the law of motion: constant velocity, mirrored at 0 and at `room`.

    start, speed and room: `[B, 2]`, in pixels and pixels a frame.
    """
    check_same_shape("speed", speed, "start", check_tensor("start", start, [None, 2]))
    check_same_shape("room", room, "start", start)
    check_memory(f"{frames} frames", 24 * len(start) * check_count("frames", frames))
    free = start[:, None] + speed[:, None] * torch.arange(frames)[:, None]  # [B, frames, 2]
    return room[:, None] - (free.remainder(2 * room[:, None]) - room[:, None]).abs()


@dataclass
class Clips:
    """Captioned video and all that is true of it. Of two things the first is the nearer.

    video `[B, 3, F, H, W]` in [0, 1]; captions and scenes, one a clip; centers `[B, things, F, 2]`, x to the right and
    y down, in pixels; velocities `[B, things, 2]` of the first step, in pixels a frame; sprites `[B, things]`, which
    picture of the digits' half was used.
    """

    video: Tensor
    captions: list[str]
    scenes: list[tuple[Thing, ...]]
    centers: Tensor
    velocities: Tensor
    sprites: Tensor


def film(
    scenes: Sequence[Sequence[Thing]],
    *,
    frames: int = 17,
    height: int = 32,
    width: int = 32,
    part: str = "train",
    captions: Sequence[str] | None = None,
    generator: torch.Generator | None = None,
) -> Clips:
    """Video of the given scenes, equally many things in each; all of a thing must be said.

    A clip starts at a random place from which no wall is met in the first 8 steps; the handwriting is drawn from
    `part` of the digits. Without captions, each clip gets the plain one. Raises ValueError for sizes in which a thing
    has no room to move, and for scenes that do not say all.
    """
    check_count("frames", frames)
    check_choice("part", part, PARTS)
    if min(check_count("height", height), check_count("width", width)) < 32:
        raise ValueError(f"height and width must be 32 or more, so that things have room, got {height} and {width}")
    counts = {len(check_list("scenes: a scene", scene, Thing)) for scene in check_list("scenes", scenes)}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"scenes must be one or more, with equally many things in each, got {sorted(counts)} things")
    flat = [thing for scene in scenes for thing in scene]  # B n
    for thing in flat:
        for kind in KINDS if thing.direction != "still" else ("subject", "color"):
            check_choice(f"scenes: the {kind} of a thing", getattr(thing, kind), KINDS[kind])
    captions = [describe(scene) for scene in scenes] if captions is None else captions
    if len(check_list("captions", captions, str)) != len(scenes):
        raise ValueError(f"captions must be one a scene, {len(scenes)}, got {len(captions)}")
    pixels = len(flat) * frames * height * width
    check_memory(f"{len(scenes)} clips of {frames} frames, {height} x {width}", 75 * pixels)  # measured 44 to 70
    pictures, which = _sprites(part)
    n = len(scenes[0])
    choice = torch.rand(len(flat), generator=generator)
    sprites = torch.stack([which[t.subject][int(c * len(which[t.subject]))] for t, c in zip(flat, choice, strict=True)])
    speeds = torch.stack([velocity(thing) for thing in flat])  # [B n, 2]
    room = torch.tensor([width - SIZE, height - SIZE]).expand_as(speeds)
    ahead = STRAIGHT * speeds
    low, high = (-ahead).clamp(min=0), room - ahead.clamp(min=0)  # where a clip may start
    start = low + (high - low) * torch.rand(speeds.shape, generator=generator)
    corners = bounced(start, speeds, room, frames)  # [B n, F, 2]
    centers = corners + SIZE / 2
    # a thing's picture, looked up for each pixel of each frame
    size = torch.tensor([width, height])
    theta = torch.zeros(len(flat) * frames, 2, 3)
    theta[:, [0, 1], [0, 1]] = size / SIZE
    theta[:, :, 2] = ((size - 2 * centers) / SIZE).flatten(0, 1)
    grid = affine_grid(theta, [len(theta), 1, height, width], align_corners=False)
    tiles = pictures[sprites].repeat_interleave(frames, 0)  # [B n F, 1, 28, 28]
    cover = grid_sample(tiles, grid, align_corners=False).reshape(len(scenes), n, 1, frames, height, width)
    color = torch.tensor([RGB[thing.color] for thing in flat]).reshape(len(scenes), n, 3, 1, 1, 1)
    video = torch.zeros(len(scenes), 3, frames, height, width)
    for i in reversed(range(n)):  # the nearer one last, over the others
        video = video * (1 - cover[:, i]) + cover[:, i] * color[:, i]
    shape = (len(scenes), n)
    return Clips(
        video,
        list(captions),
        [tuple(scene) for scene in scenes],
        centers.reshape(*shape, frames, 2),
        speeds.reshape(*shape, 2),
        sprites.reshape(shape),
    )
