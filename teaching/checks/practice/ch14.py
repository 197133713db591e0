"""Checks of the practice notebook of chapter 14."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def still_shows(answer: object) -> None:
    """Chapter 14: the correlation of (1 - s) z0 + s eps with z0 at s = 0.6, both of variance 1."""
    mistakes = [
        (0.4, "that is the covariance; a correlation is divided by both standard deviations"),
        (0.16 / 0.52, "that is the share of the variance, the square of the correlation"),
        (0.4 / 0.52, "divide by the standard deviation of z_s, not by its variance"),
        (0.4 / 0.6, "that is signal over noise"),
        (0.6 / 0.52**0.5, "that is the correlation with the noise"),
    ]
    mark_number("still_shows", answer, 0.4 / 0.52**0.5, mistakes)


def edit_on_grid(answer: object) -> None:
    """Chapter 14: `edit_on_grid(z0 [B, C, n, h, w], eps, times [K + 1], strength, walk)`, SDEdit on a fixed grid."""

    def walk(z: Tensor, times: Tensor) -> Tensor:
        for t, s in pairwise(times.tolist()):
            z = z + (s - t) * (z.sin() + t)
        return z

    def begun(skip: int = 0, noise: int = 0, exchanged: bool = False) -> Callable:
        """Walk from `skip` times after the first that is not above the strength, with the noise of another time."""

        def run(z0: Tensor, eps: Tensor, times: Tensor, strength: float, walk: Callable) -> Tensor:
            first = int((times > strength).sum())
            t = times[first + noise]
            start = t * z0 + (1 - t) * eps if exchanged else (1 - t) * z0 + t * eps
            return walk(start, times[first + skip :])

        return run

    def nearest(z0: Tensor, eps: Tensor, times: Tensor, strength: float, walk: Callable) -> Tensor:
        first = int((times - strength).abs().argmin())
        return walk(level(z0, eps, times[first].item()), times[first:])

    def below(z0: Tensor, eps: Tensor, times: Tensor, strength: float, walk: Callable) -> Tensor:
        left = times[times < strength]
        return walk(level(z0, eps, left[0].item()), left)

    def level(z0: Tensor, eps: Tensor, strength: float) -> Tensor:
        return (1 - strength) * z0 + strength * eps

    mistakes = [
        (
            lambda z, e, t, s, walk: walk(level(z, e, s), t[t <= s]),
            "the noise is that of the strength, and the walk begins at an earlier time of less noise",
        ),
        (
            lambda z, e, t, s, walk: walk(level(z, e, s), torch.cat([torch.tensor([s]), t[t <= s]])),
            "noise and time fit, but the strength is no time of the grid",
        ),
        (
            lambda z, e, t, s, walk: walk(level(z, e, s), s * t),
            "that squeezes the grid, as the pipeline does; here its times must stay as they are",
        ),
        (begun(-1, -1), "noise and time fit, but that start is noisier than the strength allows"),
        (begun(1, 0), "the walk leaves out the time for which the noise was made"),
        (begun(0, 1), "that puts on the noise of the next time: less than the walk expects"),
        (begun(1, 1), "one time too late: the largest time that is NOT above the strength"),
        (begun(exchanged=True), "data and noise are exchanged"),
        (
            lambda z, e, t, s, walk: walk(level(z, e, t[t <= s][0].item()), t),
            "the walk begins at t = 1, where there would be nothing but noise",
        ),
        (
            lambda z, e, t, s, walk: walk(level(z, e, s), t),
            "the walk begins at t = 1, where there would be nothing but noise",
        ),
        (nearest, "the nearest time may lie above the strength"),
        (below, "a strength that is a time of the grid is not above itself: begin there"),
    ]
    inputs = []
    for seed, (k, strength) in enumerate(((4, 0.7), (5, 0.65), (4, 0.75))):
        z0, eps = random_tensor(2, 3, 2, 2, 4, seed=seed), random_tensor(2, 3, 2, 2, 4, seed=seed + 5)
        inputs.append((z0, eps, torch.linspace(1, 0, k + 1), strength, walk))
    mark_function("edit_on_grid", answer, begun(), inputs, mistakes)


def keep_frames(answer: object) -> None:
    """Chapter 14: `keep_frames(z [B, C, n, h, w], known, eps, mask [B, n], t)`, known frames as they are at time t."""

    def put(z: Tensor, kept: Tensor, mask: Tensor) -> Tensor:
        return mask * kept + (1 - mask) * z

    def wide(mask: Tensor) -> Tensor:
        return mask[:, None, :, None, None]

    def at(known: Tensor, eps: Tensor, t: float) -> Tensor:
        return (1 - t) * known + t * eps

    mistakes = [
        (lambda z, k, e, m, t: put(z, k, wide(m)), "clean frames do not belong to the time t: the rest is still noisy"),
        (lambda z, k, e, m, t: put(z, at(k, e, t), 1 - wide(m)), "the mask is flipped: it is 1 where a frame IS known"),
        (lambda z, k, e, m, t: put(z, at(k, e, 1 - t), wide(m)), "the clock is reversed: t = 1 is noise"),
        (lambda z, k, e, m, t: put(z, k + t * e, wide(m)), "the signal has to shrink as well, by 1 - t"),
        (
            lambda z, k, e, m, t: put(z, at(k, e, t), m[:, :, None, None, None]),
            "the mask lies along the channels; it belongs to the latent frames",
        ),
        (lambda z, k, e, m, t: at(put(z, k, wide(m)), e, t), "the sampler's own frames have their noise already"),
        (lambda z, k, e, m, t: wide(m) * at(k, e, t), "frames that are not known stay as the sampler made them, not 0"),
        (lambda z, k, e, m, t: wide(m) * at(k, e, t) + z, "what the sampler left there must go first"),
        (lambda z, k, e, m, t: at(k, e, t), "that replaces all frames, known or not"),
        (lambda z, k, e, m, t: put(z, at(k, z, t), wide(m)), "the noise to use is eps, not the sampler's latents"),
    ]
    masks = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    inputs = []
    for seed, (mask, t) in enumerate(((masks, 0.7), (masks.flip(1), 0.2))):
        z, known, eps = (random_tensor(2, 3, 3, 2, 4, seed=9 * seed + i) for i in range(3))
        inputs.append((z, known, eps, mask, t))
    mark_function("keep_frames", answer, lambda z, k, e, m, t: put(z, at(k, e, t), wide(m)), inputs, mistakes)


def two_scales(answer: object) -> None:
    """Chapter 14: `two_scales(nothing [B, C, n, h, w], frames, both, frame_scale, text_scale)`, each guided apart."""

    def right(n: Tensor, f: Tensor, b: Tensor, s: float, w: float) -> Tensor:
        return n + s * (f - n) + w * (b - f)

    mistakes = [
        (
            lambda n, f, b, s, w: n + s * (f - n) + w * (b - n),
            "`both` minus `nothing` holds what the frames change, so that counts twice",
        ),
        (lambda n, f, b, s, w: right(n, f, b, w, s), "the two scales are exchanged"),
        (
            lambda n, f, b, s, w: b + s * (f - n) + w * (b - f),
            "off by one: scales count from `nothing`, not from `both`",
        ),
        (lambda n, f, b, s, w: f + w * (b - f), "the scale of the frames is not used"),
        (lambda n, f, b, s, w: n + s * (f - n), "the sentence is not heard"),
        (
            lambda n, f, b, s, w: n + s * ((f - n) + w * (b - f)),
            "the scale of the frames multiplies what the sentence changes as well; each scale has its own difference",
        ),
        (lambda n, f, b, s, w: n + s * w * (b - n), "one scale for both conditions together; each has its own"),
        (lambda n, f, b, s, w: f + s * (f - n) + w * (b - f), "off by one in the frames: scale 0 must not hear them"),
        (
            lambda n, f, b, s, w: torch.cat([right(n, f, b, s, w)[:, :3], b[:, 3:]], dim=1),
            "three channels are guided; latents have more of them than pictures",
        ),
    ]
    inputs = []
    for seed, (s, w) in enumerate(((1.5, 3.0), (2.0, 0.5))):
        inputs.append((*(random_tensor(2, 4, 3, 2, 2, seed=9 * seed + i) for i in range(3)), s, w))
    mark_function("two_scales", answer, right, inputs, mistakes)


def passage_start(answer: object) -> None:
    """Chapter 14: `passage_start(a [B, C, n, h, w], b, eps_a, eps_b, s)`, a noisy mixture to connect two videos."""

    def weights(x: Tensor, axis: int = 2) -> Tensor:
        shape = [-1 if i == axis else 1 for i in range(5)]
        return torch.linspace(0, 1, x.shape[axis]).view(shape)

    def mix(a: Tensor, b: Tensor, w: Tensor) -> Tensor:
        return (1 - w) * a + w * b

    def spread(w: Tensor) -> Tensor:
        return ((1 - w) ** 2 + w**2).sqrt()

    def right(a: Tensor, b: Tensor, e: Tensor, f: Tensor, s: float, axis: int = 2, power: int = 1) -> Tensor:
        w = weights(a, axis)
        return (1 - s) * mix(a, b, w) + s * mix(e, f, w) / spread(w) ** power

    def all_scaled(a: Tensor, b: Tensor, e: Tensor, f: Tensor, s: float) -> Tensor:
        return right(a, b, e, f, s, power=0) / spread(weights(a))

    def by_roots(a: Tensor, b: Tensor, e: Tensor, f: Tensor, s: float) -> Tensor:
        w = weights(a)
        return (1 - s) * mix(a, b, w) + s * ((1 - w).sqrt() * e + w.sqrt() * f)

    def measured(a: Tensor, b: Tensor, e: Tensor, f: Tensor, s: float, dims: tuple | None = None) -> Tensor:
        w = weights(a)
        eps = mix(e, f, w)
        eps = eps / (eps.std() if dims is None else eps.std(dims, keepdim=True))
        return (1 - s) * mix(a, b, w) + s * eps

    by_draws = "divide by what the weights say; how strong these draws happen to be is chance"
    mistakes = [
        (measured, by_draws),
        (lambda *z: measured(*z, dims=(0, 1, 3, 4)), by_draws),
        (lambda *z: measured(*z, dims=(1, 3, 4)), by_draws),
        (lambda *z: right(*z, power=0), "two noises mixed are weaker than one: what is the variance of their mixture?"),
        (lambda *z: right(*z, power=2), "divide by the standard deviation of the mixed noise, not by its variance"),
        (all_scaled, "the data is scaled up as well; only the noise is too weak"),
        (by_roots, "the strength is right, but the noise is to be mixed with the same weights as the data"),
        (
            lambda a, b, e, f, s: (1 - s) * mix(a, b, weights(a)) + s * e,
            "one noise alone has the right strength, but asked for is a mixture of both",
        ),
        (lambda a, b, e, f, s: right(b, a, f, e, s), "the other way round: a comes first, b last"),
        (lambda a, b, e, f, s: right(a, b, e, f, 1 - s), "data and noise are exchanged: s = 1 is noise"),
        (lambda *z: right(*z, axis=4), "the weights lie along the columns of the picture, not along the frames"),
        (lambda *z: right(*z, axis=1), "the weights lie along the channels, not along the frames"),
    ]
    inputs = []
    for seed, (n, s) in enumerate(((5, 0.7), (4, 0.4))):
        inputs.append((*(random_tensor(2, 3, n, 2, 4, seed=9 * seed + i) for i in range(4)), s))
    mark_function("passage_start", answer, right, inputs, mistakes)
