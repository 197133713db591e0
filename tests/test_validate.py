"""Bad input to every public function: the exception's type, and a message that names the argument and what came."""

import importlib
import inspect
import math
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

import sora_lib as s
from sora_lib import autoencoder, datasets, explore, metrics, plotting, samplers, sketch, training, validate
from sora_lib.denoisers import TimeEmbedding
from sora_lib.mini_sora import MiniSora, Told, told
from sora_lib.text import TextEncoder, Thing, describe, parse, tokenize, words_of

FLOW, LINEAR, COSINE = s.RectifiedFlow(), s.LinearBeta(), s.Cosine()
X = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
T, NAN = torch.full([4], 0.5), torch.tensor([[math.nan, 0.0]] * 4)
LAW = s.GaussianMixture(torch.zeros(3, 2), 0.5)
SCHEDULES, SAMPLERS = [FLOW, LINEAR, COSINE], [s.ancestral, s.ddim, s.euler, s.heun]
INTS, EMPTY = torch.zeros(4, 2, dtype=torch.long), torch.zeros(0, 2)
VIDEO, TOKENS, ONE = torch.zeros(2, 3, 9, 8, 8), tokenize(["a one", None]), [[Thing("one", "red", "still")]]


def same(x_t, t):
    return x_t


def model():
    return s.MLPDenoiser(width=4, depth=1, time_dim=4)


def one_step(**changed):
    options = {"model": model(), "batches": [X], "schedule": FLOW, "steps": 1} | changed
    return next(s.train(options.pop("model"), options.pop("batches"), options.pop("schedule"), **options))


SORA = MiniSora(8, width=24, depth=1)


def sora(**changed):
    given = {"x_t": torch.zeros(4, 8, 1, 4, 4), "t": T} | vars(told(["a one", None] * 2, (1, 4, 4))) | changed
    return SORA(given.pop("x_t"), given.pop("t"), Told(**given))


# What a float tensor argument may not be, with what the message must hold beside the argument's name.
TENSORS = [
    ([[0.0, 1.0]], TypeError, "list"),
    (None, TypeError, "NoneType"),
    (INTS, TypeError, "int64"),
    (INTS.bool(), TypeError, "bool"),
    (X.to(torch.complex64), TypeError, "complex64"),
    (NAN, ValueError, "NaN"),
    (torch.full([4, 2], math.inf), ValueError, "infinity"),
    (EMPTY, ValueError, "empty"),
]
POINTS = [*TENSORS, (torch.zeros(4, 3), ValueError, r"\[4, 3\]"), (torch.zeros(4), ValueError, r"\[4\]")]
PATHS = [(v[None] if isinstance(v, torch.Tensor) else v, error, text) for v, error, text in TENSORS]
TIMES = [
    (torch.tensor([0.5, -0.1, 0.5, 0.5]), ValueError, "-0.1"),
    (torch.tensor([0.5, 1.1, 0.5, 0.5]), ValueError, "1.1"),
    (torch.tensor([0.5, math.nan, 0.5, 0.5]), ValueError, "NaN"),
    (torch.full([4, 1], 0.5), ValueError, r"\[4, 1\]"),
    (torch.tensor(0.5), ValueError, r"\[\]"),
    (torch.zeros(4, dtype=torch.long), TypeError, "int64"),
    (torch.zeros(0), ValueError, r"empty|\[0\]"),
    (0.5, TypeError, "float"),
]
LENGTH = [(torch.full([3], 0.5), ValueError, r"\[3\]")]  # another length than the batch
COUNTS = [
    (0, ValueError, "0"),
    (-3, ValueError, "-3"),
    (2.0, TypeError, "2.0"),
    (True, TypeError, "True"),
    ("ten", TypeError, "ten"),
    (None, TypeError, "None"),
]
GRIDS = [
    (torch.tensor([0.0, 0.5, 1.0]), ValueError, "decreasing"),
    (torch.tensor([1.0, 1.0, 0.0]), ValueError, "decreasing"),
    (torch.tensor([1.0]), ValueError, "at least two"),
    (torch.tensor([1.1, 0.0]), ValueError, "1.1"),
    (torch.tensor([1.0, -0.1]), ValueError, "-0.1"),
    (torch.tensor([1.0, math.nan]), ValueError, "NaN"),
    (torch.tensor([3, 2, 1]), TypeError, "int64"),
    (torch.ones(2, 2), ValueError, r"\[2, 2\]"),
]
NOT_SCHEDULES = [("cosine", TypeError, "cosine"), (None, TypeError, "None"), (s.Cosine, TypeError, "Cosine")]


