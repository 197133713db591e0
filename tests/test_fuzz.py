"""Thousands of generated bad inputs: each is accepted, or refused with a documented error; nothing hangs or crashes."""

import contextlib
import hashlib
import importlib
import io
import itertools
import json
import math
import pkgutil
import random
import signal
import sys
import warnings
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

import sora_lib as s
import sora_lib.__main__ as program
from sora_lib import (
    autoencoder,
    datasets,
    denoisers,
    explore,
    marking,
    metrics,
    mini_sora,
    pipeline,
    plotting,
    pretrained,
    samplers,
    schedules,
    sketch,
    text,
    training,
    transformer,
    validate,
)
from sora_lib.mini_sora import Told
from sora_lib.text import Thing

CASES = 10_000
SECONDS = 20  # a call that takes longer hangs
REFUSED = (ValueError, TypeError, FileNotFoundError)  # what every function may raise
ROOM = 1 << 30  # bytes that a call may not take: on Linux the system refuses them

FLOW = s.RectifiedFlow()
X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
T = torch.full([4], 0.5)
LAW = s.GaussianMixture(torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), 0.5)
VIDEO = torch.rand(2, 3, 5, 8, 8, generator=torch.Generator().manual_seed(1))
MLP = s.MLPDenoiser(width=4, depth=1, time_dim=4)
DIT = transformer.DiT(1, (1, 2, 2), 12, 1, 2, classes=3)
SORA = mini_sora.MiniSora(8, width=24, depth=1)
CODEC = autoencoder.VideoAutoencoder(8, 4, 1)
READER = text.TextEncoder(24, 1)
JUDGE, DIGIT = metrics.VideoProbe({"color": 6}, 2).eval(), metrics.DigitProbe(2, 4).eval()
TOLD = vars(mini_sora.told(["a one", None], (2, 2, 2)))
CURVES = ("alpha", "sigma", "alpha_dot", "sigma_dot", "snr")
SCENE = (Thing("one", "red", "up", "slow"),)


def same(x_t, t):
    return x_t


def hostile(method, answer):
    """An object that answers one question wrongly."""
    return type("Hostile", (), {method: lambda self, *_: answer()})()


def no():
    raise RuntimeError("hostile")


def generated(call, share=1, may=(), **good):
    """A call, the good arguments that it takes by name, its share of the cases, and what else it may raise."""
    return call, good, share, (*REFUSED, *may)


def sampler(function, **options):
    good = {"denoise": same, "schedule": FLOW, "x_start": X, "steps": 2, "generator": None, "trajectory": False}
    return generated(function, **good, **options)


def thing(call):
    return generated(
        lambda **parts: call(Thing(**parts)), subject="one", color="red", direction="up", speed="slow", share=0.5
    )


def one_step(model, batch, **options):
    return next(s.train(model, [batch], FLOW, **options))


def pipe(**options):
    return pipeline.MiniSoraPipeline(SORA, CODEC)(**options)


def axes(call):
    return lambda **given: call(Figure().add_subplot(), **given)


def network(module, **good):
    return generated(module, **good)


