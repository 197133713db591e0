"""Train a small Mini-Sora on one process or several: the same losses, as long as the global batch is the same.

`python -m torch.distributed.run --nproc_per_node 2 training/scaling_out.py --data clips.safetensors --out run.json`
Every process draws the numbers of the whole batch from one seed and keeps its own rows; accelerate (over
torch.distributed) averages the gradients. Chapter 16 launches it. The file of `--data` holds `latents`
`[N, C, n, h, w]` and `tokens` `[N, L]`.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch
import torch.distributed
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from sora_lib.mini_sora import MiniSora, Told
from sora_lib.schedules import RectifiedFlow
from sora_lib.training import EMA, denoising_loss, learning_rate, logit_normal_times

DROPPED, CLIP = 0.1, 1.0  # share of captions left out; gradients longer than this are shortened


def global_batch(data: dict[str, Tensor], size: int, generator: torch.Generator) -> dict[str, Tensor]:
    """All that is random in one step, for the whole batch: which clips, captions kept, times `[B]` and noise."""
    rows = torch.randint(len(data["latents"]), (size,), generator=generator)
    kept = torch.rand(size, 1, generator=generator) >= DROPPED
    x0 = data["latents"][rows]  # [B, C, n, h, w]
    t = logit_normal_times(1.6)(size, generator)
    eps = torch.randn(x0.shape, generator=generator)
    return {"rows": rows, "x0": x0, "tokens": data["tokens"][rows] * kept, "t": t, "eps": eps}


def my_share(batch: dict[str, Tensor], index: int, count: int) -> dict[str, Tensor]:
    """The rows of process `index` of `count`; ValueError where the batch does not divide: the mean would be wrong."""
    size = len(batch["rows"])
    if size % count:
        raise ValueError(f"--batch must be a multiple of the number of processes, {count}, got {size}")
    each = size // count
    return {name: value[index * each : (index + 1) * each] for name, value in batch.items()}


def batch_loss(model: torch.nn.Module, batch: dict[str, Tensor]) -> Tensor:
    device = next(model.parameters()).device  # the batch is drawn on the CPU: the same numbers everywhere
    x0, tokens, t, eps = (batch[name].to(device) for name in ("x0", "tokens", "t", "eps"))
    request = Told(tokens, torch.zeros_like(x0), x0.new_zeros(x0.shape[0], x0.shape[2]))
    return denoising_loss(model, x0, t, eps, RectifiedFlow(), "v", request)


def average_gradients(model: torch.nn.Module, count: int) -> None:
    """Data parallelism by hand: the sum of the gradients of all processes, divided by how many they are."""
    weights = list(model.parameters())
    flat = torch.cat([p.grad.flatten() for p in weights])  # [P]
    if count > 1:
        torch.distributed.all_reduce(flat)  # afterwards every process holds the sum
    for weight, part in zip(weights, (flat / count).split([p.numel() for p in weights]), strict=True):
        weight.grad.copy_(part.view_as(weight))


def all_reduce_seconds(accelerator: Accelerator, numbers: int) -> float:
    """The median time of averaging so many numbers over all processes, with nothing else to do."""
    flat, seconds = torch.ones(numbers, device=accelerator.device), []
    for _ in range(9):
        accelerator.wait_for_everyone()
        began = time.perf_counter()
        accelerator.reduce(flat, reduction="mean")[0].item()  # a GPU answers only when it is done
        seconds.append(time.perf_counter() - began)
    return sorted(seconds)[4]


def run(args: argparse.Namespace) -> None:
    accelerator = Accelerator(cpu=True)
    index, count = accelerator.process_index, accelerator.num_processes
    torch.manual_seed(args.seed)  # the same weights in every process
    model = MiniSora(width=args.width, depth=args.depth, heads=4).to(accelerator.device)
    numbers = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    ema = EMA(model, 0.99)
    if not args.by_hand:
        model, optimizer = accelerator.prepare(model, optimizer)
    data, generator = load_file(args.data), torch.Generator().manual_seed(args.seed)
    losses, norms, seconds, rows = [], [], [], []
    for step in range(args.steps):
        began = time.perf_counter()
        share = my_share(global_batch(data, args.batch, generator), index, count)
        loss = batch_loss(model, share)
        optimizer.zero_grad()
        if args.by_hand:
            loss.backward()
            average_gradients(model, count)
        else:
            accelerator.backward(loss)  # averages the gradients on the way
        norms.append(accelerator.clip_grad_norm_(model.parameters(), CLIP).item())
        optimizer.param_groups[0]["lr"] = args.lr * learning_rate(step, args.steps)
        optimizer.step()
        ema.update(accelerator.unwrap_model(model))
        seconds.append(time.perf_counter() - began)
        losses.append(accelerator.gather(loss.detach()[None]).tolist())  # one of each process
        rows.append(accelerator.gather(share["rows"].to(accelerator.device)).view(count, -1).tolist())
    with torch.no_grad():
        after = batch_loss(ema.model, global_batch(data, args.batch, generator)).item()
    weights = sum(p.detach().double().abs().sum() for p in model.parameters())
    result = {
        "processes": count,
        "threads": torch.get_num_threads(),
        "parameters": numbers,
        "loss": [sum(each) / count for each in losses],
        "loss of each process": losses,
        "gradient norm": norms,
        "rows of each process": rows,
        "seconds": seconds,
        "loss of the average": after,
        "size of the weights in each process": accelerator.gather(weights[None]).tolist(),
        "all-reduce seconds": all_reduce_seconds(accelerator, numbers),
    }
    if accelerator.is_main_process:
        Path(args.out).write_text(json.dumps(result), encoding="utf-8")
    accelerator.end_training()  # closes the process group
    os._exit(0)  # all is written; torch's threads may still let go of tensors, which aborts an interpreter that ends


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="safetensors file with latents and tokens")
    parser.add_argument("--out", required=True, help="JSON file that the first process writes")
    for name, value in {"steps": 50, "batch": 16, "width": 64, "depth": 2, "seed": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--by-hand", action="store_true", help="average the gradients by hand, without accelerate")
    parser.add_argument("--lr", type=float, default=2e-3)
    args = parser.parse_args()
    if not Path(args.data).is_file():
        parser.error(f"--data: there is no file {args.data}")
    run(args)


if __name__ == "__main__":
    main()