VIDEOS = [
    (None, TypeError, "NoneType"),
    ([[0.0]], TypeError, "list"),
    (VIDEO.to(torch.uint8), TypeError, "uint8"),
    (VIDEO[0], ValueError, r"\[3, 9, 8, 8\]"),
    (VIDEO[:, :1], ValueError, r"\[2, 1, 9, 8, 8\]"),
    (VIDEO[:0], ValueError, "empty"),
    (VIDEO / 0, ValueError, "NaN"),
]
LATENTS = [
    *VIDEOS[:3],
    (torch.zeros(2, 8, 4, 4), ValueError, r"\[2, 8, 4, 4\]"),
    (torch.zeros(2, 7, 1, 4, 4), ValueError, r"\[2, 7, 1, 4, 4\]"),
    (torch.full([2, 8, 1, 4, 4], math.inf), ValueError, "infinity"),
]


def names(wrong):
    return [(wrong, ValueError, f"one of.*'{wrong}'"), (None, ValueError, "one of.*None"), (3, ValueError, "3")]


def number(*outside):
    wrong = [
        (math.nan, ValueError, "nan"),
        ("1", TypeError, "'1'"),
        (None, TypeError, "None"),
        (True, TypeError, "True"),
    ]
    return [*wrong, *((value, ValueError, str(value)) for value in outside)]