CALLS = {
    # schedules and conversions
    "LinearBeta": generated(s.LinearBeta, steps=10, beta_start=1e-4, beta_end=0.02),
    "Cosine": generated(s.Cosine, s=0.008, share=0.5),
    "RectifiedFlow": generated(lambda t, x0, eps: FLOW.add_noise(x0, t, eps), t=T, x0=X, eps=X),
    "Schedule": generated(lambda t: [getattr(s.LinearBeta(10), curve)(t) for curve in CURVES], t=T),
    "check_noised": generated(schedules.check_noised, x0=X, t=T, eps=X, share=0.5),
    "check_schedule": generated(schedules.check_schedule, schedule=FLOW, share=0.5),
    "convert": generated(s.convert, prediction=X, x_t=X, t=T, schedule=FLOW, source="eps", target="x0", share=2),
    # oracle
    "GaussianMixture": generated(s.GaussianMixture, means=X, std=0.5, weights=torch.full([4], 0.25)),
    "GaussianMixture.sample": generated(LAW.sample, n=3, generator=None),
    "GaussianMixture.responsibilities": generated(LAW.responsibilities, x_t=X, t=T, schedule=FLOW),
    "GaussianMixture.denoiser": generated(
        lambda schedule, x_t, t: LAW.denoiser(schedule)(x_t, t), schedule=FLOW, x_t=X, t=T
    ),
    "EmpiricalDenoiser": generated(
        lambda data, schedule, x_t, t: s.EmpiricalDenoiser(data, schedule)(x_t, t), data=X, schedule=FLOW, x_t=X, t=T
    ),
    # samplers
    "time_grid": generated(samplers.time_grid, steps=2),
    "ancestral": sampler(s.ancestral),
    "ddim": sampler(s.ddim, eta=0.5),
    "euler": sampler(s.euler),
    "heun": sampler(s.heun),
    "guided": generated(lambda a, b, scale: s.guided(a, b, scale)(X, T), a=same, b=same, scale=2.0),
    # denoisers
    "TimeEmbedding": generated(denoisers.TimeEmbedding, dim=4, share=0.5),
    "MLPDenoiser": generated(s.MLPDenoiser, dim=2, width=4, depth=1, time_dim=4),
    "MLPDenoiser()": network(MLP, x_t=X, t=T),
    "as_denoiser": generated(
        lambda model, schedule, prediction, cond, x_t, t: s.as_denoiser(model, schedule, prediction, cond)(x_t, t),
        **{"model": MLP, "schedule": FLOW, "prediction": "x0", "cond": None, "x_t": X, "t": T},
    ),
    # training
    "training_target": generated(training.training_target, x0=X, t=T, eps=X, schedule=FLOW, prediction="v"),
    "denoising_loss": generated(
        s.denoising_loss, model=MLP, x0=X, t=T, eps=X, schedule=FLOW, prediction="eps", cond=None
    ),
    "EMA": generated(s.EMA, model=MLP, decay=0.9),
    "EMA.update": generated(lambda model: s.EMA(MLP).update(model), model=MLP, share=0.5),
    "new_state": generated(training.new_state, model=MLP, ema=0.9, generator=None, muon=False),
    "uniform_times": generated(training.uniform_times, n=3, generator=None),
    "logit_normal_times": generated(
        lambda mean, std, n: training.logit_normal_times(mean, std)(n, None), mean=0.0, std=1.0, n=3
    ),
    "train": generated(
        one_step,
        may=(FloatingPointError, RuntimeError),
        **{"model": MLP, "batch": X, "steps": 1, "prediction": "eps", "lr": 0.0, "ema": 0.9},
        **{"times": training.uniform_times, "generator": None, "resume": None},
    ),
    "train, batches": generated(
        lambda batches, schedule: next(s.train(MLP, batches, schedule, steps=1, lr=0.0)),
        may=(FloatingPointError, RuntimeError),
        **{"batches": [X], "schedule": FLOW, "share": 0.5},
    ),
    "learning_rate": generated(training.learning_rate, step=1, steps=2, warmup=5),
    # metrics
    "sliced_wasserstein": generated(s.sliced_wasserstein, a=X, b=X, directions=8),
    "real_floor": generated(s.real_floor, sample=lambda: X, pairs=2, share=0.5),
    "real_floor, a sample": generated(lambda x: s.real_floor(lambda: x, pairs=1), x=X, share=0.5),
    "DigitProbe": generated(metrics.DigitProbe, width=2, features=4),
    "DigitProbe()": network(DIGIT, images=torch.rand(2, 1, 8, 8)),
    "VideoProbe": generated(metrics.VideoProbe, kinds={"color": 6}, width=2, features=4),
    "VideoProbe()": network(JUDGE, video=VIDEO),
    "VideoProbe.moves": network(JUDGE.moves, video=VIDEO),
    "adherence": generated(
        lambda logits, wanted: metrics.adherence({"color": logits}, {"color": wanted}),
        logits=torch.rand(4, 6),
        wanted=torch.tensor([0, 1, -1, 5]),
    ),
    "adherence, whole": generated(
        metrics.adherence, logits={"color": torch.rand(4, 6)}, wanted={"color": torch.tensor([0, 1, -1, 5])}, share=0.5
    ),
    "centroids": generated(metrics.centroids, video=VIDEO, share=0.5),
    "motion_error": generated(metrics.motion_error, video=VIDEO, velocities=X[:2], steps=2),
    "frechet_distance": generated(metrics.frechet_distance, a=X, b=X),
    "precision_recall": generated(metrics.precision_recall, real=X, generated=X, neighbours=2),
    "nearest_distance": generated(metrics.nearest_distance, samples=X, reference=X),
    # the world and its captions
    "points": generated(s.points, name="gaussians", share=0.5),
    "drawing": generated(datasets.drawing, xy=torch.rand(30, 2), share=0.5),
    "digits": generated(s.digits, part="test", share=0.1),
    "held_out": thing(datasets.held_out),
    "velocity": thing(datasets.velocity),
    "random_scene": generated(
        datasets.random_scene, things=2, subjects=("one", "two"), combinations="all", generator=None
    ),
    "shortened": generated(datasets.shortened, scene=SCENE, generator=None, share=0.5),
    "bounced": generated(datasets.bounced, start=X, speed=X, room=X.abs() + 1, frames=3),
    "film": generated(
        datasets.film, scenes=[SCENE], frames=2, height=32, width=32, part="test", captions=["a one"], generator=None
    ),
    "film, a thing": thing(lambda thing: datasets.film([[thing]], frames=1)),
    "Thing": thing(lambda thing: text.describe([thing], synonyms=True)),
    "describe": generated(text.describe, scene=SCENE, synonyms=True, generator=None),
    "words_of": generated(text.words_of, caption="a one", share=0.5),
    "parse": generated(text.parse, caption="a one", share=0.5),
    "attributes": generated(text.attributes, things=SCENE, share=0.5),
    "attributes, a thing": thing(lambda thing: text.attributes([thing])),
    "tokenize": generated(text.tokenize, captions=["a one", None]),
    "tokenize, a caption": generated(lambda caption: text.tokenize([caption]), caption="a one", share=0.5),
    "TextEncoder": generated(text.TextEncoder, width=12, depth=1, heads=2),
    "TextEncoder()": network(READER, tokens=text.tokenize(["a one", None])),
    # transformer and autoencoder
    "check_size": generated(lambda value: transformer.check_size("size", value), value=(1, 2, 2)),
    "grid_of": generated(transformer.grid_of, x=VIDEO, patch_size=(1, 2, 2)),
    "patchify": generated(transformer.patchify, x=VIDEO, patch_size=(1, 2, 2)),
    "unpatchify": generated(transformer.unpatchify, tokens=torch.rand(2, 12, 8), patch_size=(1, 2, 2), grid=(1, 3, 4)),
    "rotary_angles": generated(transformer.rotary_angles, grid=(1, 2, 2), head_dim=6, base=100.0),
    "place_code": generated(transformer.place_code, grid=(1, 2, 2), width=6),
    "DiT": generated(
        transformer.DiT, channels=1, patch_size=(1, 2, 2), width=12, depth=1, heads=2, classes=3, absolute=False
    ),
    "DiT()": network(DIT, x_t=torch.rand(4, 1, 1, 4, 4), t=T, label=torch.tensor([0, 1, 2, 3])),
    "VideoAutoencoder": generated(autoencoder.VideoAutoencoder, channels=2, width=4, depth=1),
    "Autoencoder": generated(
        lambda encoder, decoder, channels: autoencoder.Autoencoder(encoder, decoder, channels).decode(X),
        encoder=MLP,
        decoder=torch.nn.Identity(),
        channels=2,
    ),
    "Autoencoder.posterior": generated(CODEC.posterior, x=VIDEO, share=0.5),
    "Autoencoder.loss": generated(CODEC.loss, x=VIDEO, kl_weight=0.1, generator=None),
    "Autoencoder.fit_normalisation": generated(CODEC.fit_normalisation, x=VIDEO, share=0.5),
    "Autoencoder.encode": generated(CODEC.encode, x=VIDEO, share=0.5),
    "Autoencoder.decode": generated(CODEC.decode, z=torch.rand(1, 8, 1, 2, 2)),
    "check_video": generated(autoencoder.check_video, x=VIDEO, share=0.5),
    # Mini-Sora
    "told": generated(mini_sora.told, captions=["a one", None], size=(2, 2, 2), channels=8),
    "MiniSora": generated(mini_sora.MiniSora, channels=8, patch_size=(1, 2, 2), width=24, depth=1, heads=4),
    "MiniSora()": generated(
        lambda x_t, t, **given: SORA(x_t, t, Told(**given)), x_t=torch.rand(2, 8, 2, 2, 2), t=T[:2], **TOLD
    ),
    "MiniSora(), told": network(SORA, x_t=torch.rand(2, 8, 2, 2, 2), t=T[:2], told=Told(**TOLD)),
    "sample_latents": generated(
        lambda model, steps, scale, start, generator, progress, **given: pipeline.sample_latents(
            *(model, Told(**given)), steps=steps, scale=scale, start=start, generator=generator, progress=progress
        ),
        **{"model": SORA, "steps": 1, "scale": 1.0, "start": None, "generator": None, "progress": False, **TOLD},
    ),
    "MiniSoraPipeline": generated(
        pipe,
        **{"prompt": "a one", "num_frames": 5, "height": 32, "width": 32, "num_inference_steps": 1},
        **{"guidance_scale": 1.0, "image": torch.rand(1, 3, 32, 32), "last_image": None, "video": None},
        **{"strength": 0.5, "generator": None, "progress": False},
    ),
    "MiniSoraPipeline.from_pretrained": generated(pipeline.MiniSoraPipeline.from_pretrained, name="mini", share=0.5),
    "read_card": generated(pretrained.read_card, name="mini-sora", share=0.5),
    "load_pretrained": generated(pretrained.load_pretrained, name="digit-probe", share=0.5),
    # files
    "save_checkpoint": generated(
        lambda path, note: s.save_checkpoint(path, training.new_state(MLP), note=note),
        may=(OSError,),
        **{"path": "no folder/run", "note": 1},
    ),
    "load_checkpoint": generated(s.load_checkpoint, path="no file", model=MLP, may=(OSError,)),
    # pictures and controls
    "plane": generated(axes(plotting.plane), limit=3.0, share=0.2),
    "plot_points": generated(axes(plotting.plot_points), x=X, kind="data", size=4, share=0.5),
    "plot_paths": generated(axes(plotting.plot_paths), trajectory=X[None], kind="model", share=0.5),
    "plot_field": generated(axes(plotting.plot_field), field=lambda x: x, kind="model", limit=2.0, cells=3, share=0.5),
    "figure_png": generated(lambda colors: plotting.figure_png(Figure((1, 1)), colors), colors=8, share=0.3),
    "render_frames": generated(plotting.render_frames, draw=lambda ax, i: None, count=1, size=(1, 1)),
    "animation": generated(plotting.animation, frames=[], alt="a", milliseconds=9, share=0.3),
    "video_png": generated(plotting.video_png, video=VIDEO[:, :, :2], columns=1, zoom=1, milliseconds=9),
    "film_strip": generated(axes(plotting.film_strip), video=VIDEO[0], every=2, share=0.3),
    "scrubber": generated(explore.scrubber, frames=[b"x"], labels=["a"], name="n", start=0, milliseconds=9),
    "TrainingBoard": generated(explore.TrainingBoard, steps=3, baselines={"zero": 1.0}, draw=None, share=0.1),
    "shape": generated(sketch.shape, name="spiral", share=0.5),
    # it prints, and never raises
    "mark_number": (lambda answer: marking.mark_number("a", answer, 1.0, [(2.0, "b")]), {"answer": 1.0}, 0.5, ()),
    "mark_function": (
        lambda f: marking.mark_function("a", f, same, [(X, T)], [(lambda x, t: -x, "b")]),
        {"f": same},
        0.5,
        (),
    ),
}
PARTS = {  # called by networks that have checked the input; torch's own errors
    "SoraDiffusionModel": (s.SoraDiffusionModel, {"input_size": 2, "hidden_size": 3, "output_size": 2}),
    "SoraDiffusionModel()": (s.SoraDiffusionModel(2, 3, 2), {"x": X}),
    "expand": (schedules.expand, {"coefficient": T, "x": X}),
    "TimeEmbedding()": (denoisers.TimeEmbedding(4), {"t": T}),
    "ResidualBlock": (denoisers.ResidualBlock(2, 4), {"h": X, "time": torch.rand(4, 4)}),
    "rotate": (transformer.rotate, {"x": torch.rand(1, 2, 4, 6), "angles": torch.rand(4, 3)}),
    "modulate": (transformer.modulate, {"x": X, "shift": X, "scale": X}),
    "Attention": (transformer.Attention(12, 2), {"x": torch.rand(1, 4, 12), "angles": torch.rand(4, 3), "mask": None}),
    "DiTBlock": (
        transformer.DiTBlock(12, 2),
        {"x": torch.rand(1, 4, 12), "condition": torch.rand(1, 12), "angles": torch.rand(4, 3)},
    ),
    "FinalLayer": (transformer.FinalLayer(12, 4), {"x": torch.rand(1, 4, 12), "condition": torch.rand(1, 12)}),
    "DiT.transform": (
        DIT.transform,
        {"h": torch.rand(1, 4, 12), "condition": torch.rand(1, 12), "grid": (1, 2, 2)},
    ),
    "kl_divergence": (autoencoder.kl_divergence, {"mean": X, "log_var": X}),
    "CausalBlock": (autoencoder.CausalBlock(4), {"h": torch.rand(1, 2, 3, 3, 4)}),
    "VideoEncoder": (autoencoder.VideoEncoder, {"out": 2, "width": 4, "depth": 1}),
    "VideoDecoder": (autoencoder.VideoDecoder, {"channels": 2, "width": 4, "depth": 1}),
}
WIDGETS = {
    "live",
    "answered",
    "kernel_loop",
    "message_line",
    "lost_line",
    "Canvas",
    "Sketch",
}  # tested by themselves
RECORDS = {"Clips", "TrainState", "Told", "VideoOutput"}
PLAIN = {
    "use_style",
    "pretrained_names",
    "random_tensor",
    "write_whole",
    "pack",
    "unpack",
}  # or files
CALLS |= {name: (call, good, 0.2, (Exception,)) for name, (call, good) in PARTS.items()}


