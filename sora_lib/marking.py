"""How an answer to an exercise is judged: a tick, or a hint that fits the mistake. It prints, and never raises."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Mistakes = Sequence[tuple[Any, str]]  # (a known wrong answer, the hint that fits it)


def _say(name: str, right: bool, text: str) -> None:
    _print(f"{'✓' if right else '✗'} {name}: {text}")


def _print(text: str) -> None:
    """Print it; where the encoding of the output lacks a letter, print the letter's code."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def mark_number(name: str, answer: object, exact: float, mistakes: Mistakes, tolerance: float = 0.02) -> None:
    if answer is None or answer is ...:
        return _print(f"… {name}: not yet. Put your number in place of ...")
    try:
        value = float(answer)
    except Exception:  # whatever the reader wrote, float() may raise anything
        return _say(name, False, f"a number is asked for, this is {type(answer).__name__}")
    if abs(value - exact) <= tolerance:
        return _say(name, True, "right")
    near = [(abs(value - wrong), hint) for wrong, hint in mistakes if abs(value - wrong) <= tolerance]
    return _say(name, False, min(near)[1] if near else "not that. Read the task again, and write each step down")


def mark_function(name: str, answer: object, exact: Callable, inputs: Sequence[tuple], mistakes: Mistakes) -> None:
    """Compare values with those of `exact` on all inputs; name the first known mistake that gives the same values."""
    if answer is None or answer is ...:
        return _print(f"… {name}: not yet. Write the function in place of ...")
    if not callable(answer):
        return _say(name, False, f"a function is asked for, this is {type(answer).__name__}")
    try:
        given = [answer(*(a.clone() if isinstance(a, Tensor) else a for a in args)) for args in inputs]
    except Exception as error:  # the reader's own code, which may raise anything
        return _say(name, False, f"it raised {type(error).__name__}: {error}")
    if any(value is None or value is ... for value in given):
        return _print(f"… {name}: not yet. The function returns nothing so far")
    try:
        given = [torch.as_tensor(value).float() for value in given]
    except Exception:
        return _say(name, False, f"a tensor is asked for, the function returned {type(given[0]).__name__}")
    wanted = [exact(*args) for args in inputs]
    if _close(given, wanted):
        return _say(name, True, f"right, equal to the exact answer on {len(inputs)} inputs")
    for wrong, hint in mistakes:
        if _close(given, [wrong(*args) for args in inputs]):
            return _say(name, False, hint)
    wanted = [torch.as_tensor(value).float() for value in wanted]
    pairs = list(zip(given, wanted, strict=True))
    g, w = next((pair for pair in pairs if pair[0].shape != pair[1].shape), (None, None))
    if g is not None:
        return _say(name, False, f"the shape is {list(g.shape)}, it should be {list(w.shape)}")
    g, w = next(pair for pair in pairs if not _alike(*pair).all())
    off = ~_alike(g, w)
    where = f"{off.sum()} of {off.numel()} values are not: {_head(g[off])}, exact {_head(w[off])}"
    _say(name, False, f"the shape is right, {where}")


def _alike(given: Tensor, wanted: Tensor) -> Tensor:
    return torch.isclose(given, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)


def _close(given: Sequence, wanted: Sequence) -> bool:
    pairs = [(torch.as_tensor(g).float(), torch.as_tensor(w).float()) for g, w in zip(given, wanted, strict=True)]
    return all(g.shape == w.shape and _alike(g, w).all() for g, w in pairs)


def _head(value: object) -> str:
    return ", ".join(f"{v:.3g}" for v in torch.as_tensor(value).flatten()[:3].tolist())


def random_tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
