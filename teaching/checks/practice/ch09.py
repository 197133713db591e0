"""Checks of the practice notebook of chapter 09."""

from collections.abc import Callable

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def tilted_peak(answer: object) -> None:
    """Chapter 09: the mean of the density tilted at scale 3, class N(1, variance 1), everything N(0, variance 2)."""
    mistakes = [
        (1.0, "that is the class itself, scale 1"),
        (3.0, "that would be right if everything had variance 1 as well; here it is 2"),
        (4 / 3, "that is scale 2: a scale of 3 is a strength of 2, not the other way round"),
        (1.6, "that is scale 4: here 3 is the scale, not the paper's strength"),
        (0.75, "the exponent of everything is 1 - 3, which is negative"),
        (0.5, "that is the variance of the tilted density; its mean is asked for"),
        (2.0, "that is where Heun's guided samples lie; they do not follow the tilted density"),
    ]
    mark_number("tilted_peak", answer, 1.5, mistakes)


def guided_calls(answer: object) -> None:
    """Chapter 09: the network calls of one sample in 20 DDIM steps, guided only where 0.22 < t < 0.78."""
    mistakes = [
        (20.0, "a guided step asks the network twice, with the label and without"),
        (40.0, "that guides every step; outside the interval one call is enough"),
        (11.0, "those are the extra calls, without a label; every step also makes one with it"),
        (22.0, "those are the calls of the guided steps alone; the plain steps count as well"),
        (30.0, "one guided step too few: t = 0.75 and t = 0.25 both lie inside"),
        (32.0, "one guided step too many: from 0.75 to 0.25 in strides of 0.05 there are 11 times"),
    ]
    mark_number("guided_calls", answer, 31.0, mistakes)


def guide_noise_channels(answer: object) -> None:
    """Chapter 09: `guide_noise_channels(cond [B, 2 C, H, W], uncond, scale)`, the first C guided, the rest cond's."""

    def guide(c: Tensor, u: Tensor, s: float, until: int | None = None, rest: str = "cond", less: float = 0) -> Tensor:
        n = c.shape[1] // 2 if until is None else until
        mixed = u + (s - less) * (c - u)
        return torch.cat([mixed[:, :n], (u if rest == "uncond" else c)[:, n:]], dim=1)

    def other_half(c: Tensor, u: Tensor, s: float) -> Tensor:
        n = c.shape[1] // 2
        return torch.cat([c[:, :n], (u + s * (c - u))[:, n:]], dim=1)

    mistakes = [
        (lambda *z: guide(*z, until=3), "still the buggy one: 3 is not the number of noise channels"),
        (
            lambda *z: guide(*z, until=4),
            "4 is right for this model only; let the input say how many channels it has",
        ),
        (lambda c, u, s: guide(c, u, s, until=c.shape[1]), "the variance channels are guided too; only the noise is"),
        (lambda *z: guide(*z, rest="uncond"), "the noise is right; the variance is that of the answer with the label"),
        (lambda *z: guide(*z, less=-1), "off by one: scale 1 is the plain conditional answer"),
        (
            lambda *z: guide(*z, less=1),
            "off by one the other way: scale 1 is the plain conditional answer, not scale 2",
        ),
        (other_half, "the halves are exchanged: the noise comes first"),
    ]
    inputs = [
        (random_tensor(2, n, 3, 4, seed=n), random_tensor(2, n, 3, 4, seed=n + 1), scale)
        for n, scale in ((8, 4.0), (4, 1.5))
    ]
    mark_function("guide_noise_channels", answer, guide, inputs, mistakes)


def label_gradient(answer: object) -> None:
    """Chapter 09: `label_gradient(cond [B, D], uncond [B, D], alpha [B], sigma [B])`, slope of log p(c | x_t)."""

    def slope(factor: Callable, sign: int = 1) -> Callable:
        return lambda c, u, a, s: sign * factor(a, s)[:, None] * (c - u)

    right = slope(lambda a, s: a / s**2)
    mistakes = [
        (slope(lambda a, s: torch.ones_like(a)), "that is the difference of the guesses; turn both into scores first"),
        (slope(lambda a, s: 1 / s**2), "alpha is missing: x_t holds alpha times x0"),
        (slope(lambda a, s: a / s), "that divides by sigma once; score = -eps / sigma, and eps has a sigma of its own"),
        (slope(lambda a, s: a / s, -1), "that is the difference of the two eps; the score is -eps / sigma"),
        (slope(lambda a, s: a / s**2, -1), "the sign: it must point to where the label is likelier"),
        (slope(lambda a, s: a**2 / s**2), "x_t holds alpha times x0, and only once"),
    ]
    inputs = [
        (random_tensor(3, 2, seed=1), random_tensor(3, 2, seed=2), *torch.tensor([[0.9, 0.5, 0.2], [0.1, 0.5, 0.8]])),
        (random_tensor(2, 5, seed=3), random_tensor(2, 5, seed=4), *torch.tensor([[0.8, 0.6], [0.6, 0.8]])),
    ]
    mark_function("label_gradient", answer, right, inputs, mistakes)


