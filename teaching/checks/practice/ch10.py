"""Checks of the practice notebook of chapter 10."""

import math

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def _kl(mean: Tensor, log_var: Tensor) -> Tensor:
    """In nats, for each latent number."""
    return (mean**2 + log_var.exp() - 1 - log_var) / 2


def scaled_twice(answer: object) -> None:
    """Chapter 10: the time at which half of the variance is signal, for latents of std 4 times 0.25, twice."""
    mistakes = [
        (0.5, "that is for latents of std 1, scaled once; the file held scaled ones already"),
        (0.8, "that is for latents of std 4, as they come; here they end up smaller than 1, not larger"),
        (0.0588, "the variances are to be equal, so the standard deviations are: nothing stays squared"),
        (0.25, "that is the std that they end up with; at which t is t equal to (1 - t) times that?"),
        (0.9412, "that is the share of noise at t = 0.5; asked for is the time at which it is one half"),
    ]
    mark_number("scaled_twice", answer, 0.2, mistakes)


def granted_noise(answer: object) -> None:
    """Chapter 10: the decoder's noise (std of a pixel) for a KL weight of 0.09, K = 512 and M = 4096."""
    mistakes = [
        (0.36, "that is the variance; the standard deviation is its square root"),
        (0.045**0.5, "an image has 8 times as many pixels as latent numbers, and the loss takes means of both"),
        (0.72**0.5, "there is a factor 2 in front of the variance"),
        (0.075, "K and M are exchanged"),
        (0.09, "that is the weight itself; how does it follow from tau, K and M?"),
        (0.72, "there is a factor 2 in front of the variance, and the root is missing"),
        (0.045, "K and M are missing, and so is the root"),
        (0.3, "weight and variance are equal only where K is half of M, as in the chapter"),
    ]
    mark_number("granted_noise", answer, 0.6, mistakes)


def negative_elbo(answer: object) -> None:
    """Chapter 10: `negative_elbo(x [B, ...], decoded [B, ...], mean [B, ...], log_var [B, ...], tau)`, for an image."""

    def parts(x: Tensor, y: Tensor, m: Tensor, v: Tensor, tau: float) -> tuple[Tensor, Tensor]:
        return (x - y).square() / (2 * tau**2), _kl(m, v)

    def right(*z: object) -> Tensor:
        error, kl = parts(*z)
        return (error.sum() + kl.sum()) / len(error)

    def mixed(*z: object) -> Tensor:
        error, kl = parts(*z)
        return error.mean() + kl.sum()

    def means(*z: object) -> Tensor:
        error, kl = parts(*z)
        return error.mean() + kl.mean()

    def weak(*z: object) -> Tensor:
        error, kl = parts(*z)
        return error.sum() / len(error) + kl.mean()

    def half(*z: object) -> Tensor:
        error, kl = parts(*z)
        return error.mean() + kl.sum() / len(kl)

    def minus(*z: object) -> Tensor:
        error, kl = parts(*z)
        return (error.sum() - kl.sum()) / len(error)

    def constant(*z: object) -> Tensor:
        return right(*z) + z[0][0].numel() / 2 * math.log(2 * math.pi * z[-1] ** 2)

    mistakes = [
        (mixed, "that is the code of the task: one part is taken per pixel, the other over the whole batch"),
        (half, "the KL is now that of an image; the error is still that of a pixel"),
        (means, "error per pixel, KL per latent number: an image does not have as many of the one as of the other"),
        (weak, "the error is that of an image, the KL that of a single latent number"),
        (lambda *z: right(*z) * len(z[0]), "that is the sum over the batch: with a larger batch the loss grows"),
        (lambda *z: right(*z[:-1], z[-1] ** 0.5), "tau is a standard deviation, the formula asks for the variance"),
        (lambda *z: right(*z[:-1], z[-1] / 2**0.5), "a Gaussian has a factor 1/2 in its exponent"),
        (minus, "the sign of the KL: it is a penalty, so it makes the loss larger"),
        (
            lambda *z: right(*z) * 2 * z[-1] ** 2 / z[0][0].numel(),
            "that is the chapter's loss, for a pixel; by which factor does it differ from minus the ELBO of an image?",
        ),
        (constant, "the constant was to be left out"),
    ]
    inputs = []
    for seed, image, latent, tau in ((1, (3, 1, 4, 6), (3, 2, 2, 3), 0.8), (2, (2, 3, 2, 3), (2, 4, 1, 2), 1.5)):
        x, y = random_tensor(*image, seed=seed), random_tensor(*image, seed=seed + 10)
        inputs.append((x, y, random_tensor(*latent, seed=seed + 20), random_tensor(*latent, seed=seed + 30), tau))
    mark_function("negative_elbo", answer, right, inputs, mistakes)


