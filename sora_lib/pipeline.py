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
from .validate import check_choice, check_count, check_flag, check_memory, check_number, check_tensor

FAMILIES = {"mini-sora": "video-autoencoder"}  # a transformer, and the autoencoder in whose latents it works
BYTES_A_PIXEL = 640  # for each latent frame: measured 370 to 635 (1 to 33 frames, 96 to 256 pixels a side)


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
    start: Tensor | None = None,
    generator: torch.Generator | None = None,
    progress: bool = False,
) -> Tensor:
    """Latents `[B, C, n, h, w]` for what is told, by Heun's method, with guidance on the caption.

    start: latents at the first of the times `steps`; noise, drawn from the generator, if there are none.
    """
    flow = RectifiedFlow()
    check_tensor("request.known", request.known, [None] * 5)
    check_number("scale", scale, 0, 1000)
    check_flag("progress", progress)
    start = torch.randn(request.known.shape, generator=generator) if start is None else start
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
        num_frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 12,
        guidance_scale: float = 3.0,
        image: Tensor | None = None,
        last_image: Tensor | None = None,
        video: Tensor | None = None,
        strength: float = 0.8,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> VideoOutput:
        """Video for one prompt or several, each a caption in the words of `sora_lib.text`.

        num_frames is 1 + 4n (1 makes an image); height and width are multiples of 8, 32 or more; what is left out is
        that of the frames given, or 17 frames of 32 x 32. guidance_scale 1 is none. progress: show a bar.
        Frames to go by are images `[B, 3, H, W]` or clips `[B, 3, 1 + 4k, H, W]` in [0, 1], one a prompt or one for
        all: `image` is what the video starts with, `last_image` what it ends with, both known from the beginning.
        `video` is changed as the prompt says: noise is put on it up to t = strength, and taken away again (SDEdit,
        arXiv 2108.01073); strength 0 leaves it as it is, 1 leaves nothing of it.
        Raises ValueError or TypeError for a prompt that `parse` refuses, for frames of a wrong shape or range, for
        numbers out of range, and before anything is allocated for a request that would take more than 2 GB.
        """
        if not isinstance(prompt, str | list | tuple):
            raise TypeError(f"prompt must be a caption or a list of captions, got {type(prompt).__name__}")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise ValueError("prompt is an empty list; pass at least one caption")
        for each in prompts:
            parse(each)
        if video is not None and (image is not None or last_image is not None):
            raise ValueError("pass video, to change it, or image and last_image, to start and end with; not both")
        given = {"image": image, "last_image": last_image, "video": video}
        clips = {name: _clip(name, x, len(prompts)) for name, x in given.items() if x is not None}
        num_frames, height, width = _sizes(clips, num_frames, height, width)
        check_count("num_inference_steps", num_inference_steps)
        check_number("guidance_scale", guidance_scale, 0, 20)
        check_number("strength", strength, 0, 1)
        size = 1 + num_frames // 4, height // 4, width // 4
        needed = len(prompts) * size[0] * height * width * BYTES_A_PIXEL
        check_memory(f"{len(prompts)} x {num_frames} frames of {height} x {width}", needed)
        with torch.no_grad():
            known = {name: self.autoencoder.encode(2 * clip - 1) for name, clip in clips.items()}
        request = told(prompts, size, self.transformer.channels)
        first = known["image"].shape[2] if "image" in known else 0
        if first:
            request.known[:, :, :first], request.mask[:, :first] = known["image"], 1
        if "last_image" in known:
            last = known["last_image"].shape[2]
            request.known[:, :, -last:], request.mask[:, -last:] = known["last_image"], 1
        times, start = time_grid(num_inference_steps), None
        if "video" in known:
            times = strength * times
            eps = torch.randn(request.known.shape, generator=generator)
            start = RectifiedFlow().add_noise(known["video"], times[:1].float().expand(len(prompts)), eps)
        z = start
        if strength > 0 or start is None:
            options = {"scale": guidance_scale, "start": start, "generator": generator, "progress": progress}
            z = sample_latents(self.transformer, request, steps=times, **options)
        z[:, :, :first] = request.known[:, :, :first]
        with torch.no_grad():
            return VideoOutput((self.autoencoder.decode(z) + 1).div(2).clamp(0, 1))


def _clip(name: str, frames: object, batch: int) -> Tensor:
    """Frames to go by as a clip a prompt, `[batch, 3, 1 + 4k, H, W]`."""
    if isinstance(frames, Tensor) and frames.ndim == 4:
        frames = frames[:, :, None]
    frames = check_tensor(name, frames, [None, 3, None, None, None])
    if len(frames) not in (1, batch):
        raise ValueError(f"{name} must hold one clip, or one for each of {batch} prompts, got {len(frames)}")
    if frames.shape[2] % 4 != 1:
        raise ValueError(f"{name} must have 1 + 4k frames (1, 5, 9, ...), got {frames.shape[2]}")
    if frames.min() < 0 or frames.max() > 1:
        raise ValueError(f"{name} must lie in [0, 1], got {frames.min():.4g} to {frames.max():.4g}")
    return frames.expand(batch, -1, -1, -1, -1)


def _sizes(
    clips: dict[str, Tensor], num_frames: int | None, height: int | None, width: int | None
) -> tuple[int, int, int]:
    """Frames, height and width of the video: those asked for, where the clips to go by agree."""
    for name, value, least in (("num_frames", num_frames, 1), ("height", height, 32), ("width", width, 32)):
        if value is not None:
            check_count(name, value, least)
    sizes = {name: list(clip.shape[3:]) for name, clip in clips.items()}
    for name, (high, wide) in sizes.items():
        height, width = high if height is None else height, wide if width is None else width
        if [height, width] != [high, wide]:
            raise ValueError(f"{name} is {high} x {wide}, the video is to be {height} x {width}; sizes must agree")
    if "video" in clips:
        frames = clips["video"].shape[2]
        if num_frames not in (None, frames):
            raise ValueError(f"num_frames must be that of video, {frames}, got {num_frames}")
        num_frames = frames
    num_frames, height, width = (
        usual if value is None else value for value, usual in ((num_frames, 17), (height, 32), (width, 32))
    )
    if check_count("num_frames", num_frames) % 4 != 1:
        near = 1 + 4 * (num_frames // 4)
        raise ValueError(f"num_frames must be 1 + 4n (1, 5, 9, 13, 17, ...), got {num_frames}; {near} is near")
    for name, value in {"height": height, "width": width}.items():
        if check_count(name, value, 32) % 8:
            raise ValueError(f"{name} must be a multiple of 8, got {value}; {value // 8 * 8} is near")
    known = sum(1 + clip.shape[2] // 4 for name, clip in clips.items() if name != "video")
    if known > num_frames // 4:
        raise ValueError(
            f"image and last_image leave nothing to make: they fill {known} groups of four frames, and num_frames "
            f"{num_frames} is {1 + num_frames // 4}; ask for more frames, or give fewer"
        )
    return num_frames, height, width
