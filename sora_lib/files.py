"""Files that are written whole or not at all, and tensors with a checksum."""

import hashlib
import json
import os
import secrets
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

SUM, BLANK = b'"sha256":"%s"', b"0" * 64  # as it stands in a header


def write_whole(name: str, path: Path, content: bytes) -> None:
    """Write `content` to `path`, so that there is always the older file or the new one, whole, and never a half.

    It goes to a new file in the same folder first, which takes the name only when it is on disk, and is taken away
    where that fails. Several may write at once: the last one stays. A program that is killed can leave such a file
    behind, called `path` with `.partial` at its end; nothing reads it, and it may be deleted.
    Raises FileNotFoundError for a missing folder and OSError where the file cannot be written; both begin with `name`,
    the caller's argument.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{name}: there is no folder {path.parent}")
    partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise OSError(f"{name}: cannot write {path} ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)


def pack(tensors: dict[str, Tensor], header: dict[str, str]) -> bytes:
    """A safetensors file of the tensors; its header also holds the SHA-256 of it all, taken with 64 zeros in place."""
    content = safetensors.torch.save(
        {name: value.contiguous() for name, value in tensors.items()}, header | {"sha256": BLANK.decode()}
    )
    return content.replace(SUM % BLANK, SUM % hashlib.sha256(content).hexdigest().encode(), 1)


def unpack(content: bytes) -> tuple[dict[str, Tensor], dict[str, str], bool]:
    """Tensors and header of a safetensors file, and whether it is, byte for byte, what `pack` wrote.

    Raises ValueError for anything else than a safetensors file.
    """
    try:
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__") or {}
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"damaged or no safetensors file ({error})") from error
    given = header.get("sha256", "").encode()
    blank = content.replace(SUM % given, SUM % BLANK, 1)
    return tensors, header, hashlib.sha256(blank).hexdigest().encode() == given