def noisy_error(answer: object) -> None:
    """Chapter 10: `noisy_error(x [B, D], mean [B, K], log_var [B, K], weight [D, K])`, mean error a pixel, `[B]`."""

    def miss(x: Tensor, m: Tensor, w: Tensor) -> Tensor:
        return (x - m @ w.T).square().sum(1)

    def right(x: Tensor, m: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return (miss(x, m, w) + v.exp() @ w.square().sum(0)) / w.shape[0]

    def norms(x: Tensor, m: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return (miss(x, m, w) + v.exp() @ w.norm(dim=0)) / w.shape[0]

    def together(x: Tensor, m: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return (miss(x, m, w) + ((v / 2).exp() @ w.T).square().sum(1)) / w.shape[0]

    def plain(x: Tensor, m: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return (miss(x, m, w) + v.exp().sum(1)) / w.shape[0]

    mistakes = [
        (lambda x, m, v, w: miss(x, m, w) / w.shape[0], "that is the error of the mean alone; the draw costs too"),
        (lambda x, m, v, w: right(x, m, v / 2, w), "exp(log_var / 2) is a standard deviation; its square enters here"),
        (lambda x, m, v, w: right(x, m, -v, w), "the sign of log_var: a large log variance is a wide cloud"),
        (lambda x, m, v, w: right(x, m, 2 * v, w), "exp(log_var) is the variance already; it needs no further square"),
        (
            lambda x, m, v, w: (miss(x, m, w) + v @ w.square().sum(0)) / w.shape[0],
            "log_var is a logarithm: its exponential is the variance",
        ),
        (norms, "the length of a column of the matrix enters squared"),
        (together, "the draws of the K numbers are independent: their squares add, not they themselves"),
        (plain, "that is the variance of the latents; the decoder stretches each of them before it reaches a pixel"),
        (lambda x, m, v, w: right(x, m, v, w) * w.shape[0], "a mean over the D pixels is asked for, not their sum"),
        (lambda x, m, v, w: right(x, m, v, w).mean(), "one number for each image: no mean over the batch"),
        (
            lambda x, m, v, w: 2 * miss(x, m, w) / w.shape[0] - right(x, m, v, w),
            "the noise of the draw adds to the error; subtracted, it would help",
        ),
    ]
    inputs = [
        (random_tensor(b, d, seed=s), random_tensor(b, k, seed=s + 1), random_tensor(b, k, seed=s + 2), w)
        for b, d, k, s, w in (
            (3, 5, 2, 1, random_tensor(5, 2, seed=8)),
            (4, 2, 3, 5, 0.5 * random_tensor(2, 3, seed=9)),
        )
    ]
    mark_function("noisy_error", answer, right, inputs, mistakes)


def channel_bits(answer: object) -> None:
    """Chapter 10: `channel_bits(mean [B, C, H, W], log_var [B, C, H, W])`, KL of each channel for an image, `[C]`."""

    def right(m: Tensor, v: Tensor) -> Tensor:
        return _kl(m, v).sum((2, 3)).mean(0) / math.log(2)

    mistakes = [
        (lambda m, v: right(m, v) * math.log(2), "those are nats, units of the natural logarithm; bits are asked for"),
        (lambda m, v: right(m, v) * math.log(2) ** 2, "a bit is smaller than a nat, so there are more of them"),
        (lambda m, v: _kl(m, v).mean((0, 2, 3)) / math.log(2), "that is one number of the channel; it has H W of them"),
        (lambda m, v: _kl(m, v).sum((0, 2, 3)) / math.log(2), "that adds up all images of the batch"),
        (lambda m, v: right(m, v).sum(), "that is the sum over all channels; each of them is asked for"),
        (lambda m, v: _kl(m, v).mean(0) / math.log(2), "one number a channel: the places of an image add up"),
        (lambda m, v: right(m, 2 * v), "log_var is the log of the variance: exp(log_var) needs no further square"),
        (lambda m, v: right(m, v / 2), "log_var is the log of the variance, not that of the standard deviation"),
        (lambda m, v: 2 * right(m, v), "the factor 1/2 of the KL is missing"),
        (lambda m, v: -right(m, v), "the sign: nothing can tell fewer than 0 bits"),
    ]
    inputs = []
    for seed, shape in ((1, (3, 2, 2, 4)), (2, (2, 4, 3, 1))):
        size = torch.linspace(0.2, 1.5, shape[1]).view(1, -1, 1, 1)
        inputs.append((size * random_tensor(*shape, seed=seed), random_tensor(*shape, seed=seed + 10) - size))
    mark_function("channel_bits", answer, right, inputs, mistakes)


def folded_decoder(answer: object) -> None:
    """Chapter 10: `folded_decoder(weight [D, C], bias [D], mean [C], std [C])` to `[D, C + 1]`, weight, then bias."""

    def fold(w: Tensor, b: Tensor, m: Tensor, s: Tensor, shift: Tensor | float = 1.0) -> Tensor:
        return torch.cat([w * s, (b + w @ (m * shift))[:, None]], dim=1)

    mistakes = [
        (
            lambda w, b, m, s: torch.cat([w / s, (b - w @ (m / s))[:, None]], dim=1),
            "that normalises once more; the decoder has to undo it",
        ),
        (lambda w, b, m, s: fold(w / s**2, b, m, s), "divided by std: a normalised latent is too small by that factor"),
        (lambda w, b, m, s: fold(w, b, m, s, 0.0), "the mean is lost: z = 0 stands for the channels' means"),
        (lambda w, b, m, s: fold(w, b, m, s, -1.0), "the sign: the encoder subtracted the mean"),
        (lambda w, b, m, s: fold(w, b, m, s, s), "the mean is added after the scaling, so it is not scaled itself"),
        (lambda w, b, m, s: fold(w, b, m, torch.ones_like(s)), "the scale is not undone"),
        (lambda w, b, m, s: fold(w * s, b, m / s, s), "std is a standard deviation: its square is too much"),
        (lambda w, b, m, s: fold(w, b, m, s).roll(1, 1), "the weight comes first, the bias is the last column"),
        (lambda w, b, m, s: fold(w, 0 * b, m, s), "the old bias is lost"),
        (
            lambda w, b, m, s: torch.cat([w * s, (b + m.mean())[:, None]], dim=1),
            "the mean passes the matrix too before it reaches the bias",
        ),
    ]
    inputs = [
        (random_tensor(d, c, seed=1), random_tensor(d, seed=2), random_tensor(c, seed=3), torch.linspace(0.4, 2.5, c))
        for d, c in ((3, 4), (5, 2))
    ]
    mark_function("folded_decoder", answer, fold, inputs, mistakes)