def nonsense():
    """Values of every kind."""
    i64, c64 = torch.zeros(4, 2).long(), torch.zeros(4, 2).to(torch.complex64)
    return [
        *(None, True, False, math.nan, math.inf, -math.inf, 0, -1, 1, 2, 3, 7, 0.0, -0.5, 0.5, 1.5, 1e308, 1e-320),
        *(10**9, 10**12, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63), 10**40, 10**5000, -(10**5000), -1e-9, 1j),
        *(Decimal("NaN"), Decimal(3), Fraction(1, 3), np.float64(0.5), np.int64(3), np.bool_(True)),
        *("", " ", "a one", "eps", "v", "one", "red", "train", "naïve 数字 📹", "\0", "a\0one", "\ud800", "x" * 10**5),
        *(b"", b"a one", bytes(1000), bytearray(b"x"), memoryview(b"x")),
        *([], [1], [None], [[]], [X], ["a one"], [math.nan], (), (1, 2), (0, 0, 0), (1, 1, 1), (1, -1, 1), (1, 1, 1.5)),
        *((10**12, 1, 1), (2**40, 2**40, 2**40), ("1", "2", "2"), [1, 2, 2], {}, {"a": 1}, {"color": X}, set(), {1}),
        *(range(3), range(10**12), iter([1]), (i for i in [X]), itertools.count(), itertools.repeat("one"), zip()),
        *(len, lambda: None, lambda *_: None, lambda x, *_: x, lambda *_: X.half(), lambda *_: 1.0),
        *(int, type, list, ValueError, ValueError("x"), object(), ..., NotImplemented, math, Path("x"), s.Cosine, FLOW),
        *(hostile("__len__", no), hostile("__len__", lambda: -1), hostile("__len__", lambda: 10**30)),
        *(hostile("__iter__", no), hostile("__iter__", lambda: itertools.count()), hostile("__iter__", lambda: 3)),
        *(hostile("__eq__", no), hostile("__eq__", lambda: True), hostile("__bool__", no)),
        *(hostile("__bool__", lambda: 3), hostile("__hash__", no), hostile("__index__", lambda: 3)),
        *(hostile("__repr__", lambda: None), hostile("__repr__", lambda: "x" * 10**6), hostile("__repr__", no)),
        *(hostile("__getattr__", no), hostile("__getattr__", lambda: None), hostile("__call__", lambda: None)),
        *(torch.zeros(0), torch.zeros(0, 2), torch.zeros(4), torch.zeros(4, 2), torch.zeros(4, 3), X[None]),
        *(torch.tensor(0.5), torch.tensor(math.nan), torch.zeros(1), torch.zeros([1] * 9), torch.zeros(2, 3, 5, 8, 8)),
        *(i64, torch.ones(4).int(), torch.ones(4).bool(), c64, X.expand(3, 4, 2), X.T, X.to_sparse(), X.to("meta")),
        *(torch.nn.Parameter(X), X.to_mkldnn(), X.to_sparse_csr(), np.zeros([4, 2]), np.zeros(0), np.array("a one")),
        *(np.array([None, "x"]), np.zeros(2, dtype="f4,i4"), torch.Generator(), torch.device("cpu"), torch.float32),
        *(MLP, Thing("one"), Told(1, 2, 3)),
    ]


