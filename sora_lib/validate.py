"""The argument checks that all files share: each raises at once and names the argument, what came, what is accepted."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor


def check_tensor(name: str, value: object, shape: Sequence[int | None] | None = None) -> Tensor:
    """Return `value` if it is a non-empty, finite float tensor of the given shape.

    shape: one entry an axis, None where any size will do; None as a whole accepts every shape.
    Raises TypeError for anything but a float tensor, ValueError for a wrong shape, no elements, NaN or infinity.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a float tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a float tensor, got dtype {value.dtype}; convert with .float()")
    if shape is not None and not _fits(tuple(value.shape), shape):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have shape [{wanted}], got {list(value.shape)}")
    if value.numel() == 0:
        raise ValueError(f"{name} is empty: its shape is {list(value.shape)}, and every axis needs at least one entry")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} holds NaN or infinity; every entry must be finite")
    return value


def _fits(shape: tuple[int, ...], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(w is None or s == w for s, w in zip(shape, wanted, strict=True))


def check_same_shape(name: str, value: object, like_name: str, like: Tensor) -> Tensor:
    """Return `value` if it is a finite float tensor of the same shape as `like`."""
    value = check_tensor(name, value)
    if value.shape != like.shape:
        raise ValueError(f"{name} must have the shape of {like_name}, {list(like.shape)}, got {list(value.shape)}")
    return value


def check_times(t: object, batch: int | None = None, name: str = "t") -> Tensor:
    """Return `t` if it is a float tensor `[B]` of diffusion times in [0, 1] (0 is data, 1 is noise)."""
    t = check_tensor(name, t, [batch])
    if t.min() < 0 or t.max() > 1:
        raise ValueError(f"{name} must lie in [0, 1] (0 is data, 1 is noise), got {t.min():.4g} to {t.max():.4g}")
    return t


def check_choice(name: str, value: object, accepted: Collection[str]) -> str:
    """Return `value` if it is one of the accepted names."""
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {value!r}")
    return value


def check_count(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` if it is a whole number, `minimum` or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be {minimum} or more, got {value}")
    return value


def check_number(name: str, value: object, low: float, high: float) -> float:
    """Return `value` if it is a real number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value}")
    return float(value)
