"""Text to video with the shipped weights. Names follow the `diffusers` library."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from .autoencoder import Autoencoder
from .denoisers import as_denoiser
from .mini_sora import MiniSora, Told, told
from .pretrained import load_pretrained
from .samplers import guided, heun, time_grid
from .schedules import RectifiedFlow
from .text import parse
from .validate import check_choice, check_count, check_number

FAMILIES = {"mini-sora": "video-autoencoder"}  # a transformer, and the autoencoder in whose latents it works
MEMORY = 2e9  # bytes: what one call may take
BYTES_A_PIXEL = 600  # for each latent frame: measured 460 to 600 (1 to 33 frames, 32 to 256 pixels a side)


@dataclass
class VideoOutput:
    """What a pipeline returns: frames `[B, 3, F, H, W]` in [0, 1]."""

    frames: Tensor


def sample_latents(
    model: nn.Module,
    request: Told,
    *,
    steps: int | Tensor = 15,
    scale: float = 3.0,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Latents `[B, C, n, h, w]` for what is told, from noise by Heun's method, with guidance on the caption."""
    flow, start = RectifiedFlow(), torch.randn(request.known.shape, generator=generator)
    denoise = as_denoiser(model, flow, "v", request)
    if scale != 1:
        denoise = guided(denoise, as_denoiser(model, flow, "v", request.without_caption()), scale)
    with tqdm(total=2 * (len(time_grid(steps)) - 1) - 1, disable=not progress) as bar:

        def counted(x_t: Tensor, t: Tensor) -> Tensor:
            bar.update()
            return denoise(x_t, t)

        return heun(counted, flow, start, steps)


class MiniSoraPipeline:
    """A transformer and an autoencoder that together make video of a caption."""

    def __init__(self, transformer: MiniSora, autoencoder: Autoencoder) -> None:
        self.transformer, self.autoencoder = transformer, autoencoder

    @classmethod
    def from_pretrained(cls, name: str = "mini-sora") -> "MiniSoraPipeline":
        """The pipeline of shipped weights. Raises as `load_pretrained` does where they are missing or changed."""
        check_choice("name", name, FAMILIES)
        return cls(load_pretrained(name), load_pretrained(FAMILIES[name]))

    def __call__(
        self,
        prompt: str | Sequence[str],
        *,
        num_frames: int = 17,
        height: int = 32,
        width: int = 32,
        num_inference_steps: int = 12,
        guidance_scale: float = 3.0,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> VideoOutput:
        """Video for one prompt or several, each a caption in the words of `sora_lib.text`.

        num_frames is 1 + 4n (1 makes an image); height and width are multiples of 8, 32 or more. guidance_scale 1 is
        none. progress: show a bar. Raises ValueError or TypeError for a prompt that `parse` refuses, for numbers out of
        range, and before anything is allocated for a request that would take more than 2 GB.
        """
        if not isinstance(prompt, str | list | tuple):
            raise TypeError(f"prompt must be a caption or a list of captions, got {type(prompt).__name__}")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise ValueError("prompt is an empty list; pass at least one caption")
        for each in prompts:
            parse(each)
        if check_count("num_frames", num_frames) % 4 != 1:
            near = 1 + 4 * (num_frames // 4)
            raise ValueError(f"num_frames must be 1 + 4n (1, 5, 9, 13, 17, ...), got {num_frames}; {near} is near")
        for name, value in {"height": height, "width": width}.items():
            if check_count(name, value, 32) % 8:
                raise ValueError(f"{name} must be a multiple of 8, got {value}; {value // 8 * 8} is near")
        check_count("num_inference_steps", num_inference_steps)
        check_number("guidance_scale", guidance_scale, 0, 20)
        size = 1 + num_frames // 4, height // 4, width // 4
        needed = len(prompts) * size[0] * height * width * BYTES_A_PIXEL
        if needed > MEMORY:
            raise ValueError(
                f"{len(prompts)} x {num_frames} frames of {height} x {width} would take about {needed / 1e9:.1f} GB of "
                f"memory, more than the {MEMORY / 1e9:.0f} GB accepted; ask for fewer, shorter or smaller videos"
            )
        request = told(prompts, size, self.transformer.channels)
        z = sample_latents(
            self.transformer,
            request,
            steps=num_inference_steps,
            scale=guidance_scale,
            generator=generator,
            progress=progress,
        )
        with torch.no_grad():
            return VideoOutput((self.autoencoder.decode(z) + 1).div(2).clamp(0, 1))
