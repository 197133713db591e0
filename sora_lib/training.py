"""The training loop as a generator, the average of the weights over time, and checkpoints."""

import copy
import json
import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .files import pack, unpack, write_whole
from .schedules import Schedule, check_noised, check_schedule
from .validate import check_choice, check_count, check_flag, check_many, check_module, check_number, check_tensor, shown

TARGETS = ("eps", "x0", "v")
FORMAT, OLDER = "sora_lib training run 2", "sora_lib training run 1"  # of checkpoints, with and without a checksum
T_MIN = 1e-3  # training times start here: on LinearBeta and Cosine v is infinite at t = 0


def training_target(x0: Tensor, t: Tensor, eps: Tensor, schedule: Schedule, prediction: str) -> Tensor:
    """What the network should answer: eps, x0, or v = alpha_dot(t) x0 + sigma_dot(t) eps; `[B, ...]` like x0."""
    check_choice("prediction", prediction, TARGETS)
    if prediction == "v":
        return check_schedule(schedule).velocity(x0, t, eps)
    check_noised(x0, t, eps)
    return eps if prediction == "eps" else x0


def denoising_loss(
    model: nn.Module,
    x0: Tensor,
    t: Tensor,
    eps: Tensor,
    schedule: Schedule,
    prediction: str = "eps",
    cond: object = None,
) -> Tensor:
    """Mean squared error of the prediction at x_t = alpha x0 + sigma eps; a scalar (arXiv 2006.11239, eq. 14).

    cond: what a conditional network is told of each sample, its third argument: labels `[B]`, or a `Told`.
    """
    x_t = check_schedule(schedule).add_noise(x0, t, eps)
    output = model(x_t, t) if cond is None else model(x_t, t, cond)
    if getattr(output, "shape", None) != x0.shape:
        came = list(output.shape) if isinstance(output, Tensor) else shown(output)
        raise ValueError(f"the model's output must have the shape of x0, {list(x0.shape)}, got {came}")
    return (output - training_target(x0, t, eps, schedule, prediction)).square().mean()


class EMA:
    """A running average of a model's weights, itself a model in `.model`.

    average <- d average + (1 - d) weights, where update n uses d = min(decay, (1 + n) / (10 + n)): a short
    run does not keep its start. decay lies in [0, 1); 0 keeps the newest weights only.
    """

    def __init__(self, model: nn.Module, decay: float = 0.995) -> None:
        self.decay = check_number("decay", decay, 0, 0.999999)
        self.model = copy.deepcopy(check_module("model", model)).requires_grad_(False).eval()
        self.updates = 0
        self._follow(model)

    def _follow(self, model: nn.Module) -> None:
        """Look up, once, which weights and buffers of the average belong to which of `model`'s: that is slow."""
        if [v.shape for v in self.model.state_dict().values()] != [v.shape for v in model.state_dict().values()]:
            raise ValueError("model has other weights than the one that the average was made of")
        self._weights = list(zip(self.model.parameters(), model.parameters(), strict=True))
        self._buffers, self._followed = list(zip(self.model.buffers(), model.buffers(), strict=True)), model

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards `model`; buffers are copied. Raises ValueError for a model of other weights."""
        if model is not self._followed:
            self._follow(check_module("model", model))
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, weight in self._weights:
            average.lerp_(weight, 1 - decay)
        for average, buffer in self._buffers:
            average.copy_(buffer)


@dataclass
class TrainState:
    """All that a run needs to go on bit for bit: network, average, the optimizers' memory, random state and step."""

    model: nn.Module
    ema: EMA
    optimizers: dict[str, torch.optim.Optimizer]
    generator: torch.Generator
    step: int = 0


