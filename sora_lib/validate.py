"""The argument checks that all files share: each raises at once and names the argument, what came, what is accepted."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

FLOATS = (torch.float32, torch.float64)
MEMORY = 2e9  # bytes that one call may take; on a large machine: sora_lib.validate.MEMORY = 16e9


def check_tensor(
    name: str, value: object, shape: Sequence[int | None] | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Return `value` if it is a non-empty, finite float tensor of the given shape.

    shape: one entry an axis, None where any size will do; None as a whole accepts every shape. dtype: the only one
    accepted, that of a network's weights.
    Raises TypeError for anything but a dense float32 or float64 tensor, ValueError for a wrong shape, no elements, NaN
    or infinity.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a float tensor, got {type(value).__name__}")
    if value.dtype not in FLOATS:
        raise TypeError(f"{name} must be a float tensor, got dtype {value.dtype}; convert with .float() or .double()")
    if not is_dense(value):
        raise TypeError(f"{name} must be an ordinary tensor, not sparse, nested or on the meta device")
    if dtype not in (None, value.dtype):
        raise TypeError(f"{name} must have the dtype of the weights, {dtype}, got {value.dtype}; convert with .to()")
    if shape is not None and not _fits(tuple(value.shape), shape):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have shape [{wanted}], got {list(value.shape)}")
    if value.numel() == 0:
        raise ValueError(f"{name} is empty: its shape is {list(value.shape)}, and every axis needs at least one entry")
    low, high = value.detach().aminmax()  # NaN if any number is; in one pass, four times as fast as isfinite
    if not -torch.inf < low <= high < torch.inf:
        raise ValueError(f"{name} holds NaN or infinity; every entry must be finite")
    return value


def is_dense(value: Tensor) -> bool:
    """Whether a tensor holds its numbers, all of them, where they can be read."""
    return value.layout == torch.strided and not value.is_nested and not value.is_meta


def is_whole(value: object) -> bool:
    """Whether it is a tensor of whole numbers, int32 or int64, as an embedding takes them."""
    return isinstance(value, Tensor) and value.dtype in (torch.int32, torch.int64) and is_dense(value)


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
    low, high = t.detach().aminmax()
    if low < 0 or high > 1:
        raise ValueError(f"{name} must lie in [0, 1] (0 is data, 1 is noise), got {low:.4g} to {high:.4g}")
    return t


def check_choice(name: str, value: object, accepted: Collection[str]) -> str:
    """Return `value` if it is one of the accepted names."""
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {shown(value)}")
    return value


def check_count(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` if it is a whole number, `minimum` or more."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    if value < minimum:
        raise ValueError(f"{name} must be {minimum} or more, got {shown(value)}")
    if value >= 2**63:
        raise ValueError(f"{name} must be less than 2**63, got {shown(value)}")
    return value


def check_many(name: str, value: object, size: int) -> int:
    """Return `value` if it is a whole number, 1 or more, of things of `size` bytes that memory has room for."""
    check_memory(f"{name}: {check_count(name, value)}", value * size)
    return value


def check_number(name: str, value: object, low: float, high: float) -> float:
    """Return `value` if it is a real number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {shown(value)}")
    return float(value)


def check_module(name: str, value: object) -> nn.Module:
    """Return `value` if it is a network."""
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must be a network (nn.Module), got {shown(value)}")
    return value


def check_flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return value


def check_list(name: str, value: object, kind: type = object) -> Sequence:
    """Return `value` if it is a list, a tuple or another sequence (no string), all of whose items are of the kind."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise TypeError(f"{name} must be a list, got {shown(value)}")
    for item in value if kind is not object else ():
        if not isinstance(item, kind):
            raise TypeError(f"{name} must be a list of {kind.__name__}, got {shown(item)} in it")
    return value


def shown(value: object) -> str:
    """What came, for a message: 80 characters of it at most; where it cannot say what it is, its type."""
    try:
        return f"{value!r:.80}"
    except Exception:  # of its own `__repr__`, which may raise anything
        return f"a {type(value).__name__}"


def check_memory(what: str, needed: float) -> None:
    """Raise ValueError if what is asked for would take more than MEMORY bytes; to be called before it takes them."""
    if needed > MEMORY:
        gigabytes = f"{min(needed, 1e18) / 1e9:.1f} GB of memory, more than the {MEMORY / 1e9:.0f} GB accepted"
        raise ValueError(f"{what} would take about {gigabytes}; ask for less")
