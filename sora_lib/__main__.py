"""Text to video on the command line: python -m sora_lib "a red seven moving up" --out seven.png"""

import argparse
import sys
from pathlib import Path

import torch

from .files import write_whole
from .pipeline import MiniSoraPipeline
from .plotting import video_png


def main() -> int:
    """Read the command line, make the video, write it as an animated PNG; 2 where something asked for is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m sora_lib",
        description="Make a video of a caption with the shipped Mini-Sora, as an animated PNG.",
        epilog='Captions name one or two things: "a red seven moving up slowly", "a blue circle behind a white two".',
    )
    parser.add_argument("prompt", help="the caption")
    parser.add_argument("--out", type=Path, required=True, help="the file to write, ending in .png")
    parser.add_argument("--frames", type=int, default=17, help="1, 5, 9, ... (default 17)")
    parser.add_argument("--height", type=int, default=32, help="pixels, a multiple of 8 (default 32)")
    parser.add_argument("--width", type=int, default=32, help="pixels, a multiple of 8 (default 32)")
    parser.add_argument("--steps", type=int, default=12, help="steps of the sampler (default 12)")
    parser.add_argument("--guidance", type=float, default=3.0, help="guidance scale (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, another video (default 0)")
    parser.add_argument("--zoom", type=int, default=6, help="how many times larger to show each pixel (default 6)")
    args = parser.parse_args()
    try:
        if args.out.suffix.lower() != ".png":
            raise ValueError(f"--out must end in .png, got {args.out}")
        if not args.out.parent.is_dir():
            raise FileNotFoundError(f"--out: there is no folder {args.out.parent}")
        frames = MiniSoraPipeline.from_pretrained()(
            args.prompt,
            num_frames=args.frames,
            height=args.height,
            width=args.width,
            num_inference_steps=args.steps,
            guidance_scale=args.guidance,
            generator=torch.Generator().manual_seed(args.seed),
            progress=sys.stderr.isatty(),
        ).frames
        write_whole("--out", args.out, video_png(frames, zoom=args.zoom))
    except (ValueError, TypeError, OSError) as error:
        print("error:", *str(error).splitlines(), file=sys.stderr)  # one line, whatever a name holds
        return 2
    sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold letters that the output lacks
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