def new_state(
    model: nn.Module, ema: float = 0.995, generator: torch.Generator | None = None, *, muon: bool = False
) -> TrainState:
    """The state of a run before its first step; without a generator, one that starts from seed 0.

    muon: the matrices of `model.blocks` are moved by Muon (arXiv 2502.16982), all other weights by Adam. Raises
    ValueError where the model has no blocks.
    """
    check_module("model", model)
    if check_flag("muon", muon) and not isinstance(getattr(model, "blocks", None), nn.Module):
        raise ValueError(f"muon needs a model with blocks, like DiT, got {type(model).__name__}")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {shown(generator)}")
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2] if muon else []
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizers = {"adam": torch.optim.Adam(others, fused=True)}
    if matrices:
        optimizers["muon"] = torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    return TrainState(model, EMA(model, ema), optimizers, generator)


def uniform_times(n: int, generator: torch.Generator) -> Tensor:
    """Training times `[n]`, uniform in [1e-3, 1]."""
    return T_MIN + (1 - T_MIN) * torch.rand(check_many("n", n, 16), generator=generator)


def logit_normal_times(mean: float = 0.0, std: float = 1.0) -> Callable[[int, torch.Generator], Tensor]:
    """Times sigmoid(mean + std z), z standard normal: most in the middle, where the loss on v is largest.

    A larger mean means more noise; on the straight path it is the shift of Stable Diffusion 3, s = exp(mean)
    (arXiv 2403.03206, section 3.1 and eq. 23).
    """
    check_number("mean", mean, -10, 10)
    check_number("std", std, 0.01, 10)
    return lambda n, generator: (
        (mean + std * torch.randn(check_many("n", n, 16), generator=generator)).sigmoid().clamp(T_MIN, 1)
    )


def train(
    model: nn.Module,
    batches: Iterable[Tensor | tuple[Tensor, object]],
    schedule: Schedule,
    *,
    steps: int,
    prediction: str = "eps",
    lr: float = 2e-3,
    ema: float = 0.995,
    times: Callable[[int, torch.Generator], Tensor] = uniform_times,
    generator: torch.Generator | None = None,
    resume: TrainState | None = None,
) -> Iterator[tuple[int, float, TrainState]]:
    """Train with Adam, or what `resume` brings; yield (step, loss, state) after each step, from 1 to `steps`.

    batches: clean samples `[B, ...]`, one tensor a step, or pairs of one with what a conditional network is told of
    each sample, `(x0, cond)`. The learning rate rises over 50 steps, then falls to 0 as a cosine; `times(n, generator)`
    draws t, `[n]`. The model is trained in place, and `state.ema.model` is the one to sample from. To go on where a
    checkpoint stopped, pass its state as `resume`, with the same settings; draw the batches from `state.generator` and
    the run continues bit for bit.
    A run may be stopped at any moment, by leaving the loop, an interrupt (Ctrl-C) or an error: the state then stands
    after a whole number of steps, of which the last may not have been handed out yet. Weights, average, optimizers,
    buffers and random state agree, so it can be sampled from, saved and resumed bit for bit. An interrupt that comes
    while the weights are moved waits until they have been, a millisecond or so; a step that ends before that leaves no
    trace but the batch it took. Only where an optimizer or the average itself raises an error is the step cut in half;
    then go on from a checkpoint.
    Raises ValueError or TypeError for bad arguments or batches, FloatingPointError before a step that would spoil the
    weights (loss or gradient not finite), and RuntimeError when the batches run out.
    """
    check_count("steps", steps)
    check_number("lr", lr, 0, 10)
    check_choice("prediction", prediction, TARGETS)
    check_number("ema", ema, 0, 0.999999)
    check_schedule(schedule)
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must be an iterable of tensors, got {type(batches).__name__}")
    if not callable(times):
        raise TypeError(f"times must be a function (n, generator) -> t, got {times!r:.80}")
    if resume is not None and getattr(resume, "model", None) is not model:
        raise ValueError("resume holds another model than the one given; pass its own, resume.model")
    if resume is not None and generator is not None and generator is not resume.generator:
        raise ValueError("resume goes on with its own random state; leave out generator, or pass resume.generator")
    return _steps(batches, schedule, steps, prediction, lr, times, resume or new_state(model, ema, generator))


