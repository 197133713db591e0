"""What may go wrong around the library: kills, interrupts, damaged files, full disks, too large requests, NaN."""

import ast
import contextlib
import errno
import json
import math
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import sora_lib as s
from sora_lib import datasets, files, metrics, pretrained, training, validate
from sora_lib.autoencoder import Autoencoder, VideoAutoencoder
from sora_lib.denoisers import TimeEmbedding
from sora_lib.mini_sora import told
from sora_lib.pipeline import MiniSoraPipeline
from sora_lib.text import LONGEST, TextEncoder, Thing, tokenize
from sora_lib.training import load_checkpoint, new_state, save_checkpoint, train
from sora_lib.transformer import DiT, rotary_angles

ROOT = Path(__file__).resolve().parents[1]
FLOW = s.RectifiedFlow()
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


def child(function, *arguments, library=ROOT, wait=True):
    """Run one function of this file in a program of its own, on the library in that folder."""
    code = f"import test_faults as t; t.torch.set_num_threads(1); t.{function.__name__}(*{[*map(str, arguments)]})"
    paths = os.pathsep.join(map(str, (library, ROOT / "tests", ROOT)))
    started = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT / "tests",
        env=os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if not wait:
        return started
    out, err = started.communicate(timeout=120)
    return subprocess.CompletedProcess(started.args, started.returncode, out, err)


class Small(nn.Module):
    """A network with a buffer that every forward pass moves."""

    def __init__(self, seed=0, width=16):
        super().__init__()
        torch.manual_seed(seed)
        self.inp, self.norm, self.out = nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2)

    def forward(self, x, t):
        return self.out(torch.tanh(self.norm(self.inp(torch.cat([x, t[:, None]], 1)))))


def batches(generator):
    law = s.points("gaussians")
    while True:
        yield law.sample(32, generator=generator)


def start(seed=0):
    return new_state(Small(seed), generator=torch.Generator().manual_seed(7))


def run(state, steps=7, **options):
    options = {"prediction": "v", "lr": 1e-2, "resume": state} | options
    return train(state.model, options.pop("batches", batches(state.generator)), FLOW, steps=steps, **options)


def everything(state):
    """A copy of all that a state holds, by name."""
    adam = [state.optimizers["adam"].state.get(weight, {}) for weight in state.model.parameters()]
    memory = {f"{i}.{k}": v for i, kept in enumerate(adam) for k, v in kept.items()}
    parts = {"model": state.model.state_dict(), "ema": state.ema.model.state_dict(), "adam": memory}
    tensors = {f"{part}.{k}": v.clone() for part, d in parts.items() for k, v in d.items()}
    return tensors | {"random": state.generator.get_state(), "counts": torch.tensor([state.step, state.ema.updates])}