SPOILS = {  # what makes a bad value of a good one, by its type
    torch.Tensor: [
        *(torch.Tensor.half, torch.Tensor.bfloat16, torch.Tensor.double, torch.Tensor.long, torch.Tensor.bool),
        *(torch.Tensor.tolist, torch.Tensor.flatten, torch.Tensor.to_sparse, torch.Tensor.numpy),
        *(lambda x: x.to(torch.complex64), lambda x: x.to("meta"), lambda x: x[None], lambda x: x[:0]),
        *(lambda x: x[:1], lambda x: x[1:], lambda x: x[..., :1], lambda x: x[..., None], lambda x: torch.cat([x, x])),
        *(lambda x: x * math.nan, lambda x: x / 0, lambda x: -x, lambda x: x * 1e30, lambda x: x * 1e-40),
        *(lambda x: x + 100, lambda x: x * 0, lambda x: x.transpose(0, -1), lambda x: x.float() + 0.5),
        *(lambda x: x.float().clone().requires_grad_(), lambda x: x.to(torch.float8_e4m3fn)),
        *(lambda x: x.to(torch.uint8), lambda x: x.expand(2, *x.shape), lambda x: torch.nested.nested_tensor([x, x])),
        lambda x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8),
    ],
    (bool, int, float): [
        *(lambda x: -x, lambda x: x - 1, lambda x: x + 1, lambda x: 2 * x, lambda x: x / 2, lambda x: x + 0.5),
        *(str, lambda x: [x], lambda x: 1 - x),
    ],
    str: [
        *(str.upper, str.encode, lambda x: x[:-1], lambda x: x[0] + "\0" + x[1:], lambda x: 30 * x),
        *(lambda x: [x], lambda x: x + " "),
    ],
    (list, tuple): [lambda x: x[:-1], lambda x: [*x, *x], lambda x: [x], iter, lambda x: set, lambda x: 50 * x],
    dict: [lambda x: {}, list, lambda x: x | {"one more": 1}, lambda x: {1: 2}],
}


