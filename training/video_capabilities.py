"""Measure what the shipped Mini-Sora can do beyond prompts, for chapter 14 (about seven minutes on one core).

Sizes, an image set in motion, extending both ways, loops, SDEdit, connecting two videos, long videos, two things: each
beside real clips (in handwriting that it has not seen) through the autoencoder, and beside a control that must fail.
The results go into `training/results/video_capabilities.json` after each part; `--only` runs some parts anew.
"""

import argparse
import dataclasses
import datetime
import json
import time
from pathlib import Path

import torch
from judge import Judge, Scenes, handwriting, isolated, rounded
from torch import Tensor

from sora_lib.datasets import film
from sora_lib.metrics import centroids
from sora_lib.mini_sora import Told, told
from sora_lib.pipeline import MiniSoraPipeline, sample_latents
from sora_lib.pretrained import load_pretrained, read_card
from sora_lib.text import COLORS, DIRECTIONS, SUBJECTS, Thing, attributes, describe

RESULTS = Path(__file__).resolve().parent / "results" / "video_capabilities.json"
SIZES = [(1, 32, 32), (9, 32, 32), (17, 32, 32), (33, 32, 32), (17, 32, 48), (17, 48, 32)]
STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)
HALF = ("loop", "sdedit", "connect", "long", "two")  # parts with half as many clips
WINDOWS = 9  # of a long video, each 8 frames after the one before
WAYS = torch.tensor([[0, -1], [1, -1], [1, 0], [1, 1], [0, 1], [-1, 1], [-1, 0], [-1, -1]]).float()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def steps(video: Tensor) -> Tensor:
    """How far the centre of light moves from frame to frame, `[B, F - 1]`, in pixels."""
    return centroids(video).diff(dim=1).norm(dim=2)


def differences(video: Tensor) -> Tensor:
    """The mean absolute difference of pixels from frame to frame, `[B, F - 1]`."""
    return video.diff(dim=2).abs().mean((1, 3, 4))


MEASURES = {"step": steps, "difference": differences}


def psnr(a: Tensor, b: Tensor) -> float:
    """Of each clip, in dB; then the mean."""
    return (-10 * (a - b).square().flatten(1).mean(1).clamp(min=1e-10).log10()).mean().item()


def heading(video: Tensor) -> Tensor:
    """The number in DIRECTIONS of the way that a clip of four frames or more goes over its last three steps, `[B]`."""
    moved = centroids(video[:, :, -4:])
    moved = (moved[:, -1] - moved[:, 0]) / 3
    way = (moved @ (WAYS / WAYS.norm(dim=1, keepdim=True)).T).argmax(1)
    return torch.where(moved.norm(dim=1) < 0.25, len(WAYS), way)


def said_of(scenes: Scenes, video: Tensor) -> list[str]:
    """Captions with the direction that the clips show at their end; the rest is that of the scenes."""
    ways = [DIRECTIONS[i] for i in heading(video).tolist()]
    pairs = [(scene[0], way) for scene, way in zip(scenes, ways, strict=True)]
    return [describe((Thing(t.subject, t.color, w, None if w == "still" else t.speed),)) for t, w in pairs]


def short(scenes: Scenes) -> list[str]:
    """Captions of subject and colour alone."""
    return [describe((Thing(scene[0].subject, scene[0].color),)) for scene in scenes]


def another(scenes: Scenes, kind: str, values: tuple[str, ...]) -> Scenes:
    """The same scenes with another subject, or another colour, each value as often as any."""
    g, changed = seeded(0), []
    for (thing,) in scenes:
        step = int(torch.randint(1, len(values), (), generator=g))
        value = values[(values.index(getattr(thing, kind)) + step) % len(values)]
        changed.append((dataclasses.replace(thing, **{kind: value}),))
    return changed


