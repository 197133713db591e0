"""Numbers that say how far two sets of samples are apart."""

from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from .validate import check_count, check_many, check_memory, check_same_shape, check_tensor, is_whole, shown


def sliced_wasserstein(a: Tensor, b: Tensor, *, directions: int = 256) -> float:
    """Sliced 2-Wasserstein distance between two sets of n points `[n, D]`, in the units of the data.

    Project both sets on fixed directions; along each, sorting pairs the points in the cheapest way. The square root of
    the mean squared gap over directions and points (Bonneel and others, 2015; directions drawn once, from seed 0).
    Raises ValueError where the shapes differ.
    """
    a = check_tensor("a", a, [None, None])
    b = check_same_shape("b", b, "a", a).to(a)
    fixed = torch.Generator().manual_seed(0)
    check_count("directions", directions)
    check_memory(f"{len(a)} points on {directions} directions", 4 * directions * (4 * len(a) + 2 * a.shape[1]))
    axes = torch.randn(a.shape[1], directions, generator=fixed).to(a)  # [D, directions]
    axes = axes / axes.norm(dim=0)
    # NumPy sorts ten times faster than torch here.
    a_sorted, b_sorted = (np.sort((axes.T @ x.detach().T).cpu().numpy()) for x in (a, b))  # [directions, n] each
    return float(np.sqrt(np.mean((a_sorted - b_sorted) ** 2)))


def real_floor(sample: Callable[[], Tensor], *, pairs: int = 20) -> float:
    """The distance that even perfect samples keep: the median over pairs of independent real sets, `sample()` each."""
    check_many("pairs", pairs, 32)
    return median(sliced_wasserstein(sample(), sample()) for _ in range(pairs))


class DigitProbe(nn.Module):
    """A small convolutional classifier of digits: images `[B, 1, 8, 8]` in [0, 1] to logits `[B, 10]`.

    `features` gives the 32 numbers before its last layer: the space in which sets of digits are compared.
    """

    def __init__(self, width: int = 24, features: int = 32) -> None:
        super().__init__()
        _check_size(width, features)
        layers: list[nn.Module] = []
        for before, after in [(1, width), (width, width), (width, 2 * width), (2 * width, 2 * width)]:
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.SiLU()]
        layers.insert(6, nn.MaxPool2d(2))  # 8 x 8 to 4 x 4
        layers += [nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(8 * width, features), nn.SiLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(features, 10)

    def features(self, images: Tensor) -> Tensor:
        images = check_tensor("images", images, [None, 1, 8, 8], self.head.weight.dtype)
        return self.body(2 * images - 1)  # [B, features]

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))  # [B, 10]


def _check_size(width: int, features: int) -> None:
    numbers = 75 * check_count("width", width) * width + 8 * width * check_count("features", features)
    check_memory(f"weights of width {width} and {features} features", 4 * numbers)


def _pyramid(channels: int, width: int, features: int) -> nn.Sequential:
    """Pictures `[B, channels, H, W]` of any size to `[B, features]`: four convolutions, then the largest answers."""
    layers: list[nn.Module] = []
    for before, after, kernel, stride in [(channels, width, 5, 2), (width, 2 * width, 3, 1), (2 * width,) * 2 + (3, 2)]:
        layers += [nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.BatchNorm2d(after), nn.SiLU()]
    layers += [nn.Conv2d(2 * width, 3 * width, 3, padding=1), nn.BatchNorm2d(3 * width), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(3 * width, features), nn.SiLU())


