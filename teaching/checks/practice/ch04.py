"""Checks of the practice notebook of chapter 04."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sora_lib.marking import mark_function, mark_number, random_tensor


def answer_without_time(answer: object) -> None:
    """Chapter 04: what a network without t answers where v* is 2 (three quarters of the points) or -1 (one quarter)."""
    mistakes = [
        (0.5, "that is the mean of the two answers as if both were equally frequent; they are not"),
        (2.0, "that is the more frequent answer; squared error punishes ignoring the other one"),
        (-0.25, "the two weights are exchanged"),
        (-1.0, "that is the less frequent answer alone"),
        (1.0, "that is the sum of the two answers; how often does each of them occur?"),
    ]
    mark_number("answer_without_time", answer, 1.25, mistakes)


def one_output_loss(answer: object) -> None:
    """Chapter 04: the excess of the best single number where v* is (5, -1), a mean over the two coordinates."""
    mistakes = [
        (18.0, "that is the sum over the two coordinates; the excess is their mean"),
        (2.0, "that is the best single number itself; how far is it from each coordinate?"),
        (3.0, "that is the distance from each coordinate; the excess takes its square"),
        (13.0, "that is what the answer 0 costs; another single number does better"),
        (0.0, "one number cannot be right in both coordinates"),
        (6.0, "that is how far the two coordinates are apart; how far is the best number from each?"),
    ]
    mark_number("one_output_loss", answer, 9.0, mistakes)


def hears_time(answer: object) -> None:
    """Chapter 04: `hears_time(model, x [B, D], t [K])` to `[B]`: the variance of the answers over t, mean over D."""

    def answers(model: Callable, x: Tensor, t: Tensor) -> Tensor:
        return torch.stack([model(x, time.expand(len(x))) for time in t])  # [K, B, D]

    def pairs(model: Callable, x: Tensor, t: Tensor) -> Tensor:
        given = model(x.repeat(len(t), 1), t.repeat(len(x))).reshape(len(t), *x.shape)
        return given.var(0, correction=0).mean(1)

    def mixed(model: Callable, x: Tensor, t: Tensor) -> Tensor:
        given = model(x.repeat(len(t), 1), t.repeat_interleave(len(x))).reshape(len(x), len(t), -1)
        return given.var(1, correction=0).mean(1)

    def model(x: Tensor, t: Tensor) -> Tensor:
        return (x + 3 * t[:, None]).sin() + x * t[:, None].square()

    mistakes = [
        (
            lambda f, x, t: answers(f, x, t).var(1, correction=0).mean(1),
            "that is the spread between the points, one number a time; asked for is the spread over the times",
        ),
        (
            lambda f, x, t: answers(f, x, t).var(0).mean(1),
            "var divides by K - 1 unless told otherwise; here it is divided by K",
        ),
        (lambda f, x, t: answers(f, x, t).var(0, correction=0).sum(1), "average over the coordinates; that sums them"),
        (
            lambda f, x, t: answers(f, x, t).std(0, correction=0).mean(1),
            "that is a standard deviation; the variance is its square",
        ),
        (
            lambda f, x, t: answers(f, x, t).var((0, 2), correction=0),
            "each coordinate has its own mean over the times; you took one for all coordinates",
        ),
        (pairs, "points and times are both repeated in the same rhythm, so some pairs never meet"),
        (mixed, "the answers come time by time; the reshape mixes points"),
    ]
    inputs = [
        (model, random_tensor(4, 3, seed=1), torch.tensor([0.1, 0.2, 0.4, 0.5, 0.7, 1.0])),
        (model, random_tensor(6, 2, seed=2), torch.tensor([0.3, 0.8])),
    ]
    mark_function("hears_time", answer, lambda *z: answers(*z).var(0, correction=0).mean(1), inputs, mistakes)


def row_norm(answer: object) -> None:
    """Chapter 04: `row_norm(h [B, W])` to `[B, W]`: each row minus its mean, over sqrt(its variance + 1e-5)."""

    def norm(h: Tensor, axis: int | tuple = 1, power: float = 0.5, correction: int = 0, small: float = 1e-5) -> Tensor:
        spread = h.var(axis, correction=correction, keepdim=True) + small
        return (h - h.mean(axis, keepdim=True)) / spread**power

    mistakes = [
        (lambda h: norm(h, axis=0), "mean and variance are taken over the rows: that is BatchNorm"),
        (lambda h: norm(h, axis=(0, 1)), "one mean and variance for the whole batch; each row has its own"),
        (lambda h: norm(h, power=1), "you divide by the variance; the square root is missing"),
        (lambda h: norm(h, correction=1), "var divides by W - 1 unless told otherwise; here it is divided by W"),
        (lambda h: h - h.mean(1, keepdim=True), "the rows are centred, but not scaled"),
        (lambda h: h / (h.var(1, correction=0, keepdim=True) + 1e-5).sqrt(), "the rows are scaled, but not centred"),
        (
            lambda h: (h - h.mean(1, keepdim=True)) / (h.std(1, correction=0, keepdim=True) + 1e-5),
            "the small number belongs under the root, beside the variance",
        ),
        (lambda h: norm(h, small=0.0), "the small number under the root is missing"),
    ]
    inputs = [(2 * random_tensor(5, 3, seed=1) + 1,), (0.01 * random_tensor(3, 6, seed=2) - 0.02,)]
    mark_function("row_norm", answer, norm, inputs, mistakes)


def loss_in_x0(answer: object) -> None:
    """Chapter 04: `loss_in_x0(u [B, D], v [B, D], t [B])`, the mean squared error of x0_hat = x_t - t u."""
    mistakes = [
        (lambda u, v, t: (u - v).square().mean(), "that is the loss on v; each row's time does not enter yet"),
        (
            lambda u, v, t: (t[:, None] * (u - v).square()).mean(),
            "the error is multiplied by something and then squared; square the factor, too",
        ),
        (lambda u, v, t: ((1 - t)[:, None] * (u - v)).square().mean(), "that is the loss on eps"),
        (
            lambda u, v, t: t.square().mean() * (u - v).square().mean(),
            "each row has its own factor; multiply before you average",
        ),
        (lambda u, v, t: (t[:, None] * (u - v)).square().sum(1).mean(), "that sums over the coordinates; average them"),
        (
            lambda u, v, t: ((u - v) / t[:, None]).square().mean(),
            "that turns an error in x0 into one in v; here it goes the other way",
        ),
        (lambda u, v, t: (t[:, None] * (u - v)).square().mean().sqrt(), "that is a root mean square"),
    ]
    inputs = [
        (random_tensor(4, 3, seed=1), random_tensor(4, 3, seed=2), torch.tensor([0.1, 0.3, 0.6, 0.95])),
        (random_tensor(3, 2, seed=3), random_tensor(3, 2, seed=4), torch.tensor([0.8, 0.2, 0.4])),
    ]
    mark_function("loss_in_x0", answer, lambda u, v, t: (t[:, None] * (u - v)).square().mean(), inputs, mistakes)


def time_layers(answer: object) -> None:
    """Chapter 04: `time_layers(features [B, F], w1 [H, F], b1 [H], w2 [W, H], b2 [W])` to `[B, W]`: two layers."""
    silu = nn.functional.silu

    def layers(f: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, between: Callable = silu) -> Tensor:
        return between(f @ w1.T + b1) @ w2.T + b2

    mistakes = [
        (lambda *z: layers(*z, between=lambda h: h), "still linear: the two matrices could be multiplied into one"),
        (
            lambda *z: silu(layers(*z, between=lambda h: h)),
            "the two layers are still one before it, and a shift must not be cut off on the negative side",
        ),
        (lambda *z: silu(layers(*z)), "one activation too many: a shift must be free to take either sign and any size"),
        (
            lambda f, *z: layers(silu(f), *z, between=lambda h: h),
            "an activation on fixed features leaves the two layers behind it one linear map",
        ),
        (lambda *z: layers(*z, between=torch.relu), "that is ReLU; SiLU is asked for"),
        (lambda *z: layers(*z, between=torch.sigmoid), "that is the sigmoid alone; SiLU has one factor more"),
        (
            lambda f, w1, b1, w2, b2: silu(f @ w1.T) @ w2.T + b2,
            "the first layer has lost its bias",
        ),
        (lambda f, w1, b1, w2, b2: (silu(f @ w1.T) + b1) @ w2.T + b2, "the bias belongs inside the activation"),
    ]
    sizes = [(4, 6, 5, 3), (3, 2, 7, 4)]  # B, F, H, W
    inputs = [
        tuple(random_tensor(*shape, seed=i) for i, shape in enumerate([(b, f), (h, f), (h,), (w, h), (w,)]))
        for b, f, h, w in sizes
    ]
    mark_function("time_layers", answer, layers, inputs, mistakes)