def spoiled(value, rng, pool):
    """A value near to a good one; of a list or a dict, often with one bad item."""
    changes = next((changes for kinds, changes in SPOILS.items() if isinstance(value, kinds)), None)
    if isinstance(value, (list, tuple, dict)) and value and rng.random() < 0.5:
        items = dict(value) if isinstance(value, dict) else dict(enumerate(value))
        key = rng.choice(list(items))
        items[key] = rng.choice([spoiled(items[key], rng, pool), rng.choice(pool)])
        return items if isinstance(value, dict) else type(value)(items.values())
    return rng.choice(changes)(value) if changes else rng.choice(pool)


def finish(result):
    """Ask a function that was returned, so that nothing bad lies hidden in it."""
    if callable(result) and not isinstance(result, torch.nn.Module):
        result(X, T)


class Hang(BaseException):
    pass


@contextlib.contextmanager
def limits():
    """An alarm for hanging calls, and little memory: where the system has them."""

    def alarm(*_):
        raise Hang

    with contextlib.ExitStack() as stack:
        if hasattr(signal, "SIGALRM"):
            stack.callback(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, alarm))
            stack.callback(signal.alarm, 0)
        if sys.platform == "linux":
            import resource

            pages = int(Path("/proc/self/statm").read_text().split()[0])
            before = resource.getrlimit(resource.RLIMIT_AS)
            stack.callback(resource.setrlimit, resource.RLIMIT_AS, before)
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, before[1]))
        yield


def outcome(call, given, look=None):
    """What came of it: "accepted", or the error. `look` is called with the result."""
    if hasattr(signal, "SIGALRM"):
        signal.alarm(SECONDS)
    try:
        with redirect_stdout(io.StringIO()):
            (look or finish)(call(**given))
    except (Exception, Hang) as error:
        return error
    return "accepted"


def cases(name):
    """The bad arguments for one function: each time, one to three of them are replaced."""
    call, good, share, allowed = CALLS[name]
    pool, shares = nonsense(), sum(entry[2] for other, entry in CALLS.items() if other not in PARTS)
    for i in range(math.ceil(CASES * share / shares)):
        rng, bad = random.Random(f"{name} {i}"), {}
        for argument in rng.sample(list(good), min(len(good), rng.choice([1, 1, 1, 2, 3]))):
            bad[argument] = rng.choice(pool)
            if rng.random() < 0.5:
                with contextlib.suppress(RuntimeError, TypeError, NotImplementedError, IndexError, OverflowError):
                    bad[argument] = spoiled(good[argument], rng, pool)  # where there is such a tensor
        yield call, good | bad, bad, allowed