def _steps(
    batches: Iterable,
    schedule: Schedule,
    steps: int,
    prediction: str,
    lr: float,
    times: Callable[[int, torch.Generator], Tensor],
    state: TrainState,
) -> Iterator[tuple[int, float, TrainState]]:
    source, weights, buffers = iter(batches), list(state.model.parameters()), list(state.model.buffers())
    while state.step < steps:
        with _whole_or_undone(state, buffers):
            batch = next(source, None)
            if batch is None:
                raise RuntimeError(f"batches ran out after {state.step} of {steps} steps; pass an endless iterable")
            x0, cond = batch if isinstance(batch, tuple) else (batch, None)
            x0 = check_tensor("a batch", x0)
            t = times(len(x0), state.generator).to(x0)  # [B]
            eps = torch.randn(x0.shape, generator=state.generator).to(x0)  # [B, ...]
            loss = denoising_loss(state.model, x0, t, eps, schedule, prediction, cond)
            value, place = loss.item(), f"at step {state.step + 1}; try a smaller lr than {lr}"
            if not math.isfinite(value):
                raise FloatingPointError(f"the loss is {value} {place}")
            for weight in weights:
                weight.grad = None
            loss.backward()
            gradient = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
            if not math.isfinite(gradient.dot(gradient).item()):  # its squares, which Adam keeps, are finite too
                raise FloatingPointError(f"the gradient is not finite {place}, or mend a root or quotient at 0")
            with _no_interrupt():
                for optimizer in state.optimizers.values():
                    optimizer.param_groups[0]["lr"] = lr * learning_rate(state.step, steps)
                    optimizer.step()
                state.ema.update(state.model)
                state.step += 1
        yield state.step, value, state


@contextmanager
def _whole_or_undone(state: TrainState, buffers: list[Tensor]) -> Iterator[None]:
    """Where a step ends before it has moved the weights, put back what it has changed: random state and buffers."""
    step, random, kept = state.step, state.generator.get_state(), [buffer.clone() for buffer in buffers]
    try:
        yield
    except BaseException:
        if state.step == step:
            state.generator.set_state(random)
            for buffer, before in zip(buffers, kept, strict=True):
                buffer.copy_(before)
        raise