def rescaled_guidance(answer: object) -> None:
    """Chapter 09: `rescaled_guidance(cond [B, C, H, W], uncond, scale, phi)`, guided, then its spread pulled back."""

    def rescale(
        c: Tensor, u: Tensor, s: float, phi: float, axes: tuple[int, ...] = (1, 2, 3), to: str = "cond", power: int = 1
    ) -> Tensor:
        mixed = u + s * (c - u)
        ratio = (c if to == "cond" else u).std(axes, keepdim=True) / mixed.std(axes, keepdim=True)
        return phi * mixed * ratio**power + (1 - phi) * mixed

    mistakes = [
        (lambda c, u, s, phi: u + s * (c - u), "that is plain guidance, phi = 0"),
        (lambda c, u, s, phi: rescale(c, u, s, 1.0), "phi is not used: that rescales fully"),
        (lambda c, u, s, phi: rescale(c, u, s, 1 - phi), "phi is the share of the RESCALED guess"),
        (lambda *z: rescale(*z, axes=(0, 1, 2, 3)), "each sample has its own spread; that takes one for the batch"),
        (lambda *z: rescale(*z, axes=(2, 3)), "one spread for all of a sample, its channels together"),
        (lambda *z: rescale(*z, to="uncond"), "the spread to keep is that of the answer with the label"),
        (lambda *z: rescale(*z, power=-1), "the ratio is upside down: the guided spread is too large and must shrink"),
        (lambda *z: rescale(*z, power=2), "std and not the variance: the square root is missing"),
    ]
    size = torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1, 1)
    tilt = torch.tensor([1.0, 3.0]).view(2, 1, 1)
    inputs = [
        (size * tilt * random_tensor(3, 2, 3, 4, seed=i), size * random_tensor(3, 2, 3, 4, seed=i + 1), scale, phi)
        for i, scale, phi in ((1, 5.0, 0.7), (4, 2.0, 0.2))
    ]
    mark_function("rescaled_guidance", answer, rescale, inputs, mistakes)


def several_wishes(answer: object) -> None:
    """Chapter 09: `several_wishes(conds [K, B, D], uncond [B, D], scales [K])`, K labels at once, `[B, D]`."""

    def exact(c: Tensor, u: Tensor, s: Tensor) -> Tensor:
        return u + (s[:, None, None] * (c - u)).sum(0)

    def one_after_another(c: Tensor, u: Tensor, s: Tensor) -> Tensor:
        for wish, strength in zip(c, s, strict=True):
            u = u + strength * (wish - u)
        return u

    mistakes = [
        (lambda c, u, s: exact(c, u, s) + (len(c) - 1) * u, "that adds uncond once for each label; start from it once"),
        (lambda c, u, s: exact(c, u, s / len(c)), "that averages; the arrows of the labels add up"),
        (lambda c, u, s: exact(c, u, s) - u, "those are the arrows alone; where do they start?"),
        (lambda c, u, s: (s[:, None, None] * c).sum(0), "an arrow is cond - uncond: uncond has to be subtracted"),
        (lambda c, u, s: u + (s[:, None, None] * c).sum(0), "an arrow is cond - uncond: uncond has to be subtracted"),
        (one_after_another, "each arrow starts from uncond, not from the result so far"),
        (lambda c, u, s: exact(c, u, s.abs()), "a negative scale turns its arrow round"),
        (lambda c, u, s: exact(c, u, s.clamp(min=0)), "a negative scale turns its arrow round"),
        (lambda c, u, s: exact(c, u, s + 1), "off by one: these are scales, counted from uncond"),
        (lambda c, u, s: exact(c[:1], u, s[:1]), "only the first label is used"),
    ]
    inputs = [
        (random_tensor(2, 4, 3, seed=1), random_tensor(4, 3, seed=2), torch.tensor([2.0, 0.5])),
        (random_tensor(3, 2, 5, seed=3), random_tensor(2, 5, seed=4), torch.tensor([1.5, -1.0, 3.0])),
    ]
    mark_function("several_wishes", answer, exact, inputs, mistakes)