def test_every_public_name_is_there():
    names = set()
    for module in pkgutil.iter_modules(s.__path__):
        if module.name not in ("__main__", "validate", "checks"):
            there = importlib.import_module(f"sora_lib.{module.name}")
            own = [(name, value) for name, value in vars(there).items() if name[0] != "_" and callable(value)]
            names |= {name for name, value in own if getattr(value, "__module__", "") == there.__name__}
    called = {name.split(",")[0].split(".")[0].removesuffix("()") for name in CALLS}
    assert names - called == WIDGETS | RECORDS | PLAIN


def test_the_good_calls_are_good():
    refuse = {"MiniSoraPipeline.from_pretrained", "animation", "save_checkpoint", "load_checkpoint"}  # cheaply
    for name in CALLS.keys() - refuse:
        call, good, *_ = CALLS[name]
        finish(call(**good))


def test_bad_arguments_are_refused_with_a_documented_error(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    seen, strict, faults = Counter(), 0, []
    with limits(), warnings.catch_warnings(), torch.random.fork_rng(), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        for name in CALLS:
            for call, given, bad, allowed in cases(name):
                came = outcome(call, given)
                seen[came if isinstance(came, str) else type(came).__name__] += 1
                strict += name not in PARTS
                if not isinstance(came, (str, *allowed)):
                    faults.append(f"{name} with {validate.shown(bad)}: {type(came).__name__}")
    print(f"{seen.total()} cases: {dict(seen.most_common())}")
    assert strict >= CASES and not faults, "\n".join(faults)


# --- Prompts

PROMPTS = 2_000


def prompt(rng):
    """Words of the grammar in any order, spoiled captions, odd letters, and now and then a megabyte of something."""
    caption = text.describe(datasets.random_scene(rng.choice([1, 2]), combinations="all"), synonyms=True)
    words, where = caption.split(), rng.randrange(len(caption))
    odd = chr(rng.choice([rng.randrange(32), rng.randrange(0xD800), rng.randrange(0xD800, 0x11_0000)]))
    kind = rng.randrange(8 if rng.random() < 0.995 else 12)
    if kind < 3:
        return " ".join(rng.choices(text.WORDS, k=rng.randrange(text.LONGEST + 3)))
    if kind < 5:
        rng.shuffle(words)
        return " ".join(words[: rng.randrange(1, len(words) + 1)])
    if kind < 8:
        put = rng.choice([odd, "", "a", " ", ", ", "-", caption])
        return caption[:where] + put + caption[where + rng.randrange(2) :]
    return {8: "x", 9: "a ", 10: odd, 11: caption + " "}[kind] * (10**6 // rng.choice([1, len(caption)]))


def test_a_prompt_gives_a_scene_or_says_what_is_wrong():
    seen = Counter()
    with limits(), torch.random.fork_rng():
        torch.manual_seed(0)
        for i in range(PROMPTS):
            given = prompt(random.Random(f"prompt {i}"))
            came = outcome(text.parse, {"caption": given}, look=lambda scene, given=given: reads_back(scene, given))
            seen[came if isinstance(came, str) else type(came).__name__] += 1
            if came != "accepted":
                assert type(came) is ValueError, (given[:200], came)
                says_what_is_wrong(str(came), given)
    print(f"{seen.total()} prompts: {dict(seen)}")
    assert seen.total() == PROMPTS and min(seen["accepted"], seen["ValueError"]) > PROMPTS / 10


def reads_back(scene, given):
    """The scene has all subjects and colours that the prompt names, and its own caption means the same."""
    words = given.lower().replace(",", " ").replace(".", " ").replace("-", " ").split()
    for kind in ("subject", "color"):
        named = {value for value in text.KINDS[kind] for word in text.SYNONYMS[value] if word in words}
        assert named == {value for thing in scene if (value := getattr(thing, kind))}
    assert 1 <= len(scene) <= 2 and text.parse(text.describe(scene)) == scene


def says_what_is_wrong(message, given):
    """A message of modest length that names the word which does not fit, and what fits."""
    assert message.startswith("prompt") and len(message) < 900
    words = given.lower().replace(",", " ").replace(".", " ").replace("-", " ").split()
    unknown = next((word for word in words if word not in text.TOKENS), None)
    if unknown is not None and len(words) <= text.LONGEST:
        assert f"{unknown!r:.40}" in message and ("did you mean" in message or "the model knows" in message)


# --- Files

FILES = 1_000  # three quarters of them checkpoints, the others shipped weights


def split(content):
    size = int.from_bytes(content[:8], "little")
    return content[8 : 8 + size], content[8 + size :]


def join(header, rest):
    return len(header).to_bytes(8, "little") + header + rest


def renamed(header, rng):
    """The header with something wrong in it, as text: JSON that is right in form, or not even that."""
    entries = json.loads(header)
    names = [name for name in entries if name != "__metadata__"]
    name, other = rng.sample(names, 2)
    entry = entries[name]
    change = rng.randrange(30)
    if change == 0:  # a name twice
        return header.replace(json.dumps(other).encode(), json.dumps(name).encode(), 1)
    if change == 1:
        return header.replace(b"{", b"{" * 10_000, 1)
    if change == 2:
        return header.replace(name[:3].encode(), b"\xff\xfe", 1)
    if change == 3:
        return rng.choice([b"", b"{}", b"[]", b"null", b"[" * 100_000, b'{"__metadata__": 3}', b" " * 1000])
    if change == 4:  # tensors exchanged
        entries[name], entries[other] = entries[other], entries[name]
    elif change == 5:
        del entries[name]
    elif change == 6:
        entries[name + "x"] = entries.pop(name)
    elif change == 7:  # overlapping
        entry["data_offsets"] = entries[other]["data_offsets"]
    elif change == 8:
        entry["data_offsets"] = rng.choice([[0, 2**63], [-4, 0], [8, 4], [], "0", [0.0, 4.0], None, [2**64, 2**65]])
    elif change == 9:
        entry["shape"] = rng.choice([[10**12], [2**32, 2**32], [-1], [2**63], [], None, "4", [0], entry["shape"][::-1]])
    elif change == 10:
        entry["dtype"] = rng.choice(["F16", "I32", "F64", "F99", "BOOL", None, 3, "U8", "F8_E4M3", "C64"])
    elif change == 11:
        entries["__metadata__"] = rng.choice([{}, None, {"format": 1}, {"format": "sora_lib training run 1"}, [], "x"])
    else:
        meta = entries.setdefault("__metadata__", {})
        key = rng.choice(["counts", "counts", "metadata", "format", "sha256"])
        counts = json.loads(meta.get("counts", "{}"))
        counts[rng.choice(["step", "ema_updates", "ema_decay", "muon"])] = rng.choice(
            [-1, 10**30, 1.5, "3", None, [], {}, True, math.nan, math.inf, 2]
        )
        wrong = rng.choice(["", "{}", "[]", "[1]", "3", "null", "{", "[" * 100_000, '"x"', "\0", "\ud800"])
        meta[key] = json.dumps(counts) if key == "counts" and rng.random() < 0.8 else wrong
    return json.dumps(entries, separators=(",", ":")).encode()


def altered(content, rng):
    """A file with a fault: bits, length, the length of its header, or what the header says."""
    kind, at = rng.randrange(8), rng.randrange(len(content))
    if kind == 0:
        at = rng.choice([at, rng.randrange(min(3000, len(content)))])
        return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    if kind == 1:
        return content[: rng.choice([at, at % 100, len(content) - 1])]
    if kind == 2:
        return content[:at] + rng.randbytes(rng.choice([1, 8, 1000])) + content[at + rng.choice([0, 1, 8]) :]
    if kind == 3:
        right = int.from_bytes(content[:8], "little")
        size = rng.choice([0, 1, right - 1, right + 1, right + 8, len(content), 10**8, 2**31, 2**63, 2**64 - 1])
        return size.to_bytes(8, "little") + content[8:]
    header, rest = split(content)
    return join(renamed(header, rng), rest if rng.random() < 0.9 else rest[:-4])


def signed(content):
    """The file with its own checksum made right again, where it still has a place for one."""
    at = content.find(b'"sha256":"')
    if at < 0:
        return content
    blank = content[: at + 10] + b"0" * 64 + content[at + 74 :]
    return content[: at + 10] + hashlib.sha256(blank).hexdigest().encode() + content[at + 74 :]


def everything(state, metadata):
    """All that a run holds, to compare: numbers, bytes, names."""
    nets = [{k: v.numpy().tobytes() for k, v in net.state_dict().items()} for net in (state.model, state.ema.model)]
    memory = [
        {name: value.numpy().tobytes() for name, value in optimizer.state[weight].items()}
        for optimizer in state.optimizers.values()
        for weight in state.model.parameters()
    ]
    counts = state.step, state.ema.updates, state.ema.decay, state.generator.get_state().tolist()
    return nets, memory, list(state.optimizers), counts, metadata


def test_an_altered_checkpoint_is_refused_and_changes_nothing(tmp_path, one_thread):
    torch.manual_seed(0)
    model, path = s.MLPDenoiser(width=4, depth=1, time_dim=4), tmp_path / "run"
    *_, (_, _, state) = s.train(model, itertools.repeat(X), FLOW, steps=2)
    s.save_checkpoint(path, state, note="a", lr=0.1)
    content, wanted = path.read_bytes(), everything(state, {"note": "a", "lr": 0.1})
    seen, faults = Counter(), []
    with limits():
        for i in range(3 * FILES // 4):
            rng = random.Random(f"file {i}")
            spoiled_file, mended_sum = altered(content, rng), i % 3 == 0  # a wrong file with a right checksum
            path.write_bytes(signed(spoiled_file) if mended_sum else spoiled_file)
            fresh = s.MLPDenoiser(width=4, depth=1, time_dim=4)
            before = {name: value.clone() for name, value in fresh.state_dict().items()}
            loaded = []
            came = outcome(s.load_checkpoint, {"path": path, "model": fresh}, look=loaded.append)
            seen[came if isinstance(came, str) else type(came).__name__] += 1
            if came == "accepted":
                read, note = loaded[0]
                good = type(read.step) is int and read.step >= 0 and isinstance(note, dict)  # whatever the sum says
                good &= mended_sum or everything(read, note) == wanted
            else:
                good = type(came) is ValueError
                good &= all(torch.equal(before[name], value) for name, value in fresh.state_dict().items())
            faults += [] if good else [f"file {i}: {type(came).__name__} {came}"]
    print(f"{seen.total()} checkpoints: {dict(seen)}")
    assert not faults, "\n".join(faults)
    assert seen["ValueError"] > FILES / 2


def altered_card(card, rng):
    """The text of a card with a fault."""
    content = json.dumps(card).encode()
    kind, at = rng.randrange(4), rng.randrange(len(content))
    if kind == 0:
        return content[:at] + rng.choice([b"", b"\xff", b"{", b"0", b'"']) + content[at + rng.randrange(3) :]
    if kind == 1:
        return rng.choice([b"", b"[]", b"3", b"null", b'"x"', b"[" * 100_000, b'{"a":' * 100_000, b"NaN", content * 2])
    wrong = rng.choice([None, 3, "x", [], {}, {"width": 10**9}, {"width": -1}, {"width": "2"}, {"x": 1}, [2, 3], True])
    return json.dumps(card | {rng.choice(["class", "arguments", "sha256"]): wrong}).encode()


def test_altered_weights_and_cards_are_refused(tmp_path, monkeypatch, one_thread):
    name, seen, faults = "digit-probe", Counter(), []
    card, content = pretrained.read_card(name), (pretrained.FOLDER / f"{name}.safetensors").read_bytes()
    wanted = pretrained.load_pretrained(name).state_dict()
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    with limits():
        for i in range(FILES // 4):
            rng, kind = random.Random(f"weights {i}"), i % 3  # bytes, bytes with a card that fits them, the card
            weights = content if kind == 2 else altered(content, rng)
            right = card | ({"sha256": hashlib.sha256(weights).hexdigest()} if kind == 1 else {})
            (tmp_path / f"{name}.safetensors").write_bytes(weights)
            described = altered_card(card, rng) if kind == 2 else json.dumps(right).encode()
            (tmp_path / f"{name}.json").write_bytes(described)
            loaded = []
            came = outcome(pretrained.load_pretrained, {"name": name}, look=loaded.append)
            seen[came if isinstance(came, str) else type(came).__name__] += 1
            if came == "accepted":
                there = loaded[0].state_dict()
                good = kind == 1 or all(torch.equal(there[key], value) for key, value in wanted.items())
            else:
                good = type(came) is ValueError
            faults += [] if good else [f"weights {i}: {type(came).__name__} {came}"]
    print(f"{seen.total()} weights and cards: {dict(seen)}")
    assert not faults, "\n".join(faults)
    assert seen["ValueError"] > FILES / 8


# --- The command line


def test_the_command_answers_every_line_in_one(tmp_path, monkeypatch, capsys, one_thread):
    small = pipeline.MiniSoraPipeline(SORA, CODEC)
    monkeypatch.setattr(pipeline.MiniSoraPipeline, "from_pretrained", classmethod(lambda cls: small))
    monkeypatch.chdir(tmp_path)
    Path("folder.png").mkdir()
    values = ["", "9" * 25, "0", "1", "5", "32", "40", "-1", "-8", "1e9", "1" * 12, "nan", "inf", "x", "0x10", "٣"]
    prompts = ["a one", "a red seven", "", "a dog", "-1", "--", "one\ntwo", "\udcff", "a" * 10**5, "数字", "a\0one"]
    outs = ["a.png", "b.PNG", "", "a\nb.gif", "\udcff.png", "a" * 300 + ".png"]
    outs += [".", ".png", "no/a.png", "a.gif", "folder.png"]
    options = ["--frames", "--height", "--width", "--steps", "--guidance", "--seed", "--zoom"]
    seen, faults = Counter(), []
    with limits():
        for i in range(80):
            rng = random.Random(f"line {i}")
            line = [rng.choice(prompts[:2] if i % 2 else prompts), "--out", rng.choice(outs[:2] if i % 2 else outs)]
            line += ["--steps", "1", "--frames", "1"] if rng.random() < 0.8 else []
            for option in rng.sample(options, rng.choice([0, 1, 2])):
                line += [option, rng.choice(values)]
            line += rng.choice([[], [], [], ["--no-such"], ["more"], ["--help"]])
            monkeypatch.setattr(sys, "argv", ["sora_lib", *line])
            code = command()
            said = capsys.readouterr().err.strip().splitlines()
            seen[code if isinstance(code, int) else type(code).__name__] += 1
            one_line = code == 2 and "error: " in said[-1] and (len(said) == 1 or said[0].startswith("usage: "))
            faults += [] if code == 0 or one_line else [f"{validate.shown(line)}: {code!r}, {said}"]
    print(f"{seen.total()} command lines: {dict(seen)}")
    assert not faults, "\n".join(faults)
    assert min(seen[0], seen[2]) > 5


def command():
    """The exit code of the command, or what it raised."""
    signal.alarm(SECONDS) if hasattr(signal, "SIGALRM") else None
    try:
        return program.main()
    except SystemExit as end:
        return end.code
    except Exception as error:
        return error