@contextmanager
def _no_interrupt() -> Iterator[None]:
    """Hold an interrupt back until the block is done. Python interrupts its main thread alone."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if held:
            signal.raise_signal(signal.SIGINT)


def learning_rate(step: int, steps: int, warmup: int = 50) -> float:
    """The factor on lr at a step: a straight rise over `warmup` steps, then half a cosine down to 0 at `steps`."""
    for name, value, least in (("step", step, 0), ("steps", steps, 1), ("warmup", warmup, 1)):
        check_count(name, value, least)
    return min(1.0, (step + 1) / warmup) * (1 + math.cos(math.pi * step / steps)) / 2


def save_checkpoint(path: str | Path, state: TrainState, **metadata: str | int | float) -> None:
    """Write a run to one safetensors file, with `metadata` in its header; an older file is replaced only at the end.

    The header holds a checksum of the whole file. Raises FileNotFoundError for a missing folder, OSError where the file
    cannot be written, ValueError for a run with numbers that are not finite.
    """
    tensors = {"generator": state.generator.get_state()}
    tensors |= {f"model.{k}": v for k, v in state.model.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.model.state_dict().items()}
    for i, weight in enumerate(state.model.parameters()):
        for name, optimizer in state.optimizers.items():
            tensors |= {f"{name}.{i}.{k}": v for k, v in optimizer.state.get(weight, {}).items()}
    counts = {"step": state.step, "ema_updates": state.ema.updates, "ema_decay": state.ema.decay}
    counts["muon"] = "muon" in state.optimizers
    header = {"format": FORMAT, "counts": json.dumps(counts), "metadata": json.dumps(metadata)}
    if wrong := _not_finite(tensors):
        raise ValueError(f"state: not finite, so not saved: {', '.join(wrong[:4])}")
    write_whole("path", Path(path), pack(tensors, header))


def load_checkpoint(path: str | Path, model: nn.Module) -> tuple[TrainState, dict]:
    """Read a run back into `model`: its state, to pass to `train(resume=...)`, and the metadata that it was saved with.

    Raises FileNotFoundError for a missing file, OSError for one that cannot be read, ValueError for a damaged one (one
    changed byte is enough), for one that `save_checkpoint` did not write, and for one of another model. The model is
    changed only when all has been read. Files of format 1, from before there was a checksum, load without one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"path: no checkpoint at {path}")
    header, tensors = _read(path)

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    have, want = ({k: list(v.shape) for k, v in d.items()} for d in (part("model."), model.state_dict()))
    if have != want:
        names = sorted(k for k in have.keys() | want.keys() if have.get(k) != want.get(k))
        raise ValueError(f"path: {path} holds another model than the one given; they differ in {', '.join(names[:4])}")
    try:
        counts, metadata = (dict(json.loads(header[name])) for name in ("counts", "metadata"))
        state = new_state(model, counts["ema_decay"], torch.Generator(), muon=counts.get("muon", False))
        state.ema.updates, state.step = (check_count(name, counts[name], 0) for name in ("ema_updates", "step"))
        memory: dict[tuple[str, int], dict[str, Tensor]] = {}
        for optimizer in state.optimizers:
            for key, value in part(f"{optimizer}.").items():
                index, name = key.split(".")
                memory.setdefault((optimizer, int(index)), {})[name] = value
        _check_complete(tensors, state, memory)
        state.generator.set_state(tensors["generator"])
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"path: {path} is damaged ({error})") from error
    model.load_state_dict(part("model."))
    state.ema.model.load_state_dict(part("ema."))
    weights = list(model.parameters())
    for (optimizer, i), values in memory.items():
        state.optimizers[optimizer].state[weights[i]] = values
    return state, metadata


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """The header and the tensors of a checkpoint, where its format and its checksum are right."""
    try:
        tensors, header, unchanged = unpack(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"path: {path} is {error}") from error
    if header.get("format") not in (FORMAT, OLDER):
        raise ValueError(f"path: {path} was not written by save_checkpoint (its format is {header.get('format')!r})")
    if not unchanged and (header["format"] != OLDER or "sha256" in header):
        raise ValueError(f"path: {path} is damaged: its SHA-256 is not the one in its header")
    return header, tensors


def _not_finite(tensors: dict[str, Tensor]) -> list[str]:
    return [name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]


def _check_complete(tensors: dict[str, Tensor], state: TrainState, memory: dict) -> None:
    """Raise ValueError unless all tensors of a run are there, finite, and of the model's shapes and dtypes."""
    expected = {"generator": torch.Generator().get_state()}
    for prefix in ("model.", "ema."):
        expected |= {prefix + name: value for name, value in state.model.state_dict().items()}
    weights, kept = list(state.model.parameters()), {"adam": ("exp_avg", "exp_avg_sq"), "muon": ("momentum_buffer",)}
    for optimizer, i in memory:
        expected |= {f"{optimizer}.{i}.{name}": weights[i] for name in kept[optimizer]}
        expected |= {f"adam.{i}.step": torch.zeros(())} if optimizer == "adam" else {}
    kinds = [{name: (list(v.shape), v.dtype) for name, v in d.items()} for d in (tensors, expected)]
    wrong = sorted(name for name in kinds[0].keys() | kinds[1].keys() if kinds[0].get(name) != kinds[1].get(name))
    wrong += _not_finite(tensors)
    if wrong or (state.step and {optimizer for optimizer, _ in memory} != state.optimizers.keys()):
        raise ValueError(f"missing, of a wrong shape or dtype, or not finite: {', '.join(wrong[:4]) or 'memory'}")