# (public name, argument, a call with that argument, what it may not be)
TABLE = [
    # schedules
    *[
        (f"{type(c).__name__}.{curve}", "t", getattr(c, curve), TIMES)
        for c in SCHEDULES
        for curve in ("alpha", "sigma", "alpha_dot", "sigma_dot", "snr")
    ],
    *[("add_noise", "x0", lambda a, c=c: c.add_noise(a, T, X), TENSORS) for c in SCHEDULES],
    ("add_noise", "eps", lambda a: FLOW.add_noise(X, T, a), POINTS),
    ("add_noise", "t", lambda a: FLOW.add_noise(X, a, X), TIMES + LENGTH),
    ("LinearBeta", "steps", lambda a: s.LinearBeta(a), COUNTS),
    ("LinearBeta", "beta_start", lambda a: s.LinearBeta(10, a), number(0, -0.1, 1.0)),
    ("LinearBeta", "beta_end", lambda a: s.LinearBeta(10, 1e-4, a), number(0, -0.1, 1.0)),
    ("Cosine", "s", lambda a: s.Cosine(a), number(-0.1, 2.0)),
    ("convert", "prediction", lambda a: s.convert(a, X, T, FLOW, source="eps", target="x0"), POINTS),
    ("convert", "x_t", lambda a: s.convert(X, a, T, FLOW, source="eps", target="x0"), TENSORS),
    ("convert", "t", lambda a: s.convert(X, X, a, FLOW, source="eps", target="x0"), TIMES + LENGTH),
    ("convert", "schedule", lambda a: s.convert(X, X, T, a, source="eps", target="x0"), NOT_SCHEDULES),
    ("convert", "source", lambda a: s.convert(X, X, T, FLOW, source=a, target="x0"), names("noise")),
    ("convert", "target", lambda a: s.convert(X, X, T, FLOW, source="x0", target=a), names("velocity")),
    # oracle
    (
        "GaussianMixture",
        "means",
        lambda a: s.GaussianMixture(a, 0.5),
        [*TENSORS, (torch.zeros(3), ValueError, r"\[3\]")],
    ),
    ("GaussianMixture", "std", lambda a: s.GaussianMixture(X, a), number(0, -1.0, math.inf)),
    (
        "GaussianMixture",
        "weights",
        lambda a: s.GaussianMixture(X, 0.5, a),
        [
            (torch.full([3], 1 / 3), ValueError, r"\[3\]"),
            (torch.full([4], 0.5), ValueError, "sum to 1"),
            (torch.tensor([0.5, 0.5, 0.5, -0.5]), ValueError, "positive"),
            (torch.tensor([1.0, 0.0, 0.0, 0.0]), ValueError, "positive"),
            (torch.full([4], math.nan), ValueError, "NaN"),
            ([0.25] * 4, TypeError, "list"),
        ],
    ),
    ("GaussianMixture.sample", "n", LAW.sample, COUNTS),
    ("GaussianMixture.denoiser", "schedule", LAW.denoiser, NOT_SCHEDULES),
    ("GaussianMixture.denoiser()", "x_t", lambda a: LAW.denoiser(FLOW)(a, T), POINTS),
    ("GaussianMixture.denoiser()", "t", lambda a: LAW.denoiser(FLOW)(X, a), TIMES + LENGTH),
    ("GaussianMixture.responsibilities", "x_t", lambda a: LAW.responsibilities(a, T, FLOW), POINTS),
    ("GaussianMixture.responsibilities", "t", lambda a: LAW.responsibilities(X, a, FLOW), TIMES + LENGTH),
    ("EmpiricalDenoiser", "data", lambda a: s.EmpiricalDenoiser(a, FLOW), TENSORS),
    ("EmpiricalDenoiser", "schedule", lambda a: s.EmpiricalDenoiser(X, a), NOT_SCHEDULES),
    ("EmpiricalDenoiser()", "x_t", lambda a: s.EmpiricalDenoiser(X, FLOW)(a, T), POINTS),
    ("EmpiricalDenoiser()", "t", lambda a: s.EmpiricalDenoiser(X, FLOW)(X, a), TIMES + LENGTH),
    # samplers
    *[(f.__name__, "schedule", lambda a, f=f: f(same, a, X, 2), NOT_SCHEDULES) for f in SAMPLERS],
    *[(f.__name__, "x_start", lambda a, f=f: f(same, FLOW, a, 2), TENSORS) for f in SAMPLERS],
    *[(f.__name__, "steps", lambda a, f=f: f(same, FLOW, X, a), COUNTS + GRIDS) for f in SAMPLERS],
    *[(f.__name__, r"denoise\(x_t, t\)", lambda a, f=f: f(lambda *_: a, FLOW, X, 2), POINTS) for f in SAMPLERS],
    ("ddim", "eta", lambda a: s.ddim(same, FLOW, X, 2, eta=a), number(-0.1, 1.1)),
    # denoisers
    ("MLPDenoiser", "dim", lambda a: s.MLPDenoiser(dim=a), COUNTS),
    ("MLPDenoiser", "width", lambda a: s.MLPDenoiser(width=a), COUNTS),
    ("MLPDenoiser", "depth", lambda a: s.MLPDenoiser(depth=a), COUNTS),
    ("MLPDenoiser", "time_dim", lambda a: s.MLPDenoiser(time_dim=a), [*COUNTS, (7, ValueError, "even.*7")]),
    ("TimeEmbedding", "time_dim", TimeEmbedding, [(1, ValueError, "1"), (33, ValueError, "33")]),
    ("MLPDenoiser()", "x_t", lambda a: model()(a, T), POINTS),
    ("MLPDenoiser()", "t", lambda a: model()(X, a), TIMES + LENGTH),
    ("as_denoiser", "prediction", lambda a: s.as_denoiser(model(), FLOW, a), names("noise")),
    ("as_denoiser", "schedule", lambda a: s.as_denoiser(model(), a), NOT_SCHEDULES),
    # training
    ("denoising_loss", "x0", lambda a: s.denoising_loss(model(), a, T, X, FLOW), TENSORS),
    ("denoising_loss", "t", lambda a: s.denoising_loss(model(), X, a, X, FLOW), TIMES + LENGTH),
    ("denoising_loss", "eps", lambda a: s.denoising_loss(model(), X, T, a, FLOW), POINTS),
    ("denoising_loss", "schedule", lambda a: s.denoising_loss(model(), X, T, X, a), NOT_SCHEDULES),
    ("denoising_loss", "prediction", lambda a: s.denoising_loss(model(), X, T, X, FLOW, a), names("score")),
    (
        "denoising_loss",
        "the model's output",
        lambda a: wide_loss(a),
        [(3, ValueError, r"\[4, 2\], got \[4, 3\]"), (1, ValueError, r"\[4, 1\]")],
    ),
    ("EMA", "decay", lambda a: s.EMA(model(), a), number(-0.1, 1.0)),
    ("train", "steps", lambda a: one_step(steps=a), COUNTS),
    ("train", "prediction", lambda a: one_step(prediction=a), names("score")),
    ("train", "lr", lambda a: one_step(lr=a), number(-1e-3, 11)),
    ("train", "ema", lambda a: one_step(ema=a), number(-0.1, 1.0)),
    ("train", "schedule", lambda a: one_step(schedule=a), NOT_SCHEDULES),
    ("train", "batches", lambda a: one_step(batches=a), [(5, TypeError, "int"), (None, TypeError, "NoneType")]),
    (
        "train",
        "times",
        lambda a: one_step(times=a),
        [("uniform", TypeError, "'uniform'"), (None, TypeError, "None"), (T, TypeError, "tensor")],
    ),
    ("logit_normal_times", "mean", training.logit_normal_times, number(-11, 11)),
    ("logit_normal_times", "std", lambda a: training.logit_normal_times(0, a), number(0, 11)),
    ("train", "a batch", lambda a: one_step(batches=[a]), TENSORS[:1] + TENSORS[2:]),
    # metrics, datasets
    (
        "sliced_wasserstein",
        "a",
        lambda a: s.sliced_wasserstein(a, X),
        [*TENSORS, (torch.zeros(3), ValueError, r"\[3\]")],
    ),
    ("sliced_wasserstein", "b", lambda a: s.sliced_wasserstein(X, a), POINTS),
    ("sliced_wasserstein", "directions", lambda a: s.sliced_wasserstein(X, X, directions=a), COUNTS),
    ("real_floor", "pairs", lambda a: s.real_floor(lambda: X, pairs=a), COUNTS),
    ("points", "name", s.points, names("spiral")),
    ("digits", "part", s.digits, names("valid")),
    ("guided", "scale", lambda a: s.guided(same, same, a), [(-0.1, ValueError, "-0.1"), ("3", TypeError, "'3'")]),
    ("drawing", "xy", datasets.drawing, POINTS),
    ("shape", "name", sketch.shape, names("circle")),
    # the world and its captions
    ("random_scene", "things", datasets.random_scene, [*COUNTS, (3, ValueError, "3")]),
    ("random_scene", "combinations", lambda a: datasets.random_scene(combinations=a), names("test")),
    (
        "random_scene",
        "subjects",
        lambda a: datasets.random_scene(subjects=a),
        [((), ValueError, r"\(\)"), (("one", "ten"), ValueError, "ten"), ("one", TypeError, "'one'")],
    ),
    ("film", "frames", lambda a: datasets.film(ONE, frames=a), COUNTS),
    ("film", "height", lambda a: datasets.film(ONE, height=a), [*COUNTS, (31, ValueError, "31 and 32")]),
    ("film", "width", lambda a: datasets.film(ONE, width=a), [*COUNTS, (31, ValueError, "32 and 31")]),
    ("film", "part", lambda a: datasets.film(ONE, part=a), names("valid")),
    (
        "film",
        "captions",
        lambda a: datasets.film(ONE, captions=a),
        [([], ValueError, "0"), (["a", "b"], ValueError, "2")],
    ),
    (
        "film",
        "scenes",
        datasets.film,
        [
            ([], ValueError, r"\[\]"),
            ([[]], ValueError, r"\[0\]"),
            ([*ONE, 2 * ONE[0]], ValueError, r"\[1, 2\]"),
            ([[Thing("one", "red")]], ValueError, "direction.*None"),
            ([[Thing("one", "red", "up")]], ValueError, "speed.*None"),
        ],
    ),
    ("Thing", "subject", Thing, names("ten")),
    ("Thing", "color", lambda a: Thing("one", a), names("pink")[:1]),
    ("describe", "scene", describe, [([], ValueError, "0"), (3 * ONE[0], ValueError, "3")]),
    *[
        (f.__name__, "prompt", f, [("", ValueError, "empty"), ("a dog", ValueError, "'dog'"), (1, TypeError, "int")])
        for f in (parse, words_of)
    ],
    ("tokenize", "captions", tokenize, [("a one", TypeError, "'a one'")]),
    ("tokenize", "prompt", tokenize, [([""], ValueError, "empty"), ([1], TypeError, "int")]),
    *[
        ("TextEncoder", name, lambda a, name=name: TextEncoder(**{name: a}), COUNTS[name == "depth" :])
        for name in ("width", "depth", "heads")
    ],
    ("TextEncoder", "width", TextEncoder, [(4, ValueError, "4"), (129, ValueError, "129")]),
    (
        "TextEncoder()",
        "tokens",
        TextEncoder(24),
        [
            (TOKENS.float(), TypeError, "whole numbers"),
            (TOKENS[0], TypeError, "whole numbers"),
            (TOKENS[:0], TypeError, "whole numbers"),
            (["a one"], TypeError, "'a one'"),
            (TOKENS - 1, ValueError, "-1"),
            (TOKENS + 99, ValueError, "99"),
        ],
    ),
    # video: measures, autoencoder, transformer
    ("centroids", "video", metrics.centroids, VIDEOS),
    (
        "motion_error",
        "video",
        lambda a: metrics.motion_error(a, torch.zeros(2, 2)),
        [*VIDEOS, (VIDEO[:, :, :1], ValueError, "got 1")],
    ),
    (
        "motion_error",
        "velocities",
        lambda a: metrics.motion_error(VIDEO, a),
        [
            (torch.zeros(2), ValueError, r"\[2\]"),
            (torch.zeros(3, 2), ValueError, r"\[3, 2\]"),
            (0.5, TypeError, "float"),
        ],
    ),
    ("motion_error", "steps", lambda a: metrics.motion_error(VIDEO, torch.zeros(2, 2), a), COUNTS),
    ("VideoProbe()", "video", metrics.VideoProbe({"color": 6}, 2).eval(), VIDEOS),
    *[
        (name, "x", call, [*VIDEOS, (VIDEO[:, :, :6], ValueError, "got 6"), (VIDEO[..., 2:], ValueError, "8 and 6")])
        for name, call in {
            "check_video": autoencoder.check_video,
            "VideoAutoencoder.encode": autoencoder.VideoAutoencoder(2, 4, 1).encode,
        }.items()
    ],
    ("VideoAutoencoder.decode", "z", autoencoder.VideoAutoencoder(8, 4, 1).decode, LATENTS),
    ("VideoAutoencoder", "channels", autoencoder.VideoAutoencoder, COUNTS),
    ("VideoAutoencoder", "width", lambda a: autoencoder.VideoAutoencoder(8, a), [*COUNTS, (7, ValueError, "7")]),
    ("VideoAutoencoder", "depth", lambda a: autoencoder.VideoAutoencoder(8, 4, a), COUNTS[1:]),
    *[
        ("MiniSora", name, lambda a, name=name: MiniSora(**{name: a}), COUNTS)
        for name in ("channels", "width", "depth", "heads")
    ],
    ("MiniSora()", "x_t", lambda a: sora(x_t=a), LATENTS),
    ("MiniSora()", "t", lambda a: sora(t=a), TIMES + LENGTH),
    ("MiniSora()", "told.known", lambda a: sora(known=a), LATENTS),
    (
        "MiniSora()",
        "told.mask",
        lambda a: sora(mask=a),
        [
            (torch.zeros(2), ValueError, r"\[2\]"),
            (torch.zeros(2, 2), ValueError, r"\[2, 2\]"),
            (None, TypeError, "None"),
        ],
    ),
    ("MiniSora()", "told.tokens", lambda a: sora(tokens=a), [(TOKENS[:1], ValueError, "got 1")]),
    ("MiniSora()", "tokens", lambda a: sora(tokens=a), [(torch.ones(4, 9), TypeError, "whole numbers")]),
    # plotting, explore (the scrubber's and the board's own tests hold the rest)
    ("plot_points", "x", lambda a: plotting.plot_points(plt.gca(), a), POINTS),
    ("plot_points", "kind", lambda a: plotting.plot_points(plt.gca(), X, a), names("blue")),
    ("plot_paths", "trajectory", lambda a: plotting.plot_paths(plt.gca(), a), [*PATHS, (X, ValueError, r"\[4, 2\]")]),
    ("plot_paths", "kind", lambda a: plotting.plot_paths(plt.gca(), X[None], a), names("blue")),
    ("plot_field", "kind", lambda a: plotting.plot_field(plt.gca(), lambda x: x, a), names("blue")),
    (
        "plot_field",
        "cells",
        lambda a: plotting.plot_field(plt.gca(), lambda x: x, cells=a),
        [*COUNTS, (1, ValueError, "1")],
    ),
    ("figure_png", "colors", lambda a: plotting.figure_png(plt.gcf(), a), COUNTS[:4]),
    ("render_frames", "count", lambda a: plotting.render_frames(lambda ax, i: None, a), COUNTS),
    ("animation", "milliseconds", lambda a: plotting.animation(FRAME, "x", milliseconds=a), COUNTS),
    ("animation", "frames", lambda a: plotting.animation(a, "x"), [([], ValueError, "empty")]),
    ("video_png", "video", plotting.video_png, VIDEOS),
    *[
        ("video_png", name, lambda a, name=name: plotting.video_png(VIDEO[:, :, :1], **{name: a}), COUNTS)
        for name in ("columns", "zoom", "milliseconds")
    ],
    (
        "film_strip",
        "video",
        lambda a: plotting.film_strip(plt.gca(), a),
        [*VIDEOS[:3], (VIDEO, ValueError, r"\[2, 3, 9, 8, 8\]"), (VIDEO[0, :1], ValueError, r"\[1, 9, 8, 8\]")],
    ),
    ("film_strip", "every", lambda a: plotting.film_strip(plt.gca(), VIDEO[0], every=a), COUNTS),
    ("TrainingBoard", "steps", lambda a: explore.TrainingBoard(a, {}), COUNTS),
]
CASES = [(name, argument, call, *case) for name, argument, call, cases in TABLE for case in cases]
FRAME = plotting.render_frames(lambda ax, i: None, 1, size=(1, 1))


