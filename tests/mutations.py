# ruff: noqa: E501
"""Plant real bugs in the library, one at a time, and see that its tests catch each: `python tests/mutations.py`.

Each line is a bug that was made in a published course or repository, or its nearest relative. The library is copied,
so nothing here is changed. Five to ten minutes on quiet cores; the exit code is 1 if a bug survives.
`test_mutations.py` sees to it that every line still fits the code.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# what goes wrong, file, the text, what takes its place, the tests that must notice
MUTATIONS = [
    ("beta in place of its square root", "samplers", "sigma_s * sqrt(v) / sigma_t", "sigma_s**2 * v / sigma_t**2", "samplers"),
    ("uniform noise", "samplers", "torch.randn(x.shape, generator", "torch.rand(x.shape, generator", "samplers"),
    ("no root on 1 - alpha_bar", "schedules", "torch.sqrt(-torch.expm1(log_alpha_bar))", "-torch.expm1(log_alpha_bar)", "schedules"),
    ("cosine without its square", "schedules", "torch.sqrt((1 - alpha**2).clamp(min=0))", "torch.sqrt((1 - alpha).clamp(min=0))", "schedules"),
    ("product to T in place of t", "schedules", "torch.log1p(-betas).cumsum(0)", "torch.log1p(-betas).sum().expand(steps)", "schedules"),
    ("noise at the last step", "samplers", "        if s == 0:\n            return x0_hat\n        (alpha_t, sigma_t, *_), (alpha_s, sigma_s, *_) = _at(schedule, t), _at(schedule, s)\n        a =", "        (alpha_t, sigma_t, *_), (alpha_s, sigma_s, *_) = _at(schedule, t), _at(schedule, s)\n        sigma_s = max(sigma_s, 0.05)\n        a =", "samplers"),
    ("the limit of sigma sigma_dot at t = 0", "schedules", "return -alpha * alpha_dot\n", "return sigma * sigma_dot\n", "schedules"),
    ("data and noise exchanged", "schedules", "return 1 - t, t, -torch.ones_like(t), torch.ones_like(t)", "return t, 1 - t, torch.ones_like(t), -torch.ones_like(t)", "schedules"),
    ("velocity with the wrong sign", "samplers", "alpha_dot * x0_hat + sigma_dot *", "alpha_dot * x0_hat - sigma_dot *", "samplers"),
    ("Heun without its correction", "samplers", "return x + (s - t) * (v_t + v_s) / 2", "return x + (s - t) * v_t", "samplers"),
    ("Heun corrects at the old time", "samplers", "x + (s - t) * v_t, s)", "x + (s - t) * v_t, t)", "samplers"),
    ("guidance off by one", "samplers", "return uncond + scale * (", "return uncond + (1 + scale) * (", "guidance"),
    ("guidance from the conditional side", "samplers", "return uncond + scale * (cond_denoise(x_t, t) - uncond)", "cond = cond_denoise(x_t, t)\n        return cond + scale * (cond - uncond)", "guidance"),
    ("guidance on some channels only", "samplers", "return uncond + scale * (cond_denoise(x_t, t) - uncond)", "guided = uncond + scale * (cond_denoise(x_t, t) - uncond)\n        return torch.cat([guided[:, :1], uncond[:, 1:]], dim=1)", "guidance"),
    ("the condition never reaches the network", "denoisers", "model(x_t, t) if cond is None else model(x_t, t, cond)", "model(x_t, t)", "guidance"),
    ("training drops the condition", "training", "output = model(x_t, t) if cond is None else model(x_t, t, cond)", "output = model(x_t, t)", "guidance training"),
    ("a network that ignores t", "denoisers", "self.norm(h) + self.time(time)", "self.norm(h)", "denoisers"),
    ("time embedding without its sine", "denoisers", "torch.cat([angles.sin(), angles.cos()], dim=1)", "torch.cat([angles, angles], dim=1)", "denoisers"),
    ("a missing activation", "denoisers", "nn.Linear(width, width), nn.SiLU(), nn.Linear", "nn.Linear(width, width), nn.Identity(), nn.Linear", "denoisers"),
    ("EMA with its factors exchanged", "training", "average.lerp_(weight, 1 - decay)", "average.lerp_(weight, decay)", "training"),
    ("target of v from the wrong curves", "schedules", "return self._mix(2, x0, t, eps)", "return self._mix(1, x0, t, eps)", "training"),
    ("random tensors for data", "oracle", "means = self.means[which]", "means = torch.randn(n, self.means.shape[1])", "oracle"),
    ("responsibilities without the weights", "oracle", "torch.addmm(self.weights.log().to(x_t), query", "torch.addmm(torch.zeros_like(self.weights).to(x_t), query", "oracle"),
    ("swapped axes in unpatchify", "transformer", 'return rearrange(tokens, f"{after} -> {before}"', 'return rearrange(tokens, f"{after} -> {before}".replace("(f h w)", "(f w h)")', "transformer"),
    ("rows and columns of a patch exchanged", "transformer", "pf ph pw c)", "pf pw ph c)", "transformer"),
    ("rotary positions on the query alone", "transformer", "rotate(k, angles)", "k", "transformer"),
    ("rotary positions on the value too", "transformer", "rotate(k, angles), v, mask)", "rotate(k, angles), rotate(v, angles), mask)", "transformer"),
    ("a rotation that is none", "transformer", "torch.polar(torch.ones_like(angles), angles)", "torch.polar(1 + angles, angles)", "transformer"),
    ("a rotation the other way", "transformer", "torch.polar(torch.ones_like(angles), angles)", "torch.polar(torch.ones_like(angles), -angles)", "transformer"),
    ("pairs of halves, not of neighbours", "transformer", "x.unflatten(-1, (-1, 2))", "x.unflatten(-1, (2, -1)).mT", "transformer"),
    ("pairs at odd places are not copied", "transformer", "x = x.clone(memory_format=torch.contiguous_format)", "pass", "transformer"),
    ("row and column share one angle", "transformer", "places[:, [i]]", "places[:, [2 * (i > 0)]]", "transformer"),
    ("gates that do not start at zero", "transformer", "self.modulation = _zero(nn.Linear(width, 6 * width))", "self.modulation = nn.Linear(width, 6 * width)", "transformer"),
    ("GELU by an approximation", "transformer", "nn.Linear(width, 4 * width), nn.GELU()", 'nn.Linear(width, 4 * width), nn.GELU("tanh")', "transformer"),
    ("tokens without an activation", "transformer", "nn.Linear(width, 4 * width), nn.GELU()", "nn.Linear(width, 4 * width), nn.Identity()", "transformer"),
    ("one gate for both", "transformer", "gate2 * self.mlp", "gate1 * self.mlp", "transformer"),
    ("scale without its 1", "transformer", "torch.addcmul(shift, x, 1 + scale)", "torch.addcmul(shift, x, scale)", "transformer"),
    ("heads and numbers exchanged", "transformer", "(three h d) -> three b h n d", "(three d h) -> three b h n d", "transformer"),
    ("label ignored", "transformer", "return self.embed_label(label)", "return 0.0 * self.embed_label(label)", "transformer"),
    ("Frechet distance of standard deviations", "metrics", "torch.atleast_2d(torch.cov(x.T))", "torch.cov(x.T).diag().diag()", "metrics"),
    ("Frechet distance without the means", "metrics", "(a.mean(0) - b.mean(0)).square().sum() + s_a", "s_a", "metrics"),
    ("precision and recall exchanged", "metrics", "return precision, (between", "return (between <= radius_generated).any(dim=1).float().mean().item(), precision\n    return precision, (between", "metrics"),
    ("a point is its own neighbour", "metrics", "kthvalue(neighbours + 1, dim=1)", "kthvalue(neighbours, dim=1)", "metrics"),
    ("held out is not held out", "datasets", '"test": slice(898, None)', '"test": slice(None, 898)', "datasets"),
    ("the draw with the variance for its root", "autoencoder", "(log_var / 2).exp()", "log_var.exp()", "autoencoder"),
    ("KL without its half", "autoencoder", "- 1 - log_var) / 2", "- 1 - log_var)", "autoencoder"),
    ("latents scaled by the variance", "autoencoder", "self.std.copy_(std)", "self.std.copy_(std**2)", "autoencoder"),
    ("normalisation not undone", "autoencoder", "return self.decoder(z * std + mean)", "return self.decoder(z)", "autoencoder"),
    ("no draw", "autoencoder", "mean + (log_var / 2).exp() * eps", "mean", "autoencoder"),
    ("mean and log variance exchanged", "autoencoder", "mean, log_var = output.chunk(2, dim=1)", "log_var, mean = output.chunk(2, dim=1)", "autoencoder"),
    ("a token that is hidden is looked at", "transformer", "rotate(k, angles), v, mask)", "rotate(k, angles), v)", "transformer text"),
    ("a future frame leaks", "autoencoder", "(0, 0, 0, 0, 0, 0, 2, 0)", "(0, 0, 0, 0, 0, 0, 1, 1)", "autoencoder"),
    ("a norm over the frames, like GroupNorm's", "autoencoder", "silu(self.norm(h))", "silu(self.norm(h - h.mean(1, keepdim=True)))", "autoencoder"),
    ("no look at the frames before", "autoencoder", "past[:, i : i + frames]", "past[:, 2 : 2 + frames]", "autoencoder"),
    ("frames dealt out like cards", "autoencoder", "b (f pf) h w c", "b (pf f) h w c", "autoencoder"),
    ("zeros before the first frame", "autoencoder", "[h[:, :1].expand(", "[0 * h[:, :1].expand(", "autoencoder"),
    ("the last frame before the first", "autoencoder", "[h[:, :1].expand(", "[h[:, -1:].expand(", "autoencoder"),
    ("the wrong frames of the groups kept", "autoencoder", "pf=4)[:, 3:]", "pf=4)[:, :-3]", "autoencoder"),
    ("Muon gets no learning rate", "training", "for optimizer in state.optimizers.values():\n                    optimizer.param", "for optimizer in list(state.optimizers.values())[:1]:\n                    optimizer.param", "training"),
    ("Muon is asked for and not used", "training", "if p.ndim == 2] if muon", "if p.ndim == 2][:0] if muon", "training"),
    ("Muon moves what Adam moves too", "training", "if id(p) not in chosen]", "if True]", "training"),
    ("the checkpoint forgets one optimizer", "training", "for name, optimizer in state.optimizers.items():", "for name, optimizer in list(state.optimizers.items())[:1]:", "training"),
    ("mask inverted", "mini_sora", "[known * mask, mask]", "[known * (1 - mask), 1 - mask]", "mini_sora"),
    ("known frames not masked", "mini_sora", "[known * mask, mask]", "[known, mask]", "mini_sora"),
    ("the mask is not told", "mini_sora", "[known * mask, mask]", "[known * mask, 0 * mask]", "mini_sora"),
    ("caption ignored", "mini_sora", ".to(x_t)) + words", ".to(x_t)) + 0 * words", "mini_sora"),
    ("guidance against the same caption", "mini_sora", "torch.zeros_like(self.tokens)", "self.tokens", "mini_sora"),
    ("guidance against other frames", "mini_sora", "self.known, self.mask)", "self.known, 0 * self.mask)", "mini_sora"),
    ("places not told", "mini_sora", "absolute=True", "absolute=False", "mini_sora"),
    ('"behind" not turned when read', "text", 'things[::-1] if order == "behind" else things', "things", "text"),
    ('"behind" not turned when said', "text", 'f"{far} behind {near}"', 'f"{near} behind {far}"', "text"),
    ("up right read as up", "text", "for n in (2, 1) if", "for n in (1, 2) if", "text"),
    ("a word that is the padding", "text", "enumerate(WORDS, start=1)", "enumerate(WORDS)", "text"),
    ("padding attended", "text", "angles, real[:, None, None])", "angles)", "text"),
    ("padding in the mean", "text", "(h * real[..., None]).sum(1) / real.sum(1, keepdim=True)", "h.mean(1)", "text"),
    ("the order of words lost", "text", "attention(self.norms[2 * i](h), angles,", "attention(self.norms[2 * i](h), 0 * angles,", "text"),
    ("no caption is 0 / 0", "text", "(tokens != PAD) | (torch.arange(tokens.shape[1], device=tokens.device) == 0)", "tokens != PAD", "text"),
    ("diagonals faster", "datasets", "way / way.norm().clamp(min=1) *", "way *", "datasets"),
    ("y up", "datasets", 'float("down" in words) - ("up" in words)', 'float("up" in words) - ("down" in words)', "datasets"),
    ("out at one wall, in at the other", "datasets", "room[:, None] - (free.remainder(2 * room[:, None]) - room[:, None]).abs()", "free.remainder(room[:, None])", "datasets"),
    ("a wall that stops", "datasets", "room[:, None] - (free.remainder(2 * room[:, None]) - room[:, None]).abs()", "free.clamp(min=0).minimum(room[:, None])", "datasets"),
    ("a wall within the first steps", "datasets", "low, high = (-ahead).clamp(min=0), room - ahead.clamp(min=0)", "low, high = 0 * ahead, room", "datasets"),
    ("near and far exchanged", "datasets", "for i in reversed(range(n)):", "for i in range(n):", "datasets"),
    ("blue for red", "datasets", "RGB[thing.color] for thing", "RGB[thing.color][::-1] for thing", "datasets"),
    ("x and y of a picture exchanged", "datasets", "(size - 2 * centers) / SIZE", "(size - 2 * centers.flip(-1)) / SIZE", "datasets"),
    ("corners for centres", "datasets", "corners + SIZE / 2", "corners", "datasets"),
    ("half a pixel off", "datasets", "height, width], align_corners=False)", "height, width], align_corners=True)", "datasets"),
    ("handwriting of the training half", "datasets", "    images, labels = digits(part)\n", '    images, labels = digits("train")\n', "datasets"),
    ("held out and training exchanged", "datasets", 'held_out(thing) == (combinations == "held out")', 'held_out(thing) != (combinations == "held out")', "datasets"),
    ("directions not held out", "datasets", "((thing.subject, thing.color), (thing.subject, thing.direction))", "((thing.subject, thing.color),)", "datasets"),
    ("two things of one colour", "datasets", "if allowed and thing.color not in [other.color for other in scene]", "if allowed", "datasets"),
    ("x and y of a centre exchanged", "metrics", "(light.sum(2) * x).sum(2) / total, (light.sum(3) * y).sum(2) / total", "(light.sum(3) * y).sum(2) / total, (light.sum(2) * x).sum(2) / total", "metrics"),
    ("errors that cancel", "metrics", "(moved - velocities[:, None]).norm(dim=2).mean(1)", "(moved - velocities[:, None]).mean(1).norm(dim=1)", "metrics"),
    ("motion judged past the first bounce", "metrics", "video.amax(1)[:, :9:2]", "video.amax(1)[:, :17:4]", "metrics"),
    ("motion read from the looks", "metrics", "looks if name in LOOKS else motion", "looks", "metrics"),
    ("what was not asked for is wrong", "metrics", "right[k] | ~asked[k]", "right[k]", "metrics"),
    ("what was not asked for counts", "metrics", "right[kind][asked[kind]]", "right[kind]", "metrics"),
    ("more noise for less", "training", "(mean + std * torch.randn", "(-mean + std * torch.randn", "training"),
    ("times not asked", "training", "t = times(len(x0)", "t = uniform_times(len(x0)", "training"),
    ("the pipeline forgets the guidance scale", "pipeline", '"scale": guidance_scale', '"scale": 1.0', "pipeline"),
    ("the pipeline takes the last image for the first", "pipeline", "request.known[:, :, -last:]", "request.known[:, :, :last]", "pipeline"),
    ("the pipeline's mask marks the wrong end", "pipeline", "request.mask[:, -last:]", "request.mask[:, :last]", "pipeline"),
    ("the pipeline tells no mask of the first frames", "pipeline", 'request.mask[:, :first] = known["image"], 1', 'request.mask[:, :first] = known["image"], 0', "pipeline"),
    ("the video's known start is what the network made of it", "pipeline", "z[:, :, :first] = request.known[:, :, :first]", "pass", "pipeline"),
    ("SDEdit starts with all the noise", "pipeline", "times = strength * times", "times = 1.0 * times", "pipeline"),
    ("SDEdit starts from noise alone", "pipeline", '"start": start, ', "", "pipeline"),
    ("known frames go in as pixels in [0, 1]", "pipeline", "encode(2 * clip - 1)", "encode(clip)", "pipeline"),
    ("guidance against the prompt itself", "pipeline", 'as_denoiser(model, flow, "v", request.without_caption())', 'as_denoiser(model, flow, "v", request)', "pipeline"),
    ("height and width exchanged", "pipeline", "size = 1 + num_frames // 4, height // 4, width // 4", "size = 1 + num_frames // 4, width // 4, height // 4", "pipeline"),
    ("pixels left in -1 to 1", "pipeline", "(self.autoencoder.decode(z) + 1).div(2).clamp(0, 1)", "self.autoencoder.decode(z).clamp(0, 1)", "pipeline"),
    ("any attribute right counts as all", "metrics", "for k in wanted]).all(0)", "for k in wanted]).any(0)", "metrics"),
    ("what nobody asked for counts as wrong", "metrics", "right[k] | ~asked[k]", "right[k]", "metrics"),
    ("one temporary name for all that save", "files", '{path.name}.{secrets.token_hex(4)}.partial', '{path.name}.partial', "faults"),
    ("half a file left behind", "files", "partial.unlink(missing_ok=True)", "pass", "faults"),
    ("the checksum is not compared", "training", "if not unchanged and (", "if False and (", "faults"),
    ("a new checkpoint passes for an older one", "training", ' or "sha256" in header)', ")", "faults"),
    ("an interrupted step has drawn its noise", "training", "state.generator.set_state(random)", "pass", "faults"),
    ("an interrupted step has moved the buffers", "training", "buffer.copy_(before)", "pass", "faults"),
    ("an interrupt cuts a step in half", "training", "with _no_interrupt():", "if True:", "faults"),
    ("an interrupt is held back for ever", "training", "signal.raise_signal(signal.SIGINT)", "pass", "faults"),
    ("a gradient of NaN moves the weights", "training", "if not math.isfinite(gradient.dot(gradient).item()):", "if False:", "faults"),
    ("a request of any size is accepted", "validate", "if needed > MEMORY:", "if False:", "faults"),
]  # fmt: skip


def survivors() -> list[str]:
    """Plant each bug in a copy, run its tests there, and return the names of the bugs that no test noticed."""
    alive = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("sora_lib", "tests", "teaching", "training", "pyproject.toml", "dev.py", "requirements.txt"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
        for what, file, old, new, tests in MUTATIONS:
            path = copy / "sora_lib" / f"{file}.py"
            code = path.read_text(encoding="utf-8")
            path.write_text(code.replace(old, new, 1), encoding="utf-8")
            files = [f"tests/test_{test}.py" for test in tests.split()]
            command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:nbval", "-p", "no:cacheprovider", *files]
            run = subprocess.run(
                command, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, capture_output=True, text=True
            )
            path.write_text(code, encoding="utf-8")
            first = next((line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "")
            print(f"{'caught' if first else 'SURVIVED'}: {what}. {first[:100]}", flush=True)
            if not first:
                alive.append(what)
    return alive


if __name__ == "__main__":
    left = survivors()
    print(f"{len(MUTATIONS)} bugs planted, {len(MUTATIONS) - len(left)} caught")
    sys.exit(bool(left))
