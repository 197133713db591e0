"""Two moons, a swiss roll and a checkerboard: this course against what a reader would pick instead, at equal seconds.

Each peer runs twice: with its own tutorial's settings, and with our network, batch, optimizer and average of weights,
so that it is plain what a difference comes from. All train in turns, a slice of their steps each, on one thread. The
number of steps is what fits into the same seconds, measured just before, in turns as well.
Run it by `python3 dev.py bench points`. This file alone also takes --seconds, --seeds and --only, and --help says what.
"""

import argparse
import contextlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import matplotlib.pyplot as plt
import torch
from _report import machine, publish, spread, table
from torch import Tensor, nn

import sora_lib as s
from sora_lib.datasets import points
from sora_lib.metrics import real_floor, sliced_wasserstein
from sora_lib.plotting import COLORS, use_style
from sora_lib.training import EMA, learning_rate

FLOW, BATCH, LR, N, DRAWS, SLICES = s.RectifiedFlow(), 256, 2e-3, 2000, 3, 50
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
Draw = Callable[[int, torch.Generator], Tensor]


@dataclass
class Contender:
    """A training that goes on step by step, and a way to sample from what it has learned."""

    steps: Iterator
    sample: Callable[[int], Tensor]  # n -> points [n, 2]


def checkerboard(n: int, generator: torch.Generator) -> Tensor:
    """Points `[n, 2]`, even on the eight dark squares of a 4 x 4 board, with mean 0 and variance 1."""
    column = torch.randint(4, (n,), generator=generator)
    row = 2 * torch.randint(2, (n,), generator=generator) + column % 2
    corner = torch.stack([column, row], dim=1)
    return (corner + torch.rand(n, 2, generator=generator) - 2) / math.sqrt(16 / 12)


SETS: dict[str, Draw] = {
    "moons": lambda n, generator: points("moons").sample(n, generator=generator),
    "swiss roll": lambda n, generator: points("swiss_roll").sample(n, generator=generator),
    "checkerboard": checkerboard,
}