def wide_loss(width):
    class Wide(torch.nn.Module):
        def forward(self, x, t):
            return x[:, :1].repeat(1, width)

    return s.denoising_loss(Wide(), X, T, X, FLOW)


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def label(case):
    name, argument, _, value, *_ = case
    if isinstance(value, torch.Tensor):
        value = f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}{value.flatten()[:3].tolist()}"
    return f"{name}-{argument}-{value}"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "argument", "call", "value", "error", "text"), CASES, ids=map(label, CASES))
def test_bad_input(name, argument, call, value, error, text):
    with pytest.raises(error, match=rf"\b{argument}.*{text}" if argument[0] != "d" else rf"{argument}.*{text}"):
        call(value)


def test_the_table_holds_every_public_name():
    """All of sora_lib.__all__ and of plotting; the rest is checked in the named files, or takes nothing to check."""
    there = {name.split(".")[0].removesuffix("()") for name, *_ in TABLE}
    elsewhere = {
        "load_checkpoint", "save_checkpoint",  # files: test_training.py
        "SoraDiffusionModel",  # the article's network, as the article has it: torch's own messages
        "Schedule", "RectifiedFlow", "use_style", "plane",  # no arguments of their own, or matplotlib's
    }  # fmt: skip
    functions = [n for n, f in vars(plotting).items() if inspect.isfunction(f) and f.__module__ == plotting.__name__]
    wanted = {*s.__all__, *(name for name in functions if name[0] != "_")}
    assert wanted - there - elsewhere == set()


