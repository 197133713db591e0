"""Train small video autoencoders with 2 to 16 channels: what does the size of the latents buy? (about 15 minutes)

Each starts where PCA with as many numbers ends (chapter 12); for comparison, some start at random. The results go into
`training/results/video_autoencoder_sizes.json` after each run, and a new start goes on where the last one stopped.
"""

import argparse
import datetime
import json
import time
from pathlib import Path

import torch
from einops import rearrange
from resume import earlier_runs
from torch import Tensor
from video_autoencoder import KL_WEIGHT, both, clips, in_fours, pca, psnr, start_at_pca

from sora_lib.autoencoder import VideoAutoencoder
from sora_lib.training import learning_rate

RESULTS = Path(__file__).resolve().parent / "results" / "video_autoencoder_sizes.json"
CHANNELS, SEEDS = (2, 4, 8, 16), (0, 1)
STEPS, BATCH, LR, WIDTH, DEPTH = 1500, 8, 4e-3, 64, 1
BLOCKS = "b c (f pf) (h ph) (w pw) -> b f h w (pf ph pw c)"


def through_pca(x: Tensor, k: int, mean: Tensor, directions: Tensor) -> Tensor:
    """Video through k numbers a block of 4 frames of 4 x 4 pixels."""
    blocks = rearrange(in_fours(x.transpose(1, 2)).transpose(1, 2), BLOCKS, pf=4, ph=4, pw=4)
    blocks = (blocks - mean) @ directions[:k].T @ directions[:k] + mean
    back = " -> ".join(reversed(BLOCKS.split(" -> ")))
    return rearrange(blocks, back, pf=4, ph=4, pw=4)[:, :, 3:].clamp(-1, 1)


@torch.no_grad()
def quality(model: VideoAutoencoder, test: dict[str, Tensor]) -> dict[str, float]:
    return {f"PSNR, {name}": round(psnr(model.decode(model.encode(x)).clamp(-1, 1), x), 2) for name, x in test.items()}


def one_run(channels: int, seed: int, start: str, steps: int, test: dict[str, Tensor]) -> dict:
    torch.manual_seed(seed)
    g, began = torch.Generator().manual_seed(seed), time.process_time()
    model = VideoAutoencoder(channels, WIDTH, DEPTH)
    if start == "PCA":
        start_at_pca(model, both(256, g))
    at_start = quality(model, test)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LR * learning_rate(step, steps, warmup=20)
        loss = model.loss(both(BATCH, g), KL_WEIGHT, generator=g)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return {
        "channels": channels,
        "seed": seed,
        "start": start,
        "numbers a clip": channels * 5 * 8 * 8,
        **quality(model, test),
        "at the start": at_start,
        "minutes of processor time": round((time.process_time() - began) / 60, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--to", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(1)
    test = {name: clips(things, 64, g, part="test") for things, name in ((1, "one thing"), (2, "two things"))}
    blocks = rearrange(in_fours(both(256, g).transpose(1, 2)).transpose(1, 2), BLOCKS, pf=4, ph=4, pw=4)
    mean, directions, _ = pca(blocks.flatten(0, 3))
    results = {
        "command": "python training/video_autoencoder_sizes.py"
        + (f" --steps {args.steps}" if args.steps != STEPS else ""),
        "date": datetime.date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "seeds": list(SEEDS),
        "steps": args.steps,
        "batch": BATCH,
        "width": WIDTH,
        "depth": DEPTH,
        "minutes of processor time": 0.0,
        "PCA": [
            {"channels": k}
            | {f"PSNR, {name}": round(psnr(through_pca(x, k, mean, directions), x), 2) for name, x in test.items()}
            for k in CHANNELS
        ],
        "runs": earlier_runs(args.to, args.steps),
    }
    done = {(run["channels"], run["seed"], run["start"]) for run in results["runs"]}
    plan = [(channels, seed, "PCA") for seed in SEEDS for channels in CHANNELS]
    for which in [*plan, *((8, seed, "random") for seed in SEEDS)]:
        if which not in done:
            results["runs"].append(one_run(*which, args.steps, test))
            results["minutes of processor time"] = round(
                sum(run["minutes of processor time"] for run in results["runs"]), 1
            )
            args.to.parent.mkdir(exist_ok=True)
            args.to.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            print(results["runs"][-1], flush=True)


if __name__ == "__main__":
    main()