def batches(data: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield data[torch.randint(len(data), (size,), generator=generator)]


def course(data: Tensor, steps: int, generator: torch.Generator) -> Contender:
    """As in chapter 07, with a wider network: the straight path, v, batches of 256, EMA; Heun's method in 25 steps."""
    model = s.MLPDenoiser()
    settings = {"steps": steps, "prediction": "v", "lr": LR, "generator": generator}
    run, kept = s.train(model, batches(data, BATCH, generator), FLOW, **settings), {}

    def go() -> Iterator:
        for *_, state in run:
            kept["model"] = state.ema.model
            yield

    def sample(n: int) -> Tensor:
        return s.heun(s.as_denoiser(kept["model"], FLOW, "v"), FLOW, torch.randn(n, 2, generator=generator), 25)

    return Contender(go(), sample)


class Recipe:
    """Our optimizer, learning rate and average of weights, for a training that is not ours."""

    def __init__(self, model: nn.Module, steps: int) -> None:
        self.model, self.ema, self.steps, self.done = model, EMA(model), steps, 0
        self.adam = torch.optim.Adam(model.parameters(), fused=True)

    def step(self, loss: Tensor) -> None:
        self.model.zero_grad()
        loss.backward()
        self.adam.param_groups[0]["lr"] = LR * learning_rate(self.done, self.steps)
        self.adam.step()
        self.ema.update(self.model)
        self.done += 1


def smalldiffusion_own(data: Tensor, steps: int, generator: torch.Generator) -> Contender:
    """The README's ten lines: batches of 2,048, AdamW at 1e-3, 20 steps of its accelerated sampler.

    Its DataLoader collects a batch point by point, which takes a quarter of the time: here a batch is drawn at once.
    """
    with without_pictures():
        from smalldiffusion import ScheduleLogLinear, TimeInputMLP, samples, training_loop

    model = TimeInputMLP(hidden_dims=(16, 128, 128, 128, 128, 16))
    schedule = ScheduleLogLinear(N=200, sigma_min=0.005, sigma_max=10)
    with mock.patch("smalldiffusion.diffusion.tqdm", iter):  # no bar
        run = training_loop(batches(data, 2048, generator), model, schedule)
        next(run)
    return Contender(run, lambda n: last(samples(model, schedule.sample_sigmas(20), gam=2, batchsize=n)))


def smalldiffusion_ours(data: Tensor, steps: int, generator: torch.Generator) -> Contender:
    """Its noise, loss and sampler (50 steps), its scaling of the input; our network, batch, optimizer and average."""
    with without_pictures():
        from smalldiffusion import Scaled, ScheduleLogLinear, samples
        from smalldiffusion.diffusion import generate_train_sample
        from smalldiffusion.model import ModelMixin

    low, high = 0.005, 10

    class Network(s.MLPDenoiser, ModelMixin):
        input_dims = (2,)

        def forward(self, x: Tensor, sigma: Tensor, cond: object = None) -> Tensor:
            t = (sigma / low).log() / math.log(high / low)  # even in the log, as the library trains
            return super().forward(x, t.clamp(0, 1).expand(len(x), 1).flatten())

    model = Scaled(Network)()
    schedule, recipe = ScheduleLogLinear(N=200, sigma_min=low, sigma_max=high), Recipe(model, steps)

    def go() -> Iterator:
        for batch in batches(data, BATCH, generator):
            x0, sigma, eps, _ = generate_train_sample(batch, schedule)
            recipe.step(model.get_loss(x0, sigma, eps))
            yield

    sigmas = schedule.sample_sigmas(50)
    return Contender(go(), lambda n: last(samples(recipe.ema.model, sigmas, gam=2, batchsize=n)))


def torchcfm_own(data: Tensor, steps: int, generator: torch.Generator) -> Contender:
    """Its 2-D tutorial: MLP of width 64, batches of 256, Adam at 1e-3; dopri5 at 1e-4.

    Its sigma is 0.1 for points that spread twice as far as ours: 0.05.
    """
    from torchcfm.models import MLP

    model = MLP(dim=2, time_varying=True)
    adam = torch.optim.Adam(model.parameters())

    def step(loss: Tensor) -> None:
        adam.zero_grad()
        loss.backward()
        adam.step()

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        return model(torch.cat([x, t[:, None]], dim=1))

    return matching(velocity, velocity, step, 0.05, batches(data, BATCH, generator))


def torchcfm_ours(data: Tensor, steps: int, generator: torch.Generator) -> Contender:
    """Its conditional flow matching with sigma 0 and dopri5; our network, batch, optimizer and average."""
    model = s.MLPDenoiser()
    recipe = Recipe(model, steps)
    return matching(
        lambda x, t: model(x, 1 - t),
        lambda x, t: recipe.ema.model(x, (1 - t).clamp(0, 1)),  # dopri5 looks a little beyond the end
        recipe.step,
        0.0,
        batches(data, BATCH, generator),
    )


def matching(velocity: Callable, average: Callable, step: Callable, sigma: float, source: Iterator) -> Contender:
    """Flow matching from noise (t = 0) to data (t = 1) by torchcfm, and samples by torchdiffeq's dopri5."""
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
    from torchdiffeq import odeint

    matcher = ConditionalFlowMatcher(sigma=sigma)

    def go() -> Iterator:
        for x1 in source:
            t, x_t, wanted = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
            step((velocity(x_t, t) - wanted).square().mean())
            yield

    @torch.no_grad()
    def sample(n: int) -> Tensor:
        span = torch.tensor([0.0, 1.0])
        return odeint(lambda t, x: average(x, t.expand(n)), torch.randn(n, 2), span, method="dopri5", **TOLERANCE)[1]

    return Contender(go(), sample)


def diffusers_own(data: Tensor, steps: int, generator: torch.Generator) -> Contender:
    """Its basic training tutorial (AdamW at 1e-4, 500 steps of warm-up, cosine, batches of 16), with a plain MLP."""
    from diffusers.optimization import get_cosine_schedule_with_warmup

    layers = [nn.Linear(3, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(128, 2))
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4)
    rate = get_cosine_schedule_with_warmup(adam, num_warmup_steps=500, num_training_steps=steps)

    def step(loss: Tensor) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        rate.step()
        adam.zero_grad()

    def noise(x: Tensor, t: Tensor) -> Tensor:
        return model(torch.cat([x, t[:, None]], dim=1))

    return ddpm(noise, noise, step, batches(data, 16, generator))


def diffusers_ours(data: Tensor, steps: int, generator: torch.Generator) -> Contender:
    """Its DDPM noise and sampler; our network, batch, optimizer and average."""
    model = s.MLPDenoiser()
    recipe = Recipe(model, steps)
    return ddpm(model, lambda x, t: recipe.ema.model(x, t), recipe.step, batches(data, BATCH, generator))


def ddpm(noise: Callable, average: Callable, step: Callable, source: Iterator) -> Contender:
    """Training on eps by diffusers' DDPMScheduler, and its 1,000 sampling steps; without clipping to [-1, 1]."""
    from diffusers import DDPMScheduler

    schedule = DDPMScheduler(num_train_timesteps=1000, clip_sample=False)

    def go() -> Iterator:
        for x0 in source:
            eps, t = torch.randn_like(x0), torch.randint(1000, (len(x0),))
            step((noise(schedule.add_noise(x0, eps, t), t / 1000) - eps).square().mean())
            yield

    @torch.no_grad()
    def sample(n: int) -> Tensor:
        x = torch.randn(n, 2)
        schedule.set_timesteps(1000)
        for t in schedule.timesteps:
            x = schedule.step(average(x, (t / 1000).expand(n)), t, x).prev_sample
        return x

    return Contender(go(), sample)


@contextlib.contextmanager
def without_pictures() -> Iterator[None]:
    """smalldiffusion imports torchvision, whose wheels need PyTorch's GPU build, for pictures alone: a stand-in."""
    sys.modules["torchvision"] = mock.MagicMock()
    yield
    del sys.modules["torchvision"]


def last(values: Iterator) -> Tensor:
    *_, value = values
    return value


CONTENDERS = {
    "this course": course,
    "smalldiffusion, its tutorial": smalldiffusion_own,
    "smalldiffusion, our network": smalldiffusion_ours,
    "torchcfm, its tutorial": torchcfm_own,
    "torchcfm, our network": torchcfm_ours,
    "diffusers, its tutorial": diffusers_own,
    "diffusers, our network": diffusers_ours,
}


def in_turns(runs: dict[str, Iterator], steps: dict[str, int]) -> dict[str, float]:
    """Seconds that each took for its steps, a slice of them at a time, round and round."""
    taken = dict.fromkeys(runs, 0.0)
    for turn in range(SLICES):
        for name, run in runs.items():
            began = time.perf_counter()
            for _ in range(steps[name] * turn // SLICES, steps[name] * (turn + 1) // SLICES):
                next(run)
            taken[name] += time.perf_counter() - began
    return taken


def fitting(data: Tensor, names: list[str], limit: float) -> dict[str, int]:
    """The steps that fit into `limit` seconds, from the speed of 200 in turns."""
    few = dict.fromkeys(names, 200)
    generator = torch.Generator().manual_seed(0)
    runs = {name: CONTENDERS[name](data, 10**6, generator).steps for name in names}
    for run in runs.values():
        for _ in range(20):
            next(run)
    return {name: int(200 * limit / taken) for name, taken in in_turns(runs, few).items()}


def compare(draw: Draw, names: list[str], limit: float, seed: int) -> dict[str, tuple[int, float, float, float]]:
    """Steps, seconds to train, seconds for 2,000 samples, and the ratio to the real-real floor, of each."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # peers draw from the global generator
    data = draw(100_000, generator)
    steps = fitting(data, names, limit)
    entrants = {name: CONTENDERS[name](data, steps[name], generator) for name in names}
    trained = in_turns({name: entrant.steps for name, entrant in entrants.items()}, steps)
    floor, found = real_floor(lambda: draw(N, generator)), {}
    for name, entrant in entrants.items():
        began = time.perf_counter()
        made = [entrant.sample(N) for _ in range(DRAWS)]
        taken = (time.perf_counter() - began) / DRAWS
        distance = statistics.median(sliced_wasserstein(each, draw(N, generator)) for each in made for _ in range(3))
        found[name] = steps[name], trained[name], taken, distance / floor
    return found


def rows(results: list[dict]) -> list[list[object]]:
    """One row a contender: medians over the seeds, and the spread of the ratio."""
    lines = []
    for name in results[0]:
        steps, trained, sampled, ratio = zip(*(result[name] for result in results), strict=True)
        middle = [
            f"{statistics.median(column):.{digits}f}" for column, digits in ((steps, 0), (trained, 1), (sampled, 2))
        ]
        lines.append([name, *middle, spread(ratio)])
    return lines


def draw_figure(results: dict[str, list[dict]]) -> plt.Figure:
    use_style()
    names = list(next(iter(results.values()))[0])
    figure, axes = plt.subplots(1, len(results), figsize=(11, 3), sharey=True, squeeze=False)
    for ax, (title, runs) in zip(axes[0], results.items(), strict=True):
        for height, name in enumerate(reversed(names)):
            values = [run[name][3] for run in runs]
            color = COLORS["model"] if name == "this course" else COLORS["noise"]
            ax.plot(values, [height] * len(values), "o", color=color, alpha=0.5, markersize=4)
            ax.plot(statistics.median(values), height, "|", color=color, markersize=16, markeredgewidth=2)
        ax.axvline(1, color=COLORS["exact"], linewidth=1)
        ax.set(title=title, xscale="log", xlabel="distance / distance of real from real")
        ax.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
        ax.minorticks_off()
    axes[0, 0].set_yticks(range(len(names)), reversed(names))
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8, help="of training, each (default: 8)")
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--only", nargs="*", choices=list(CONTENDERS), default=list(CONTENDERS), help="these alone")
    parser.add_argument("--save", action="store_true", help="write the result to docs/benchmarks.md")
    args = parser.parse_args()
    if args.save and args.only != list(CONTENDERS):
        parser.error("--save writes the whole table; leave out --only")
    torch.set_num_threads(1)
    packages = sorted({name.split(",")[0] for name in args.only} - {"this course"})
    header = machine(packages)
    results = {
        title: [compare(draw, args.only, args.seconds, seed) for seed in range(args.seeds)]
        for title, draw in SETS.items()
    }
    head = ["", "steps", "train, s", f"{N:,} samples, s", "distance / floor"]
    parts = [f"**{title}**\n\n{table(head, rows(runs))}" for title, runs in results.items()]
    note = (
        f"About {args.seconds:g} s of training each, in turns. Medians of seeds 0 to {args.seeds - 1}, in brackets the "
        "least and the greatest; a perfect sampler is at 1 on average."
    )
    publish("points", "\n\n".join([header, note, *parts]), draw_figure(results))


if __name__ == "__main__":
    main()