class Bench:
    """The pipeline, its judge, and what all parts share: scenes, real clips, and the bounds of real steps."""

    def __init__(self, count: int, inference_steps: int) -> None:
        self.pipe = MiniSoraPipeline.from_pretrained("mini-sora")
        self.judge = Judge(self.pipe.autoencoder, load_pretrained("video-probe"))
        self.count, self.inference_steps = count, inference_steps
        self.scenes = self.judge.scenes(count, 300)
        self.captions = [describe(scene) for scene in self.scenes]
        self.things, self.half = [scene[0] for scene in self.scenes], self.scenes[: count // 2]
        self.real = film(self.scenes, frames=33, part="test", generator=seeded(301)).video
        rebuilt = self.judge.rebuilt(self.real)
        self.bounds = {name: f(rebuilt).flatten().quantile(0.95).item() for name, f in MEASURES.items()}
        self.plain = self.make(self.captions, seed=302)

    def make(self, prompts: list[str], seed: int, **options: object) -> Tensor:
        """Video for the prompts, 64 at a time; clips to go by are cut in the same way."""
        g, parts = seeded(seed), []
        for i in range(0, len(prompts), 64):
            some = {k: v[i : i + 64] if isinstance(v, Tensor) else v for k, v in options.items()}
            fixed = {"num_inference_steps": self.inference_steps, "generator": g}
            parts.append(self.pipe(prompts[i : i + 64], **fixed, **some).frames)
        return torch.cat(parts)

    def by_hand(self, captions: list[str], image: Tensor, seen: float = 1.0) -> Tensor:
        """The image told as the first latent frame, and nothing put back afterwards; seen 0 leaves its mask at 0."""
        parts, g = [], seeded(303)
        with torch.no_grad():
            known = torch.cat([self.pipe.autoencoder.encode(2 * part - 1) for part in image.split(64)])
        for i in range(0, len(captions), 64):
            request: Told = told(captions[i : i + 64], (5, 8, 8))
            request.known[:, :, :1], request.mask[:, :1] = known[i : i + 64], seen
            z = sample_latents(self.pipe.transformer, request, steps=self.inference_steps, generator=g)
            parts.append(self.judge.decoded(z))
        return torch.cat(parts)

    def seams(self, video: Tensor, at: list[int]) -> dict[str, float]:
        """Of the steps that end in the frames `at`: their mean, and the share within the bounds of real steps."""
        figures = {}
        for name, measure in MEASURES.items():
            seen = measure(video)[:, [frame - 1 for frame in at]]
            figures[name] = seen.mean().item()
            figures[f"{name} within"] = (seen <= self.bounds[name]).float().mean().item()
        return rounded(figures | {"largest step": steps(video).amax(1).median().item()})


def real(bench: Bench) -> dict:
    """What real clips do, through the autoencoder, over all their frame steps."""
    rebuilt = bench.judge.rebuilt(bench.real)
    return {"bounds": rounded(bench.bounds), "seams": bench.seams(rebuilt, list(range(1, 33)))}


def sizes(bench: Bench) -> list[dict]:
    """Adherence at each size beside its ceiling, and with prompts shuffled."""
    rows = []
    for frames, height, width in SIZES:
        size = {"height": height, "width": width}
        things = [Thing(t.subject, t.color) for t in bench.things] if frames == 1 else bench.things
        said = short(bench.scenes) if frames == 1 else bench.captions
        filmed = film(bench.scenes, frames=frames, **size, part="test", generator=seeded(310)).video
        videos = {"ceiling": bench.judge.rebuilt(filmed), "generated": bench.make(said, 311, num_frames=frames, **size)}
        row = {name: bench.judge.adherence(video, things) for name, video in videos.items()}
        row["prompts shuffled"] = bench.judge.adherence(videos["generated"], things[1:] + things[:1])
        shown = {name: {k: v for k, v in figures.items() if v == v} for name, figures in row.items()}
        rows.append({"size": [frames, height, width]} | shown)
    return rows


def image(bench: Bench) -> dict:
    """A real first frame set in motion."""
    first, judge = bench.real[:, :, :1], bench.judge
    made = bench.make(bench.captions, 303, image=first)
    videos = {
        "autoencoder alone": judge.rebuilt(bench.real[:, :, :17]),
        "image given": made,
        "image given, not put back": bench.by_hand(bench.captions, first),
        "mask 0": bench.by_hand(bench.captions, first, seen=0.0),
        "no image": bench.plain,
        "another clip's video": made.roll(1, 0),
    }
    rows, hand = {}, handwriting(first)
    for name, video in videos.items():
        alike = [(handwriting(video[:, :, k:]) * hand).sum(1).mean().item() for k in (0, 8, 16)]
        kept = {"psnr": psnr(video[:, :, :1], first), "alike 0": alike[0], "alike 8": alike[1], "alike 16": alike[2]}
        kept |= {"first step": steps(video)[:, 0].mean().item()}
        rows[name] = rounded(kept) | judge.adherence(video, bench.things)
    return rows


def extend(bench: Bench) -> dict:
    """Eight frames more, after and before real clips of 17 frames, of which the law of motion tells the rest."""
    clip, truth, judge = bench.real[:, :, 8:25], centroids(bench.real), bench.judge
    begin = said_of(bench.scenes, clip[:, :, :4])
    forward = {"said of its end": said_of(bench.scenes, clip), "said of its beginning": begin}
    forward |= {"subject and colour": short(bench.scenes)}
    backward = {"said of its beginning": begin, "subject and colour": short(bench.scenes)}
    rows: dict = {"forward": {}, "backward": {}}

    def row(whole: Tensor, added: Tensor, place: slice, at: int) -> dict:
        off = (centroids(added) - truth[:, place]).norm(dim=2).mean(0)
        return bench.seams(whole, [at]) | {"off the law": [round(x, 3) for x in off.tolist()]}

    after, before = slice(25, 33), slice(0, 8)
    for name, prompts in forward.items():
        new = bench.make(prompts, 320, image=clip[:, :, -9:])[:, :, 9:]
        rows["forward"][name] = row(torch.cat([clip, new], dim=2), new, after, 17)
    for name, prompts in backward.items():
        new = bench.make(prompts, 321, last_image=clip[:, :, :9])[:, :, :8]
        rows["backward"][name] = row(torch.cat([new, clip], dim=2), new, before, 8)
    others = {
        "real, rebuilt": judge.rebuilt(bench.real)[:, :, 25:],
        "frozen": clip[:, :, -1:].expand(-1, -1, 8, -1, -1),
        "glued to another clip": clip.roll(1, 0)[:, :, :8],
    }
    for name, new in others.items():
        rows["forward"][name] = row(torch.cat([clip, new], dim=2), new, after, 17)
    frozen = clip[:, :, :1].expand(-1, -1, 8, -1, -1)
    rows["backward"]["frozen"] = row(torch.cat([frozen, clip], dim=2), frozen, before, 8)
    return rows


def loop(bench: Bench) -> dict:
    """Frames that lead from a video's end to its beginning."""
    scenes, video, rows = bench.half, bench.plain[: len(bench.half)], {}
    sentences = {"subject and colour": short(scenes), "the same sentence": bench.captions[: len(scenes)]}
    sentences |= {"said of its end": said_of(scenes, video)}
    for name, prompts in sentences.items():
        new = bench.make(prompts, 330, image=video[:, :, -9:], last_image=video[:, :, :9], num_frames=33)
        whole = torch.cat([video, new[:, :, 9:24], video[:, :, :1]], dim=2)  # 17 frames, 15, and the first again
        rows[name] = bench.seams(whole, [17, 32]) | {"closing": bench.seams(whole, [32])}
    again = torch.cat([video, video[:, :, :1]], dim=2)
    rows["repeated"] = bench.seams(again, [17]) | {"closing": bench.seams(again, [17])}
    return rows


def sdedit(bench: Bench) -> dict:
    """One attribute changed, over the strength."""
    scenes = bench.half
    original = bench.real[: len(scenes), :, :17]
    place, rows = centroids(original), {}
    for kind, values in {"color": COLORS, "subject": SUBJECTS}.items():
        wanted = another(scenes, kind, values)
        things, rows[kind] = [scene[0] for scene in wanted], []
        for strength in STRENGTHS:
            video = bench.make([describe(s) for s in wanted], 340, video=original, strength=strength)
            seen, there = bench.judge.adherence(video, things), centroids(video)
            a, b = (x - x.mean((0, 1)) for x in (there, place))
            figures = {"changed": seen[kind], "all": seen["all"]}
            figures |= {"correlation": ((a * b).sum() / (a.norm() * b.norm())).item()}
            figures |= {"distance": (there - place).norm(dim=2).mean().item()}
            rows[kind].append({"strength": strength} | rounded(figures))
    return rows


def connect(bench: Bench) -> dict:
    """From the end of one video to the beginning of another."""
    first, captions, rows = bench.plain[: len(bench.half)], bench.captions[: len(bench.half)], {}
    second = first.roll(1, 0)
    start, end = first[:, :, -9:], second[:, :, :9]
    own = [bench.judge.rebuilt(part) for part in (start, end)]
    sentences = {"said of the second": captions[-1:] + captions[:-1]}
    sentences |= {"said of the first's end": said_of(bench.half, first)}
    sentences |= {"subject and colour of the second": short(bench.half[-1:] + bench.half[:-1])}
    for name, prompts in sentences.items():
        new = bench.make(prompts, 350, image=start, last_image=end, num_frames=33)
        whole = torch.cat([first, new[:, :, 9:24], second], dim=2)
        kept = [new[:, :, :9], new[:, :, -9:]]
        figures = {"start psnr": psnr(kept[0], start), "start psnr, autoencoder": psnr(own[0], start)}
        figures |= {"end psnr": psnr(kept[1][:, :, 1:], end[:, :, 1:])}
        figures |= {"end psnr, autoencoder": psnr(own[1][:, :, 1:], end[:, :, 1:])}
        figures |= {"end's first frame psnr": psnr(kept[1][:, :, :1], end[:, :, :1])}
        figures |= {"end distance": (centroids(kept[1]) - centroids(end)).norm(dim=2).mean().item()}
        both = {"first seam": bench.seams(whole, [17]), "second seam": bench.seams(whole, [32])}
        rows[name] = rounded(figures) | both
    glued = torch.cat([first, second], dim=2)
    rows["glued"] = {"end psnr": round(psnr(end.roll(1, 0), end), 4), "first seam": bench.seams(glued, [17])}
    return rows


def long(bench: Bench) -> dict:
    """Windows of nine frames of a video that is extended again and again, by eight frames each time."""
    scenes, rows = bench.half, {}
    things, frames = [scene[0] for scene in scenes], 9 + 8 * (WINDOWS - 1)
    wanted = attributes(things)["subject"]
    speed = torch.tensor([{"slow": 0.5, "fast": 1.5}.get(t.speed, 0.0) for t in things])
    filmed = bench.judge.rebuilt(film(scenes, frames=frames, part="test", generator=seeded(360)).video)
    videos = {"real, rebuilt": filmed}
    for known in (9, 1):
        video = bench.plain[: len(scenes)]
        for i in range(WINDOWS - 2):
            prompts = said_of(scenes, video)
            new = bench.make(prompts, 361 + i, image=video[:, :, -known:], num_frames=known + 8)[:, :, known:]
            video = torch.cat([video, new], dim=2)
        videos[f"extended from {known}"] = video
    for name, video in videos.items():
        rows[name] = []
        for i in range(WINDOWS):
            window = video[:, :, 8 * i : 8 * i + 9]
            seen = bench.judge.adherence(window, things)
            bright, hand = window.amax(1).mean((1, 2, 3)), handwriting(video[:, :, :1])
            with torch.no_grad():
                is_first = (bench.judge.probe(window)["subject"].argmax(1) == wanted).float().mean()
            figures = {"subject": is_first.item(), "color": seen["color"], "light": bright.mean().item()}
            figures |= {"alike": (handwriting(window[:, :, 8:]) * hand).sum(1).mean().item()}
            figures |= {"speed off by": (steps(window) - speed[:, None]).abs().mean().item()}
            rows[name].append({"frame": 8 * i} | rounded(figures))
    return rows


def two(bench: Bench) -> dict:
    """Real clips of two things, nine frames given of 17: what is to be seen of both in the last nine?"""
    scenes = bench.judge.scenes(len(bench.half), 370, things=2)
    clip = film(scenes, part="test", generator=seeded(371)).video
    prompts = [describe(scene) for scene in scenes]
    videos = {
        "real, rebuilt": bench.judge.rebuilt(clip),
        "nine frames given": bench.make(prompts, 372, image=clip[:, :, :9]),
        "prompt alone": bench.make(prompts, 373),
    }

    def seen(video: Tensor) -> float:
        last = [[isolated(v, t.color)[:, -1] for t in scene] for v, scene in zip(video, scenes, strict=True)]
        return sum(all((x.amax(0) > 0.4).sum() >= 12 for x in pair) for pair in last) / len(scenes)

    looks = [tuple(Thing(t.subject, t.color) for t in scene) for scene in scenes]  # what a bounce does not change
    rows = {}
    for name, video in videos.items():
        figures = bench.judge.adherence_of_two(video[:, :, 8:], looks)
        rows[name] = {"both colours in the last frame": round(seen(video), 4)}
        rows[name] |= {"subject": figures["subject"], "both subjects": figures["both"]}
    return rows


PARTS = {f.__name__: f for f in (real, sizes, image, extend, loop, sdedit, connect, long, two)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=128, help=f"clips; half as many for {', '.join(HALF)}")
    parser.add_argument("--steps", type=int, default=4, help="of Heun's method; guidance is 3")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    args = parser.parse_args()
    bench = Bench(args.count, args.steps)
    old = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    results = {
        "command": f"python training/{RESULTS.stem}.py --count {args.count} --steps {args.steps}",
        "weights": read_card("mini-sora")["sha256"],
        "date": datetime.date.today().isoformat(),
        "threads": torch.get_num_threads(),
        "seeds": "300 to 373",
        "clips": {name: args.count // 2 if name in HALF else args.count for name in PARTS},
        "steps": args.steps,
        "guidance scale": 3.0,
        "minutes": old.get("minutes", {}),
    } | {name: old[name] for name in PARTS if name in old}
    for name in args.only:
        began = time.perf_counter()
        results[name] = PARTS[name](bench)
        results["minutes"][name] = round((time.perf_counter() - began) / 60, 1)
        print(f"{name}, {results['minutes'][name]} min: {json.dumps(results[name])}", flush=True)
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