def test_good_input_passes_the_checks_unchanged():
    assert validate.check_tensor("x", X) is X and validate.check_tensor("x", X, [None, 2]) is X
    assert validate.check_same_shape("x", X, "y", X) is X
    for t in (torch.tensor([0.0, 1.0]), torch.tensor([0.3], dtype=torch.float64)):
        assert validate.check_times(t) is t and validate.check_times(t, len(t)) is t
    assert validate.check_choice("kind", "b", ["a", "b"]) == "b"
    assert validate.check_count("n", 1) == 1 and validate.check_count("n", 0, 0) == 0
    assert validate.check_number("x", 1, 0, 1) == 1.0 and isinstance(validate.check_number("x", 1, 0, 1), float)


def test_messages_read_well():
    for call, text in [
        (lambda: validate.check_tensor("x_t", torch.zeros(3), [None, 2]), "x_t must have shape [any, 2], got [3]"),
        (lambda: validate.check_count("steps", 0), "steps must be 1 or more, got 0"),
        (lambda: validate.check_number("eta", 2, 0, 1), "eta must lie in [0, 1], got 2"),
        (lambda: validate.check_choice("kind", "c", ["a", "b"]), "kind must be one of 'a', 'b', got 'c'"),
    ]:
        with pytest.raises(ValueError) as caught:
            call()
        assert str(caught.value) == text


def test_bad_steps_raise_before_the_network_is_asked():
    def never(x_t, t):
        raise AssertionError

    for sampler in SAMPLERS:
        with pytest.raises(ValueError, match="steps"):
            sampler(never, FLOW, X, torch.tensor([0.0, 1.0]))


def test_train_raises_at_the_call_not_at_the_first_step():
    for wrong in ({"steps": 0}, {"lr": -1.0}, {"prediction": "no"}, {"ema": 2.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            s.train(model(), [X], FLOW, **({"steps": 1} | wrong))


def test_every_file_has_its_tests():
    here = Path(__file__).parent
    files = {path.stem for path in (here.parent / "sora_lib").glob("*.py")} - {"__init__"}
    files -= {"marking"}  # test_checks.py
    files -= {"__main__"}  # test_pipeline.py
    files -= {"files"}  # test_faults.py
    assert {name for name in files if not (here / f"test_{name}.py").is_file()} == set()
    assert importlib.import_module("sora_lib.samplers") is samplers and training.T_MIN == 1e-3
