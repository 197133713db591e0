"""Train one transformer of digits with small and large patches and widths: what does compute buy? (about half an hour)

Every run sees the same number of images; only the compute spent on each differs. The results go into
`training/results/digit_scaling.json` after each run, and a new start goes on where the last one stopped.
"""

import argparse
import datetime
import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sora_lib import RectifiedFlow, as_denoiser, digits, heun, train
from sora_lib.metrics import frechet_distance
from sora_lib.pretrained import load_pretrained
from sora_lib.training import denoising_loss
from sora_lib.transformer import DiT

RESULTS = Path(__file__).resolve().parent / "results" / "digit_scaling.json"
PATCHES, WIDTHS, SEEDS, STEPS = (4, 2, 1), (32, 64, 96), (0, 1), 1000
DEPTH, HEADS, BATCH, LR, EMA = 4, 4, 64, 4e-3, 0.99
SHOWN = 20  # samples of each run that are kept


def batches(images: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield images[torch.randint(0, len(images), (BATCH,), generator=generator)]


def multiply_adds(model: DiT) -> int:
    """For one image and one time, counted as in papers: a multiplication and its addition are one."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(1, 1, 1, 8, 8), torch.zeros(1))  # by plain matrix products: it does not know the fused kernel
    return counter.get_total_flops() // 2


def held_out_loss(model: DiT, images: Tensor) -> float:
    """The loss on v, five noises an image, at times spread evenly over [0, 1]; the same draws for every model."""
    g, x0 = torch.Generator().manual_seed(0), images.repeat(5, 1, 1, 1, 1)
    t = (torch.randperm(len(x0), generator=g) + 0.5) / len(x0)
    with torch.no_grad():
        return denoising_loss(model, x0, t, torch.randn(x0.shape, generator=g), RectifiedFlow(), "v").item()


def one_run(patch: int, width: int, seed: int, steps: int) -> dict:
    torch.manual_seed(seed)
    g, began = torch.Generator().manual_seed(seed), time.perf_counter()
    seen, held_out = (2 * digits(part)[0][:, :, None] - 1 for part in ("train", "test"))  # [N, 1, 1, 8, 8]
    model, schedule = DiT(1, (1, patch, patch), width, DEPTH, HEADS, absolute=True), RectifiedFlow()
    run = train(model, batches(seen, g), schedule, steps=steps, prediction="v", lr=LR, ema=EMA, generator=g)
    losses = []
    for _, loss, state in run:  # noqa: B007
        losses.append(loss)
    minutes, model = (time.perf_counter() - began) / 60, state.ema.model
    start = torch.randn(890, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    samples = (heun(as_denoiser(model, schedule, "v"), schedule, start, 20)[:, :, 0] + 1).div(2).clamp(0, 1)
    probe = load_pretrained("digit-probe")
    with torch.no_grad():
        fake, real = probe.features(samples), probe.features(digits("test")[0][:890])
    return {
        "patch": patch,
        "width": width,
        "seed": seed,
        "steps": steps,
        "parameters": sum(p.numel() for p in model.parameters()),
        "multiply-adds per image": multiply_adds(model),
        "training loss, last 50 steps": round(sum(losses[-50:]) / len(losses[-50:]), 4),
        "held-out loss": round(held_out_loss(model, held_out), 4),
        "Frechet distance": round(frechet_distance(fake, real), 2),
        "minutes": round(minutes, 2),
        "samples": [image.flatten().tolist() for image in (16 * samples[:SHOWN]).round().int()],  # 0 to 16, as the data
    }


def save(path: Path, results: dict) -> None:
    """Write the results, one run a line."""
    runs = ",\n".join("    " + json.dumps(run) for run in results["runs"])
    head = json.dumps({name: value for name, value in results.items() if name != "runs"}, indent=2)
    path.parent.mkdir(exist_ok=True)
    path.write_text(head.removesuffix("\n}") + ',\n  "runs": [\n' + runs + "\n  ]\n}\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--to", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    probe = load_pretrained("digit-probe")
    with torch.no_grad():
        features = [probe.features(digits(part)[0][:890]) for part in ("train", "test")]
    results = {
        "command": "python training/digit_scaling.py" + (f" --steps {args.steps}" if args.steps != STEPS else ""),
        "date": datetime.date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "seeds": list(SEEDS),
        "depth": DEPTH,
        "batch": BATCH,
        "steps": args.steps,
        "minutes": 0.0,
        "Frechet distance of real digits": round(frechet_distance(*features), 2),
        "runs": [],
    }
    if args.to.is_file():
        before = json.loads(args.to.read_text(encoding="utf-8"))
        if before["steps"] != args.steps:
            raise SystemExit(f"{args.to} holds runs of {before['steps']} steps; move it away, or pass --steps")
        results["runs"] = before["runs"]
    done = {(run["patch"], run["width"], run["seed"]) for run in results["runs"]}
    for seed in SEEDS:
        for patch in PATCHES:
            for width in WIDTHS:
                if (patch, width, seed) in done:
                    continue
                run = one_run(patch, width, seed, args.steps)
                results["runs"].append(run)
                results["minutes"] = round(sum(run["minutes"] for run in results["runs"]), 1)
                save(args.to, results)
                print({name: value for name, value in run.items() if name != "samples"}, flush=True)


if __name__ == "__main__":
    main()
