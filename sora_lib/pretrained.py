"""Networks with the weights that come with the course. Each was made by a script in `training/`, named in its card."""

import hashlib
import json
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import nn

from .autoencoder import VideoAutoencoder
from .metrics import DigitProbe, VideoProbe
from .mini_sora import MiniSora
from .transformer import DiT
from .validate import check_choice

FOLDER = Path(__file__).parent / "weights"
KINDS = {kind.__name__: kind for kind in (DigitProbe, DiT, MiniSora, VideoAutoencoder, VideoProbe)}


def pretrained_names() -> list[str]:
    """The names that `load_pretrained` takes."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read_card(name: str) -> dict:
    """How the weights were made: class and its arguments, command, seed, minutes, metrics, and the file's SHA-256.

    Raises ValueError for an unknown name, or a card that is damaged.
    """
    path = FOLDER / f"{check_choice('name', name, pretrained_names())}.json"
    try:
        return dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"name: the card {path} is damaged ({error})") from error


def load_pretrained(name: str) -> nn.Module:
    """The network of that name with its weights, in eval mode, in float32.

    Raises ValueError for an unknown name or a file that is not the one its card describes, FileNotFoundError for a
    missing one.
    """
    card, path = read_card(name), FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"name: the weights of {name!r} are missing; they belong in {path}")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != card.get("sha256"):
        raise ValueError(f"name: {path} is damaged or changed: its SHA-256 is not the one in its card")
    try:
        model = KINDS[card["class"]](**card["arguments"])
        model.load_state_dict({key: value.float() for key, value in safetensors.torch.load(content).items()})
    except (SafetensorError, LookupError, TypeError, RuntimeError) as error:
        raise ValueError(f"name: {path} does not hold the weights that its card describes ({error})") from error
    return model.eval()
