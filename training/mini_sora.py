"""Train Mini-Sora, the text-to-video transformer, in the latents of the shipped autoencoder.

First with much noise, where captions say how things move; from step `--switch` on with less, where strokes are drawn.
In cycles: at the end of the first the learning rate, down at 0, rises again to where a longer run would have it.
"""

import argparse
import datetime
import json
import shlex
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from judge import Judge, report
from ship import ship
from torch import Tensor

from sora_lib.autoencoder import VideoAutoencoder
from sora_lib.datasets import film, random_scene, shortened, velocity
from sora_lib.metrics import motion_error
from sora_lib.mini_sora import MiniSora, Told
from sora_lib.plotting import video_png
from sora_lib.pretrained import load_pretrained
from sora_lib.schedules import RectifiedFlow
from sora_lib.text import SHAPES, SUBJECTS, describe, tokenize
from sora_lib.training import TrainState, load_checkpoint, logit_normal_times, new_state, save_checkpoint, train

BUCKETS = [  # share of the steps, frames, height, width
    (0.66, 17, 32, 32),
    (0.08, 1, 32, 32),
    (0.06, 9, 32, 32),
    (0.06, 33, 32, 32),
    (0.07, 17, 32, 48),
    (0.07, 17, 48, 32),
]
TWO, SHORT, DROPPED = 0.25, 0.3, 0.1  # shares: clips of two things, short captions, no caption
CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"  # of runs under way; not in the repository
RESULTS = Path(__file__).resolve().parent / "results" / "mini_sora.json"
PICTURE = Path(__file__).resolve().parent.parent / "notebooks" / "pictures" / "mini_sora.png"
POOL, FRESH = 1536, 4  # latents of clips at hand in each bucket, and how many of them are new in each step


