"""Write a trained network into `sora_lib/weights`: its tensors, and a card that says how they were made."""

import hashlib
import json
import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

WEIGHTS = Path(__file__).resolve().parent.parent / "sora_lib" / "weights"


def ship(name: str, model: nn.Module, arguments: dict, *, seed: int, minutes: float, metrics: dict) -> None:
    """Save `model`, built with `arguments`, as `name`, in half precision."""
    tensors = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()}
    content = safetensors.torch.save(tensors)
    card = {
        "class": type(model).__name__,
        "arguments": arguments,
        "command": " ".join(["python", "training/" + Path(sys.argv[0]).name, *sys.argv[1:]]),
        "seed": seed,
        "minutes": round(minutes, 1),
        "threads": torch.get_num_threads(),
        "metrics": metrics,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    WEIGHTS.mkdir(exist_ok=True)
    (WEIGHTS / f"{name}.safetensors").write_bytes(content)
    (WEIGHTS / f"{name}.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