class VideoProbe(nn.Module):
    """A classifier of captioned video: `[B, 3, F, H, W]` in [0, 1] to logits of subject, colour, direction and speed.

    One part looks at frames 0, 4 and 8, each by itself, and averages; one looks at the motion of the first nine frames,
    before the first bounce. It takes any size, and any number of frames: of one alone it tells no motion.
    """

    def __init__(self, kinds: dict[str, int], width: int = 32, features: int = 32) -> None:
        super().__init__()
        _check_size(width, features)
        if not isinstance(kinds, dict) or not all(isinstance(name, str) for name in kinds):
            raise TypeError(f"kinds must be a dict, name to number of values, got {shown(kinds)}")
        values = sum(check_count(f"kinds: {name!r:.20}", count) for name, count in kinds.items())
        check_memory(f"kinds: {values} values", 4 * values * features)
        self.looks, self.motion = _pyramid(3, width, features), _pyramid(5, width, features)
        self.heads = nn.ModuleDict({name: nn.Linear(features, count) for name, count in kinds.items()})

    def features(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """What it sees of looks and of motion, `[B, features]` each; the space in which sets of videos are compared."""
        check_tensor("video", video, [None, 3, None, None, None], self.motion[0].weight.dtype)
        seen = [self.looks(2 * frame - 1) for frame in video[:, :, :9:4].unbind(2)]
        return torch.stack(seen).mean(0), self.moves(video)

    def moves(self, video: Tensor) -> Tensor:
        """What it sees of motion, `[B, features]`, in the light of every second of the first nine frames."""
        video = check_tensor("video", video, [None, 3, None, None, None], self.motion[0].weight.dtype)
        light = video.amax(1)[:, :9:2]  # [B, 5, H, W]
        light = torch.cat([light, light[:, -1:].expand(-1, 5 - light.shape[1], -1, -1)], dim=1)
        return self.motion(2 * light - 1)

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        looks, motion = self.features(video)
        return {name: head(looks if name in LOOKS else motion) for name, head in self.heads.items()}


LOOKS = ("subject", "color")


def adherence(logits: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """The share of videos in which a probe sees what was asked for, of each kind and of all together ("all").

    logits: `[B, values]` for each kind; wanted: `[B]`, -1 where nothing was asked for, which "all" counts as right.
    A kind that nobody asked for gives NaN. Raises ValueError or TypeError where these do not fit each other.
    """
    if not isinstance(logits, dict) or not isinstance(wanted, dict) or not wanted or wanted.keys() - logits.keys():
        raise ValueError(f"wanted must be a dict of some kinds of logits, got {shown(wanted)} and {shown(logits)}")
    for kind, numbers in wanted.items():
        check_tensor(f"logits of {kind!r:.20}", logits[kind], [None, None])
        if not is_whole(numbers) or numbers.shape != (len(logits[kind]),):
            raise ValueError(f"wanted {kind!r:.20} must be {len(logits[kind])} whole numbers, got {shown(numbers)}")
    right = {kind: logits[kind].argmax(1) == numbers for kind, numbers in wanted.items()}
    asked = {kind: numbers >= 0 for kind, numbers in wanted.items()}
    shares = {kind: right[kind][asked[kind]].float().mean().item() for kind in wanted}
    return shares | {"all": torch.stack([right[k] | ~asked[k] for k in wanted]).all(0).float().mean().item()}


def centroids(video: Tensor) -> Tensor:
    """The centre of light of each frame of `[B, 3, F, H, W]` in [0, 1]: `[B, F, 2]`, x to the right, y down, in pixels.

    Pixels darker than a quarter do not count; a black frame gives the middle.
    """
    light = (check_tensor("video", video, [None, 3, None, None, None]).amax(1) - 0.25).clamp(min=0) + 1e-6
    y, x = ((torch.arange(size) + 0.5).to(light) for size in light.shape[2:])
    total = light.sum((2, 3))  # [B, F]
    return torch.stack([(light.sum(2) * x).sum(2) / total, (light.sum(3) * y).sum(2) / total], dim=2)


def motion_error(video: Tensor, velocities: Tensor, steps: int = 8) -> Tensor:
    """Mean distance between the step of the centre of light and the velocity `[B, 2]`, in pixels a frame step: `[B]`.

    Over the first steps, in which nothing bounces. The tracker has an error of its own: measure it on real video.
    Raises ValueError for a video of one frame.
    """
    check_tensor("velocities", velocities, [len(check_tensor("video", video, [None, 3, None, None, None])), 2])
    if video.shape[2] < 2:
        raise ValueError("video must have 2 frames or more to show motion, got 1")
    check_count("steps", steps)
    moved = centroids(video)[:, : steps + 1].diff(dim=1)  # [B, steps, 2]
    return (moved - velocities[:, None]).norm(dim=2).mean(1)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance between Gaussians fitted to features `[N, D]` and `[M, D]`, squared, as FID is.

    |m_a - m_b|^2 + trace(S_a + S_b - 2 (S_a S_b)^(1/2)), in float64 (arXiv 1706.08500, eq. 6). It is biased upwards for
    few samples, so compare only values of the same N. Raises ValueError for other shapes, or fewer than 2 rows.
    """
    a, b = check_tensor("a", a, [None, None]).double(), check_tensor("b", b, [None, None]).double()
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(f"a and b must be [N, D] with the same D and N of 2 or more, got {a.shape} and {b.shape}")
    check_memory(f"the covariances of {a.shape[1]} features", 80 * a.shape[1] ** 2)
    s_a, s_b = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))  # [D, D]
    values, vectors = torch.linalg.eigh(s_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T  # s_a^(1/2)
    cross = torch.linalg.eigvalsh(root @ s_b @ root).clamp(min=0).sqrt().sum()  # trace((s_a s_b)^(1/2))
    return ((a.mean(0) - b.mean(0)).square().sum() + s_a.trace() + s_b.trace() - 2 * cross).item()


def precision_recall(real: Tensor, generated: Tensor, *, neighbours: int = 3) -> tuple[float, float]:
    """The share of `generated` features `[M, D]` on the manifold of the `real` ones `[N, D]`, and the other way round.

    On a set's manifold means: no farther from some point of the set than that point's k-th nearest neighbour within
    the set (arXiv 1904.06991, eq. 1 and 2). Raises ValueError for other shapes, or no more rows than `neighbours`.
    """
    real = check_tensor("real", real, [None, None])
    generated = check_tensor("generated", generated, [None, real.shape[1]]).to(real)
    if min(len(real), len(generated)) <= check_count("neighbours", neighbours):
        raise ValueError(f"both sets need more rows than neighbours, {neighbours}; got {len(real)}, {len(generated)}")
    check_memory(f"distances among {len(real)} and {len(generated)} rows", 20 * max(len(real), len(generated)) ** 2)
    between = torch.cdist(real, generated)  # [N, M]
    radius_real, radius_generated = (  # [N], [M]; a point's nearest neighbour in its own set is itself
        torch.cdist(x, x).kthvalue(neighbours + 1, dim=1).values for x in (real, generated)
    )
    precision = (between <= radius_real[:, None]).any(dim=0).float().mean().item()
    return precision, (between <= radius_generated).any(dim=1).float().mean().item()


def nearest_distance(samples: Tensor, reference: Tensor) -> Tensor:
    """The Euclidean distance of each of the samples `[M, ...]` to the nearest reference `[N, ...]`: `[M]`."""
    reference = check_tensor("reference", reference)
    reference = reference.reshape(len(reference), -1)
    samples = check_tensor("samples", samples).to(reference)
    samples = samples.reshape(len(samples), -1)
    if samples.shape[1] != reference.shape[1]:
        raise ValueError(f"samples and reference must hold rows of one size, got {samples.shape}, {reference.shape}")
    check_memory(f"distances of {len(samples)} samples to {len(reference)}", 5 * len(samples) * len(reference))
    return torch.cdist(samples, reference).min(dim=1).values
