"""Checks of the practice notebook of chapter 01."""

from collections.abc import Callable

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def noisy_floor(answer: object) -> None:
    """Chapter 01: the best expected MSE on fresh rows for y = x_1 + n / 2, with x_1 given and n from randn."""
    mistakes = [
        (0.0, "x_1 can be used, but n is drawn afresh for every row and is not among the inputs"),
        (0.5, "that is the standard deviation of what cannot be known; MSE counts its square"),
        (1.0, "that holds when the inputs tell nothing about the target; here they tell a part of it"),
        (1.25, "that is the score of always answering 0; the inputs help"),
    ]
    mark_number("noisy_floor", answer, 0.25, mistakes)


def halved_answers(answer: object) -> None:
    """Chapter 01: the expected MSE on fresh rows after all answers of a network that scores 1.5 are halved."""
    mistakes = [
        (1.25, "the part above 1 is a mean square; it does not halve when the answers do"),
        (0.75, "only a part of the error comes from the answers; the other part is the targets' own"),
        (1.0, "that takes answers of 0; these are only half as large as before"),
        (1.5, "the answers have become smaller, and every answer costs its square"),
    ]
    mark_number("halved_answers", answer, 1.125, mistakes)


def best_scale(answer: object) -> None:
    """Chapter 01: `best_scale(answers [N, D], targets [N, D])`, c with the least mean (targets - c answers)^2."""
    mistakes = [
        (lambda f, y: (f * y).sum() / y.square().sum(), "that scales the targets to fit the answers; turn it round"),
        (
            lambda f, y: (f * y).sum() / (f.square().sum() * y.square().sum()).sqrt(),
            "that is always between -1 and 1, like a correlation; a scale changes with the size of the answers",
        ),
        (
            lambda f, y: ((f - f.mean()) * (y - y.mean())).sum() / (f - f.mean()).square().sum(),
            "subtract no means: the answers are only multiplied, not shifted",
        ),
        (lambda f, y: (f * y).sum(0) / f.square().sum(0), "one scale for all columns, not one for each"),
        (lambda f, y: (y / f).mean(), "in a mean of ratios the answers near 0 decide; minimise the squared error"),
        (lambda f, y: (f * y).mean(), "the mean product alone; the parabola in c has a second coefficient"),
    ]
    f, h = random_tensor(16, 2, seed=1), 2 * random_tensor(7, 3, seed=2) + 1
    inputs = [(f, 0.7 * f + random_tensor(16, 2, seed=3) + 0.5), (h, random_tensor(7, 3, seed=4) - 0.3 * h)]
    mark_function("best_scale", answer, lambda f, y: (f * y).sum() / f.square().sum(), inputs, mistakes)