def assert_same(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.fixture(autouse=True, scope="module")
def interrupts_are_heard():
    """As in a terminal; a program that a shell started in the background ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def never_stopped():
    """All that the run of seven steps holds, after 0, 1, ... 7 of them."""
    state = start()
    return [everything(state), *(everything(state) for _ in run(state))]


# --- Files that are damaged, old, or no weights at all


@pytest.fixture
def small_file(tmp_path):
    path = tmp_path / "run"
    *_, (_, _, state) = run(new_state(Small(width=2)), steps=2)
    save_checkpoint(path, state, note="kept")
    return path


def test_one_changed_byte_anywhere_is_noticed(small_file):
    """Every byte of the header, every fifth of the tensors, each bit in turn; some are loaded as well."""
    whole, model = small_file.read_bytes(), Small(9, width=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert files.unpack(whole)[2]
    tensors = 8 + int.from_bytes(whole[:8], "little")
    for place in [*range(tensors), *range(tensors, len(whole), 5)]:
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        with contextlib.suppress(ValueError):
            assert not files.unpack(bytes(changed))[2], place
        if place % 61 == 0:
            small_file.write_bytes(changed)
            with pytest.raises(ValueError, match=r"path: .*(damaged|was not written)"):
                load_checkpoint(small_file, model)
    assert_same(model.state_dict(), before)
    small_file.write_bytes(whole)
    assert load_checkpoint(small_file, model)[1] == {"note": "kept"}


def test_a_cut_or_longer_checkpoint_is_noticed(small_file):
    whole = small_file.read_bytes()
    for content in [*(whole[:size] for size in range(0, len(whole), 97)), whole[:-1], whole + b"\0", whole + whole]:
        small_file.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            load_checkpoint(small_file, Small(width=2))


def rewritten(path, change):
    """The same file with another header, and one number of one tensor changed."""
    tensors, header, unchanged = files.unpack(path.read_bytes())
    assert unchanged
    tensors["model.out.bias"][0] += 1
    safetensors.torch.save_file(tensors, path, change(header))


def without_sum(header):
    return {name: value for name, value in header.items() if name != "sha256"}


def test_an_older_file_loads_without_a_checksum(small_file):
    rewritten(small_file, lambda header: without_sum(header) | {"format": "sora_lib training run 1"})
    state, metadata = load_checkpoint(small_file, Small(width=2))
    assert state.step == 2 and metadata == {"note": "kept"}


@pytest.mark.parametrize("change", [without_sum, dict, lambda h: h | {"format": training.OLDER}])
def test_a_new_file_cannot_pass_for_an_older_one(small_file, change):
    rewritten(small_file, change)
    with pytest.raises(ValueError, match="its SHA-256 is not the one in its header"):
        load_checkpoint(small_file, Small(width=2))


def test_metadata_may_hold_what_looks_like_a_checksum(tmp_path):
    note = {"sha256": "0" * 64, "text": '"sha256":"' + "0" * 64}
    for _ in range(8):  # the header's entries come in any order
        save_checkpoint(tmp_path / "run", start(), **note)
        assert load_checkpoint(tmp_path / "run", Small(1))[1] == note


@pytest.fixture
def digit_probe(tmp_path, monkeypatch):
    """The smallest of the shipped weights and its card, in a folder that a test may spoil."""
    for path in pretrained.FOLDER.glob("digit-probe.*"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    return tmp_path


def new_card(folder, **changed):
    card = json.loads((folder / "digit-probe.json").read_text(encoding="utf-8")) | changed
    (folder / "digit-probe.json").write_text(json.dumps(card), encoding="utf-8")


@pytest.mark.parametrize("changed", [{"class": "DiT"}, {"class": "Path"}, {"arguments": {"width": 8}}, {"sha256": ""}])
def test_a_card_that_describes_other_weights_is_named(digit_probe, changed):
    new_card(digit_probe, **changed)
    with pytest.raises(ValueError, match=r"name: .*digit-probe\.safetensors (is|does not hold)"):
        pretrained.load_pretrained("digit-probe")


def test_a_card_that_is_cut_is_named(digit_probe):
    path = digit_probe / "digit-probe.json"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"name: the card .*digit-probe\.json is damaged"):
        pretrained.load_pretrained("digit-probe")


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture(params=["pickle", "torch.save"])
def pickled(request, tmp_path):
    """The content of a file that runs code where it is unpickled, and the trace that this leaves."""
    mark = tmp_path / "it ran"
    if request.param == "pickle":
        content = pickle.dumps({"inp.weight": Payload(mark)})
        pickle.loads(content)
    else:
        torch.save({"inp.weight": Payload(mark)}, tmp_path / "zip")
        content = (tmp_path / "zip").read_bytes()
        torch.load(tmp_path / "zip", weights_only=False)
    mark.unlink()  # so it works
    return content, mark


def test_a_pickle_is_refused_and_not_run(digit_probe, pickled):
    content, mark = pickled
    (digit_probe / "digit-probe.safetensors").write_bytes(content)
    new_card(digit_probe, sha256=files.hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError, match="does not hold the weights that its card describes"):
        pretrained.load_pretrained("digit-probe")
    with pytest.raises(ValueError, match="damaged or no safetensors file"):
        load_checkpoint(digit_probe / "digit-probe.safetensors", Small())
    assert not mark.exists()


MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}  # what they load may run
NAMES = {
    "allow_pickle",
    "weights_only",
    "read_pickle",
    "Unpickler",
    "load_state_dict_from_url",
    "torch.load",
    "torch.hub",
}


def unsafe(code):
    """The modules, functions and arguments in the code that load pickles."""
    used = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            used |= {alias.name.split(".")[0] for alias in node.names} & MODULES
        elif isinstance(node, ast.ImportFrom):
            used |= {node.module} & MODULES | {f"{node.module}.{alias.name}" for alias in node.names} & NAMES
        elif isinstance(node, ast.Attribute):
            used |= {node.attr, f"{getattr(node.value, 'id', '')}.{node.attr}"} & NAMES
        elif isinstance(node, ast.keyword):
            used |= {node.arg} & NAMES
    return used


def sources():
    """All Python of the repository, by path; of notebooks without the lines for the shell."""
    for path in sorted(ROOT.rglob("*.py")):
        if not {".venv", "build"} & {*path.parts}:
            yield path, path.read_text(encoding="utf-8")
    for path in sorted(ROOT.glob("notebooks/**/*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").splitlines()
        yield path, "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))


def test_no_code_loads_a_pickle():
    found = {path: unsafe(code) for path, code in sources()}
    del found[Path(__file__).resolve()]  # it makes pickles, to see that they are refused
    assert len(found) > 50 and {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from torch import load", "torch.load(p)", "np.load(p, allow_pickle=True)", "import joblib as j"],
)
def test_code_that_loads_a_pickle_is_found(code):
    assert unsafe(code)


# --- Interrupts


class Trap:
    """Interrupts a run once, at one place of one step: as Ctrl-C does, or, for a library's own error, at once."""

    def __init__(self, place, step, spring=lambda: signal.raise_signal(signal.SIGINT)):
        self.place, self.step, self.spring, self.seen = place, step, spring, 0

    def passes(self, place):
        self.seen += place == self.place
        if place == self.place and self.seen == self.step:
            self.spring()

    def batches(self, generator):
        for batch in batches(generator):
            self.passes("batch")
            yield batch

    def times(self, n, generator):
        t = training.uniform_times(n, generator)
        self.passes("times")
        return t

    def set(self, state, monkeypatch):
        """Into the state and the class of its average; the run's options."""
        state.model.norm.register_forward_hook(lambda *_: self.passes("forward"))
        state.model.inp.weight.register_hook(lambda _: self.passes("backward"))
        state.optimizers["adam"].register_step_pre_hook(lambda *_: self.passes("before Adam"))
        state.optimizers["adam"].register_step_post_hook(lambda *_: self.passes("after Adam"))
        update = training.EMA.update

        def half(ema, model):
            self.passes("before the average")
            update(ema, model)
            self.passes("after the average")

        monkeypatch.setattr(training.EMA, "update", half)
        return {"batches": self.batches(state.generator), "times": self.times}


EARLY = ["batch", "times", "forward", "backward"]
LATE = ["before Adam", "after Adam", "before the average", "after the average"]
each_step = pytest.mark.parametrize("step", [1, 2, 5])


@each_step
@pytest.mark.parametrize("place", EARLY + LATE)
def test_an_interrupt_at_any_place_leaves_a_whole_number_of_steps(never_stopped, tmp_path, monkeypatch, place, step):
    """Early in a step it is undone, late in a step it is completed; either way the run goes on bit for bit."""
    state, handler = start(), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        options = Trap(place, step).set(state, patch)
        with pytest.raises(KeyboardInterrupt):
            list(run(state, **options))
    assert signal.getsignal(signal.SIGINT) is handler
    assert state.step == step - (place in EARLY)
    assert_same(everything(state), never_stopped[state.step])
    save_checkpoint(tmp_path / "run", state)
    list(run(state))  # go on with what is at hand
    assert_same(everything(state), never_stopped[-1])
    state, _ = load_checkpoint(tmp_path / "run", Small(9))  # or in another program
    list(run(state))
    assert_same(everything(state), never_stopped[-1])


class Broken(Exception):
    """An error of a library's own."""


def broken():
    raise Broken


@each_step
@pytest.mark.parametrize("place", EARLY + LATE)
def test_an_error_at_any_place_leaves_finite_weights_and_the_checkpoint(
    never_stopped, tmp_path, monkeypatch, place, step
):
    state = start()
    save_checkpoint(tmp_path / "run", state)
    with monkeypatch.context() as patch:
        options = Trap(place, step, broken).set(state, patch)
        with pytest.raises(Broken):
            for _ in run(state, **options):
                save_checkpoint(tmp_path / "run", state)
    if place in EARLY:
        assert_same(everything(state), never_stopped[step - 1])
    assert all(value.isfinite().all() for value in everything(state).values())
    assert torch.isfinite(state.ema.model(torch.zeros(4, 2), torch.full([4], 0.5))).all()
    state, _ = load_checkpoint(tmp_path / "run", Small(9))
    assert_same(everything(state), never_stopped[step - 1])
    list(run(state))
    assert_same(everything(state), never_stopped[-1])


@each_step
def test_closing_the_run_leaves_a_whole_number_of_steps(never_stopped, step):
    state = start()
    steps = run(state)
    for _ in range(step):
        next(steps)
    steps.close()
    assert_same(everything(state), never_stopped[step])
    list(run(state))
    assert_same(everything(state), never_stopped[-1])


def test_a_handler_that_only_sets_a_flag_is_called_once_and_the_run_goes_on(never_stopped, monkeypatch):
    calls, before = [], signal.getsignal(signal.SIGINT)
    state = start()
    options = Trap("after Adam", 3).set(state, monkeypatch)
    signal.signal(signal.SIGINT, lambda *_: calls.append(state.step))
    try:
        list(run(state, **options))
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [3]  # when the step was complete
    assert_same(everything(state), never_stopped[-1])


def test_a_run_in_another_thread_needs_no_signals(never_stopped):
    state = start()
    thread = threading.Thread(target=lambda: list(run(state)))
    thread.start()
    thread.join()
    assert_same(everything(state), never_stopped[-1])


def trains_until_interrupted(path, times):
    """Train from the checkpoint on until Ctrl-C, save, and again."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for _ in range(int(times)):
        state, _ = load_checkpoint(path, Small())
        try:
            for i, _ in enumerate(run(state, steps=100_000)):
                if i == 0:
                    print("ready", flush=True)
        except KeyboardInterrupt:
            save_checkpoint(path, state)
    print(state.step, flush=True)


@posix
def test_a_program_that_is_interrupted_eight_times_trains_as_if_it_never_was(tmp_path):
    path, dice = tmp_path / "run", random.Random(0)
    save_checkpoint(path, start())
    program = child(trains_until_interrupted, path, 8, wait=False)
    for _ in range(8):
        assert program.stdout.readline() == "ready\n", program.communicate()[1]
        time.sleep(dice.uniform(0.02, 0.08))
        program.send_signal(signal.SIGINT)
    out, err = program.communicate(timeout=60)
    assert program.returncode == 0, err
    assert int(out) >= 8
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    state = start()
    for step, *_ in run(state, steps=100_000):
        if step == int(out):
            break
    torch.set_num_threads(threads)
    assert_same(everything(state), everything(load_checkpoint(path, Small(9))[0]))


# --- Numbers that are not finite


class Spoiled(Small):
    """From step 4 on it adds what `spoil` makes of its parameter 0."""

    def __init__(self, spoil):
        super().__init__()
        self.zero, self.spoil, self.calls = nn.Parameter(torch.zeros(2)), spoil, 0

    def forward(self, x, t):
        self.calls += 1
        return super().forward(x, t) + (self.spoil(self.zero) if self.calls >= 4 else 0 * self.zero)


SPOILS = {
    "a root at 0": lambda zero: (zero**2).sqrt(),
    "a quotient hidden by where": lambda zero: torch.where(zero == 0, zero, zero / zero),
    "a gradient whose square is not finite": lambda zero: 1e30 * zero,
    "a loss of NaN": lambda zero: zero / zero,
    "an infinite loss": lambda zero: zero + math.inf,
}


@pytest.mark.parametrize("spoil", SPOILS.values(), ids=SPOILS)
def test_a_step_that_would_spoil_the_weights_is_not_made(spoil):
    model = Spoiled(spoil)
    state = new_state(model, generator=torch.Generator().manual_seed(7))
    with pytest.raises(FloatingPointError, match=r"(loss|gradient) is .* at step 4; try a smaller lr than 0.01"):
        for _ in run(state):
            kept = everything(state)
    assert state.step == 3
    assert_same(everything(state), kept)
    model.spoil = lambda zero: 0 * zero
    list(run(state))
    assert state.step == 7 and all(value.isfinite().all() for value in everything(state).values())


def test_a_bad_batch_leaves_no_trace(never_stopped):
    state = start()

    def spoiled():
        for i, batch in enumerate(batches(state.generator), start=1):
            yield batch / 0 if i == 4 else batch

    with pytest.raises(ValueError, match="a batch holds NaN or infinity"):
        list(run(state, batches=spoiled()))
    assert_same(everything(state), never_stopped[3])


def test_a_run_that_is_not_finite_does_not_replace_a_good_one(folder):
    state = start(2)
    state.model.out.bias.data[0] = math.nan
    with pytest.raises(ValueError, match=r"state: not finite, so not saved: model\.out\.bias"):
        save_checkpoint(folder[0] / "run", state)
    assert_kept(folder)


# --- Requests that would not fit into the memory


def test_the_limit_is_stated_once(monkeypatch):
    validate.check_memory("x", validate.MEMORY)
    with pytest.raises(ValueError, match=r"^x would take about 2\.1 GB of memory, more than the 2 GB accepted"):
        validate.check_memory("x", 1.05 * validate.MEMORY)
    with pytest.raises(ValueError, match="GB"):
        validate.check_memory("x", 10**400)
    monkeypatch.setattr(validate, "MEMORY", 16e9)
    validate.check_memory("x", 15e9)
    with pytest.raises(ValueError, match="16 GB"):
        validate.check_memory("x", 17e9)


STILL = [[Thing("one", "red", "still")]]
POINTS = torch.zeros(20_000, 2)
TOO_LARGE = {
    "sample": lambda: s.points("moons").sample(10**12),
    "sample, a little": lambda: s.points("moons").sample(70_000_000),
    "responsibilities": lambda: s.points("moons").responsibilities(POINTS.repeat(50, 1), torch.ones(10**6), FLOW),
    "EmpiricalDenoiser": lambda: s.EmpiricalDenoiser(POINTS, FLOW)(POINTS, torch.ones(20_000)),
    "steps": lambda: s.euler(lambda x, t: x, FLOW, POINTS, 10**11),
    "trajectory": lambda: s.heun(lambda x, t: x, FLOW, POINTS, 5000, trajectory=True),
    "LinearBeta": lambda: s.LinearBeta(10**11),
    "sliced_wasserstein": lambda: s.sliced_wasserstein(POINTS, POINTS, directions=10**5),
    "frechet_distance": lambda: metrics.frechet_distance(torch.zeros(2, 52_224), torch.zeros(2, 52_224)),
    "precision_recall": lambda: metrics.precision_recall(POINTS, POINTS),
    "nearest_distance": lambda: metrics.nearest_distance(POINTS.repeat(2, 1), POINTS),
    "DigitProbe": lambda: metrics.DigitProbe(width=10**5),
    "VideoProbe, kinds": lambda: metrics.VideoProbe({"colour": 10**9}),
    "TimeEmbedding": lambda: TimeEmbedding(2 * 10**9),
    "MLPDenoiser": lambda: s.MLPDenoiser(width=10**7),
    "MLPDenoiser, deep": lambda: s.MLPDenoiser(depth=10**5),
    "DiT": lambda: DiT(width=24_000),
    "DiT, channels": lambda: DiT(channels=10**7),
    "rotary_angles": lambda: rotary_angles((1, 10**4, 10**4), 48),
    "TextEncoder": lambda: TextEncoder(width=24_000),
    "tokenize": lambda: tokenize([None] * (2 * 10**9 // (8 * LONGEST) + 1)),
    "told": lambda: told(["a red one"], (10**3, 10**3, 10**3)),
    "Autoencoder": lambda: Autoencoder(nn.Identity(), nn.Identity(), 10**9),
    "DiT, a large grid": lambda: DiT(1, width=48, depth=4)(torch.zeros(1, 1, 1, 600, 600), torch.ones(1)),
    "VideoAutoencoder": lambda: VideoAutoencoder(width=10**4),
    "bounced": lambda: datasets.bounced(*torch.ones(3, 1, 2), frames=10**9),
    "film, long": lambda: datasets.film(STILL, frames=10**6),
    "film, large": lambda: datasets.film(STILL, height=4000, width=4000),
    "film, many": lambda: datasets.film(STILL * 2000),
    "pipeline": lambda: MiniSoraPipeline.from_pretrained()("a red one", num_frames=10**6 + 1),
    "plot_field": lambda: import_module("sora_lib.plotting").plot_field(None, lambda x: x, cells=10**4),
    "video_png": lambda: import_module("sora_lib.plotting").video_png(torch.zeros(1, 3, 17, 32, 32), zoom=1000),
}


def asks_for_too_much():
    """Each of the requests, in a program that could not have so much; print the error, and the growth of its peak."""
    import resource

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform == "linux" else 1e6)  # MB

    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, resource.RLIM_INFINITY))
    for name, request in TOO_LARGE.items():
        before = peak()
        try:
            request()
            print(f"{name}|nothing raised|0")
        except Exception as error:
            print(f"{name}|{type(error).__name__}: {error}".splitlines()[0], f"{peak() - before:.0f}", sep="|")


@posix
def test_what_is_too_large_is_refused_before_it_is_allocated():
    ended = child(asks_for_too_much)
    assert ended.returncode == 0, ended.stderr
    answers = [line.split("|") for line in ended.stdout.splitlines()]
    assert [name for name, *_ in answers] == [*TOO_LARGE]
    for name, error, growth in answers:
        assert error.startswith("ValueError: ") and "GB of memory, more than the 2 GB accepted" in error, (name, error)
        assert float(growth) < 100, name  # the arguments alone: a grid of 600 x 600 in tokens is 17 MB, its inputs less


# --- Writes that fail


class Pipeline:
    """Stands for the pipeline: noise at once."""

    @classmethod
    def from_pretrained(cls):
        return lambda *_, **__: type("Output", (), {"frames": torch.rand(1, 3, 5, 32, 32)})


def command(path):
    """`python -m sora_lib` with this --out, in this program; its exit code."""
    program = import_module("sora_lib.__main__")  # here, for the drawing library takes its time
    program.MiniSoraPipeline, sys.argv = Pipeline, ["sora_lib", "a red seven moving up", "--out", str(path)]
    return program.main()


@pytest.fixture
def the_command(monkeypatch, capsys):
    """Call it; give its exit code and what it said."""
    program = import_module("sora_lib.__main__")
    monkeypatch.setattr(program, "MiniSoraPipeline", Pipeline)
    monkeypatch.setattr(sys, "argv", [])
    return lambda path: (command(path), capsys.readouterr().err)


def saves_and_says(folder):
    """Save a checkpoint and a video over older files; print what each says."""
    try:
        save_checkpoint(Path(folder) / "run", start(2))
    except OSError as error:
        print(error)
    sys.stderr = sys.stdout
    print(command(Path(folder) / "x.png"))


def on_a_full_disk(folder):
    import resource  # POSIX alone

    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))  # a longer write fails after so much
    saves_and_says(folder)


@pytest.fixture
def folder(tmp_path):
    """A folder with an older checkpoint and an older video, and what they hold."""
    save_checkpoint(tmp_path / "run", start(1))
    (tmp_path / "x.png").write_bytes(b"older")
    return tmp_path, {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def assert_kept(folder):
    path, older = folder
    assert {each.name: each.read_bytes() for each in path.iterdir()} == older


@posix
def test_a_disk_that_gets_full_half_way(folder):
    path, _ = folder
    ended = child(on_a_full_disk, path)
    first, second, code = ended.stdout.splitlines()
    assert first == f"path: cannot write {path / 'run'} ({os.strerror(errno.EFBIG)})"
    assert second == f"error: --out: cannot write {path / 'x.png'} ({os.strerror(errno.EFBIG)})" and code == "2"
    assert ended.stderr == ""
    assert_kept(folder)


def test_a_write_that_fails_at_its_end(folder, monkeypatch, the_command):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path, _ = folder
    with pytest.raises(OSError, match=r"path: cannot write .*run \(No space left on device\)"):
        save_checkpoint(path / "run", start(2))
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path / "new", start(2))
    code, said = the_command(path / "x.png")
    assert code == 2 and said.startswith("error: --out: cannot write") and said.count("\n") == 1
    assert_kept(folder)


def test_an_interrupt_while_saving_keeps_the_older_file(folder, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(folder[0] / "run", start(2))
    assert_kept(folder)


def test_a_path_that_is_a_folder_or_lies_in_a_file(tmp_path, the_command):
    (tmp_path / "x.png").mkdir()
    (tmp_path / "file").write_bytes(b"older")
    with pytest.raises(OSError, match="path: cannot write"):
        save_checkpoint(tmp_path / "x.png", start())
    with pytest.raises(FileNotFoundError, match="path: there is no folder"):
        save_checkpoint(tmp_path / "file" / "run", start())
    for path, text in ((tmp_path / "x.png", "cannot write"), (tmp_path / "file" / "x.png", "there is no folder")):
        code, said = the_command(path)
        assert code == 2 and said.startswith(f"error: --out: {text}") and said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"x.png", "file"} and not [*(tmp_path / "x.png").iterdir()]


def give_up_roots_rights():
    """Root may write everywhere, until it gives up its capabilities, which Linux lets it do for a program."""
    if sys.platform == "linux" and os.geteuid() == 0:
        import ctypes

        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, none) == 0


def in_a_read_only_folder(folder):
    give_up_roots_rights()
    with pytest.raises(PermissionError):
        (Path(folder) / "new").touch()
    saves_and_says(folder)
    with pytest.raises(PermissionError):
        (pretrained.FOLDER / "new").touch()
    print([type(pretrained.load_pretrained(name)).__name__ for name in pretrained.pretrained_names()])


@posix
@pytest.mark.skipif(sys.platform != "linux" and os.name == "posix" and os.geteuid() == 0, reason="root on a Mac")
def test_a_read_only_folder_and_a_read_only_installation(folder, tmp_path_factory):
    path, _ = folder
    library = tmp_path_factory.mktemp("library")
    shutil.copytree(ROOT / "sora_lib", library / "sora_lib", ignore=shutil.ignore_patterns("__pycache__"))
    closed = [path, *(p for p in library.rglob("*") if p.is_dir())]
    try:
        for each in closed:
            each.chmod(0o500)
        ended = child(in_a_read_only_folder, path, library=library)
    finally:
        for each in closed:
            each.chmod(0o700)
    assert ended.returncode == 0, ended.stderr
    first, second, code, models = ended.stdout.splitlines()
    assert first == f"path: cannot write {path / 'run'} (Permission denied)"
    assert second == f"error: --out: cannot write {path / 'x.png'} (Permission denied)" and code == "2"
    assert "MiniSora" in models and "VideoAutoencoder" in models
    assert_kept(folder)


# --- A program that is killed


def killed_over_and_over(path):
    """Twelve programs save in a loop and are killed, each at another moment; print what each has left."""
    dice, state, number = random.Random(0), new_state(Small(width=20_000)), 0
    save_checkpoint(path, state, number=number)
    for _ in range(12):
        told, tell = os.pipe()
        program = os.fork()
        while program == 0:
            number += 1
            state.model.inp.weight.data.fill_(number)
            save_checkpoint(path, state, number=number)
            os.write(tell, b".")
        os.read(told, 1)  # it has saved once
        time.sleep(dice.uniform(0.002, 0.08))
        os.kill(program, signal.SIGKILL)
        os.waitpid(program, 0)
        found, metadata = load_checkpoint(path, Small(width=20_000))
        number = metadata["number"]
        print(number, found.model.inp.weight.min().item(), found.model.inp.weight.max().item())


@posix
def test_a_checkpoint_outlives_a_kill_at_any_moment(tmp_path):
    path = tmp_path / "run"
    ended = child(killed_over_and_over, path)
    assert ended.returncode == 0, ended.stderr
    found = [tuple(map(float, line.split())) for line in ended.stdout.splitlines()]
    assert len(found) == 12 and found == sorted(set(found)) and found[0][0] > 0
    assert all(number == low == high for number, low, high in found)
    assert {name for name in os.listdir(tmp_path) if not name.endswith(".partial")} == {"run"}


def killed_before_the_end(path):
    os.replace = lambda *_: os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    save_checkpoint(path, start(2))


def test_what_a_killed_save_leaves_disturbs_nothing(tmp_path):
    path, model = tmp_path / "run", Small(3)
    save_checkpoint(path, start(1))
    older = path.read_bytes()
    assert child(killed_before_the_end, path).returncode != 0
    assert path.read_bytes() == older
    (left,) = (name for name in os.listdir(tmp_path) if name != "run")
    assert left.endswith(".partial") and left.startswith("run.")
    (tmp_path / "run.partial").write_bytes(b"half")
    save_checkpoint(path, start(4))
    assert_same(everything(load_checkpoint(path, model)[0]), everything(start(4)))
    assert set(os.listdir(tmp_path)) == {"run", "run.partial", left}


def two_savers(path):
    """Two programs save to one file while a third reads it."""
    states = [start(seed) for seed in range(2)]
    save_checkpoint(path, states[0])
    programs = [os.fork() or (save_often(path, state), os._exit(0)) for state in states]
    loads, ends = 0, []
    while len(ends) < len(programs):
        found, _ = load_checkpoint(path, Small(5))
        assert any(torch.equal(found.model.inp.weight, state.model.inp.weight) for state in states)
        loads += 1
        ended, status = os.waitpid(-1, os.WNOHANG)
        ends += [status] if ended else []
    print(loads, ends)


def save_often(path, state):
    with contextlib.suppress(BaseException):
        for _ in range(100):
            save_checkpoint(path, state)
        return
    os._exit(1)


@posix
def test_two_programs_may_save_to_one_file(tmp_path):
    ended = child(two_savers, tmp_path / "run")
    assert ended.returncode == 0, ended.stderr
    loads, ends = ended.stdout.split(" ", 1)
    assert ends.strip() == "[0, 0]" and int(loads) > 0
    assert os.listdir(tmp_path) == ["run"]