class Bucket:
    """Latents of clips of one size; a few are replaced in each step, so that the world never repeats itself."""

    def __init__(
        self,
        size: tuple[int, int, int],
        encoder: VideoAutoencoder,
        args: argparse.Namespace,
        generator: torch.Generator,
    ) -> None:
        self.size, self.encoder, self.args, self.generator = size, encoder, args, generator
        self.told = self.latents = None
        frames, height, width = size
        tokens = (1 + (frames - 1) // 4) * (height // 8) * (width // 8)
        self.batch = max(1, min(4 * args.batch, round(args.batch * 80 / tokens)))

    @torch.no_grad()
    def draw(self, count: int) -> tuple[Tensor, Told]:
        """Latents of `count` new clips and what to tell of them; known are their ends, encoded by themselves."""
        g, (frames, height, width) = self.generator, self.size
        things = 1 + int(torch.rand((), generator=g) < self.args.two)
        scenes = [random_scene(things, subjects=self.args.subjects, generator=g) for _ in range(count)]
        video = 2 * film(scenes, frames=frames, height=height, width=width, generator=g).video - 1
        said = [shortened(scene, g) if torch.rand((), generator=g) < SHORT else scene for scene in scenes]
        z = self.encoder.encode(video)  # [count, C, n, h, w]
        request = Told(
            tokenize([describe(s, synonyms=True, generator=g) for s in said]), z.clone(), torch.zeros(count, z.shape[2])
        )
        if z.shape[2] > 1:
            last = int(torch.randint(1, z.shape[2], (), generator=g))  # latent frames of the end
            request.known[:, :, -last:] = self.encoder.encode(video[:, :, -(4 * last - 3) :])
            request.mask[:, -last:] = 1
        return z, request

    def next(self) -> tuple[Tensor, Told]:
        g = self.generator
        new = [self.draw(64) for _ in range(self.args.pool // 64)] if self.latents is None else [self.draw(FRESH)]
        z, tokens, ends, masks = (
            torch.cat(part) for part in zip(*((z, r.tokens, r.known, r.mask) for z, r in new), strict=True)
        )
        if self.latents is None:
            self.latents, self.told = z, Told(tokens, ends, masks)
        else:
            i = torch.randperm(len(self.latents), generator=g)[:FRESH]
            for old, fresh in (
                (self.latents, z),
                (self.told.tokens, tokens),
                (self.told.known, ends),
                (self.told.mask, masks),
            ):
                old[i] = fresh
        i = torch.randint(0, len(self.latents), (self.batch,), generator=g)
        z, tokens, ends, end_mask = self.latents[i], self.told.tokens[i], self.told.known[i], self.told.mask[i]
        kept = torch.rand(self.batch, 1, generator=g) >= DROPPED
        return z, Told(tokens * kept, *self.frames(z, ends, end_mask))

    def frames(self, z: Tensor, ends: Tensor, end_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Which frames are known: none in two thirds of the samples, else the start, the end or both."""
        g, (batch, _, n, *_) = self.generator, z.shape
        kind = torch.rand(batch, 1, generator=g)
        with_start, with_end = (kind < 0.25), (kind > 0.2) & (kind < 0.35)
        first = torch.randint(1, max(2, n), (batch, 1), generator=g)  # latent frames of the start
        start_mask = ((torch.arange(n) < first) & with_start).float() * (n > 1)
        end_mask = end_mask * with_end * (1 - start_mask)
        return torch.where(end_mask[:, None, :, None, None] > 0, ends, z), start_mask + end_mask


def batches(
    encoder: VideoAutoencoder, args: argparse.Namespace, generator: torch.Generator
) -> Iterator[tuple[Tensor, Told]]:
    buckets = [Bucket(tuple(size), encoder, args, generator) for _, *size in BUCKETS]
    shares = (
        torch.tensor([share for share, *_ in BUCKETS])
        if args.sizes
        else torch.tensor([1.0] + [0.0] * (len(BUCKETS) - 1))
    )
    while True:
        yield buckets[int(torch.multinomial(shares, 1, generator=generator))].next()


def times(args: argparse.Namespace, late: float, state: TrainState, n: int, generator: torch.Generator) -> Tensor:
    return logit_normal_times(args.mean if state.step < args.switch else late, args.std)(n, generator)


def checked(judge: Judge, model: MiniSora, count: int) -> dict[str, float]:
    """A quick look while it trains: adherence on `count` prompts, and the motion error."""
    scenes = judge.scenes(count, 1)
    g = torch.Generator().manual_seed(1)
    video = judge.generated(
        model, [describe(s, synonyms=True, generator=g) for s in scenes], seed=1, steps=12, scale=3.0
    )
    error = motion_error(video, torch.stack([velocity(scene[0]) for scene in scenes])).mean().item()
    return judge.adherence(video, [scene[0] for scene in scenes]) | {"motion error": round(error, 3)}


def picture(judge: Judge, model: MiniSora) -> bytes:
    """Videos for the sixteen prompts of the README, in two rows, as a moving PNG."""
    g = torch.Generator().manual_seed(16)
    prompts = [describe(random_scene(combinations="all", generator=g)) for _ in range(16)]
    return video_png(judge.generated(model, prompts, seed=0, steps=12, scale=3.0), columns=8, zoom=3)


def record(name: str, **figures: object) -> None:
    """Put a run into the results, in the place of an older one of the same name."""
    runs = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    runs[name] = {
        "command": " ".join(["python", "training/" + Path(sys.argv[0]).name, *map(shlex.quote, sys.argv[1:])])
    }
    runs[name] |= {"date": datetime.date.today().isoformat(), "threads": torch.get_num_threads()} | figures
    RESULTS.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    whole = {"switch": 3000, "batch": 32, "width": 192, "depth": 6, "heads": 4, "seed": 0, "pool": POOL}
    for name, value in (whole | {"every": 1000, "count": 128}).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in {"lr": 3e-3, "ema": 0.998, "mean": 1.6, "std": 1.2, "two": TWO}.items():
        parser.add_argument(f"--{name}", type=float, default=value)
    parser.add_argument("--steps", type=int, nargs="+", default=[6500, 13500], help="the last step of each cycle")
    parser.add_argument("--late", type=float, nargs="+", default=[0.5, 0.3], help="mean of each cycle after --switch")
    parser.add_argument("--shapes", action="store_true", help="circle, square and triangle alone")
    parser.add_argument("--sizes", action="store_true", help="all buckets, not the first alone")
    parser.add_argument("--ship", action="store_true", help="write the weights and their card when done")
    parser.add_argument("--adam", action="store_true", help="move the matrices by Adam too, not by Muon")
    parser.add_argument("--record", action="store_true", help=f"write the curve into {RESULTS.name} when done")
    parser.add_argument("--name", default="mini-sora", help="of the checkpoint, of the curve and of the weights")
    args = parser.parse_args()
    if len(args.steps) > len(args.late):
        parser.error(f"--late needs a mean for each of {len(args.steps)} cycles, got {len(args.late)}")
    args.subjects = SHAPES if args.shapes else SUBJECTS
    torch.manual_seed(args.seed)
    g = torch.Generator().manual_seed(args.seed)
    judge = Judge(load_pretrained("video-autoencoder"), load_pretrained("video-probe"), args.subjects)
    arguments = {"width": args.width, "depth": args.depth, "heads": args.heads}
    model = MiniSora(**arguments)
    minutes, curve, state = 0.0, [], new_state(model, args.ema, g, muon=not args.adam)
    path = CHECKPOINTS / f"{args.name}.safetensors"
    if path.is_file():
        state, metadata = load_checkpoint(path, model)
        minutes, curve = metadata["minutes"], json.loads(metadata["curve"])
    for end, late in zip(args.steps, args.late, strict=False):
        run = train(
            model,
            batches(judge.encoder, args, state.generator),
            RectifiedFlow(),
            steps=max(end, state.step),
            prediction="v",
            lr=args.lr,
            times=partial(times, args, late, state),
            resume=state,
        )
        losses, began = [], time.perf_counter()
        for step, loss, state in run:
            losses.append(loss)
            if step % 100 == 0:
                now = minutes + (time.perf_counter() - began) / 60
                print(f"step {step}: loss {sum(losses[-100:]) / len(losses[-100:]):.4f}, {now:.1f} min", flush=True)
            if step % args.every == 0 or step == end:
                minutes += (time.perf_counter() - began) / 60
                mean = sum(losses[-200:]) / len(losses[-200:])
                figures = checked(judge, state.ema.model, args.count)
                curve.append({"step": step, "minutes": round(minutes, 2), "loss": round(mean, 4)} | figures)
                print(curve[-1], flush=True)
                CHECKPOINTS.mkdir(exist_ok=True)
                save_checkpoint(path, state, minutes=minutes, curve=json.dumps(curve))
                began = time.perf_counter()
    if args.record:
        record(args.name, seed=args.seed, minutes=round(minutes, 1), prompts=args.count, curve=curve)
    if args.ship:
        metrics = report(judge, state.ema.model) | {"curve": curve}
        ship(args.name, state.ema.model, arguments, seed=args.seed, minutes=minutes, metrics=metrics)
        PICTURE.write_bytes(picture(judge, load_pretrained(args.name)))
        print(
            "in half precision:",
            checked(judge, load_pretrained(args.name), 512),
            "before:",
            checked(judge, state.ema.model, 512),
        )


if __name__ == "__main__":
    main()