def held_out_error(answer: object) -> None:
    """Chapter 01: `held_out_error(x [N, K], y [N, D], n_train)`, MSE on rows that least squares was not fitted to."""

    def error(fit_x: Tensor, fit_y: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return (x @ torch.linalg.lstsq(fit_x, fit_y).solution - y).square().mean()

    mistakes = [
        (lambda x, y, n: error(x[:n], y[:n], x[:n], y[:n]), "these are the rows that the weights were fitted to"),
        (lambda x, y, n: error(x, y, x[n:], y[n:]), "the fit has seen the test rows as well: fit to the first n_train"),
        (lambda x, y, n: error(x[n:], y[n:], x[:n], y[:n]), "the two parts are exchanged: fit to the first n_train"),
        (lambda x, y, n: error(x[:n], y[:n], x, y), "the error is over all rows; leave those of the fit out"),
        (
            lambda x, y, n: error(x[:n], y[:n], x[n:], y[n:]) * y.shape[1],
            "that sums over the outputs; MSE is the mean over rows and outputs",
        ),
    ]
    inputs = []
    for n, k, d, n_train in ((20, 3, 2, 12), (15, 4, 3, 8)):
        x = random_tensor(n, k, seed=n)
        inputs.append((x, x @ random_tensor(k, d, seed=k) + random_tensor(n, d, seed=d), n_train))
    mark_function("held_out_error", answer, lambda x, y, n: error(x[:n], y[:n], x[n:], y[n:]), inputs, mistakes)


def touched_rows(answer: object) -> None:
    """Chapter 01: `touched_rows(model, x [N, D], row, size)`, how many rows of model(x) one poked row changes."""

    def change(model: Callable, x: Tensor, row: int, size: float) -> Tensor:
        poked = x.clone()
        poked[row] += size
        return model(poked) - model(x)

    def exact(*z: object) -> Tensor:
        return (change(*z).abs() > 1e-6).any(1).sum()

    def replaced(model: Callable, x: Tensor, row: int, size: float) -> Tensor:
        poked = x.clone()
        poked[row] = size
        return ((model(poked) - model(x)).abs() > 1e-6).any(1).sum()

    def watched(model: Callable, x: Tensor, row: int, size: float) -> object:
        before = x.clone()
        count = answer(model, x, row, size)
        return count if torch.equal(x, before) else torch.tensor(-1.0)

    mistakes = [
        (lambda *z: torch.tensor(-1.0), "x itself has been changed by the call; poke a copy"),
        (lambda *z: 0 * exact(*z), "nothing changed at all: is the row poked before the model is asked?"),
        (lambda *z: (change(*z).abs() > 1e-6).sum(), "these are numbers; count rows, each of them once"),
        (lambda *z: (change(*z).abs() > 1e-6).any(0).sum(), "these are columns; the other axis holds the rows"),
        (lambda *z: (change(*z) > 1e-6).any(1).sum(), "a number that fell has changed, too"),
        (
            lambda *z: (change(*z).abs() > 1e-6).all(1).sum(),
            "one changed number in a row is enough; not all have to change",
        ),
        (
            lambda *z: (change(*z).sum(1).abs() > 1e-6).sum(),
            "in a sum, changes up and down cancel; look at each number",
        ),
        (replaced, "size is added to the row; it does not replace it"),
        (lambda *z: exact(*z) - 1, "the poked row counts as well, if its own answer changes"),
        (lambda *z: len(z[1]) - exact(*z), "these are the rows that stayed as they were"),
    ]
    inputs = [
        (lambda x: x - x.mean(0), random_tensor(6, 3, seed=1), 2, 0.5),
        (lambda x: x.cumsum(0), random_tensor(5, 2, seed=2), 3, 1.0),
        (lambda x: 3 * x, random_tensor(4, 2, seed=3), 0, -0.5),
        (lambda x: torch.stack([x[:, 0], 0 * x[:, 0]], 1), random_tensor(5, 3, seed=4), 1, 0.5),
        (lambda x: torch.cat([x, -x], 1), random_tensor(4, 2, seed=5), 3, 0.25),
        (lambda x: x + x.flip(0), torch.full((5, 2), 0.5), 1, 0.5),
    ]
    mark_function("touched_rows", watched if callable(answer) else answer, exact, inputs, mistakes)


def repeat_floor(answer: object) -> None:
    """Chapter 01: `repeat_floor(first [N, D], second [N, D])`, the best MSE, from two answers to each question."""
    mistakes = [
        (lambda a, b: (a - b).square().mean(), "a difference holds the noise of both answers; a floor that of one"),
        (
            lambda a, b: ((a - b) / 2).square().mean(),
            "too small: was the difference halved before the square, or a variance of two numbers divided by 2, not 1?",
        ),
        (lambda a, b: (a - b).square().sum(1).mean() / 2, "MSE is the mean over the outputs as well; that sums them"),
        (lambda a, b: ((a - b).square().mean() / 2).sqrt(), "that is a standard deviation; MSE is a mean of squares"),
        (lambda a, b: (a - b).mean().square() / 2, "square first: averaged before, the differences cancel"),
        (
            lambda a, b: torch.cat([a, b]).var(0, correction=0).mean(),
            "that is the spread of all answers; a part of it comes from the questions, which the network sees",
        ),
        (
            lambda a, b: (a - b).var() / 2,
            "the mean of y - y' is known to be 0: subtract none, and divide by the number of entries",
        ),
        (
            lambda a, b: (a - b).var(correction=0) / 2,
            "the mean of y - y' is known to be 0: do not subtract the sample's",
        ),
        (
            lambda a, b: (a - b).var(0).mean() / 2,
            "the mean of y - y' is known to be 0 in every column: subtract none",
        ),
    ]
    inputs = []
    for n, d, seed in ((9, 2, 1), (6, 4, 5)):
        rule = 2 * random_tensor(n, d, seed=seed)
        inputs.append(
            (rule + 0.6 * random_tensor(n, d, seed=seed + 1), rule + 0.6 * random_tensor(n, d, seed=seed + 2))
        )
    mark_function("repeat_floor", answer, lambda a, b: (a - b).square().mean() / 2, inputs, mistakes)
