"""Checks of the exercises in chapters 11 to 16."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from sora_lib.marking import mark_function, mark_number, random_tensor


def video_tokens(answer: object) -> None:
    """Chapter 11: tokens of 33 frames of 48 x 64, 4 times smaller on each axis, first frame alone, patch (1, 2, 2)."""
    mistakes = [
        (384.0, "the first frame is a group by itself: 33 frames make 1 + 8 groups"),
        (1728.0, "that is the number of places of the latents; a patch covers 2 x 2 of them"),
        (1584.0, "time is compressed as well: 33 frames make 1 + 8 groups"),
        (216.0, "a patch of (1, 2, 2) covers one latent frame, not two"),
        (25344.0, "those are the tokens of the pixels; first make the video 4 times smaller on each axis"),
    ]
    mark_number("video_tokens", answer, 432.0, mistakes)


def patches_frames_first(answer: object) -> None:
    """Chapter 11: `patches_frames_first(x [B, F, C, H, W], pf, ph, pw)`, the tokens of `patchify`."""

    def cut(order: tuple[int, ...]) -> Callable:
        def patches(x: Tensor, pf: int, ph: int, pw: int) -> Tensor:
            b, f, c, h, w = x.shape
            x = x.reshape(b, f // pf, pf, c, h // ph, ph, w // pw, pw).permute(order)
            return x.reshape(b, -1, pf * ph * pw * c)

        return patches

    def reshaped(x: Tensor, pf: int, ph: int, pw: int) -> Tensor:
        b, f, c, h, w = x.shape
        return right(x.reshape(b, c, f, h, w).transpose(1, 2), pf, ph, pw)

    right = cut((0, 1, 4, 6, 2, 5, 7, 3))
    mistakes = [
        (reshaped, "a reshape does not exchange frames and channels, it deals the numbers out anew; use transpose"),
        (cut((0, 1, 4, 6, 2, 3, 5, 7)), "inside a patch the order is frame, row, column, channel: channels come last"),
        (cut((0, 1, 4, 6, 3, 2, 5, 7)), "inside a patch the channels come last, not first"),
        (cut((0, 4, 1, 6, 2, 5, 7, 3)), "frames and rows of the grid are exchanged: tokens come frame by frame"),
        (cut((0, 1, 6, 4, 2, 5, 7, 3)), "rows and columns of the grid are exchanged: tokens come row by row"),
        (cut((0, 1, 4, 6, 2, 7, 5, 3)), "rows and columns inside the patches are exchanged"),
        (cut((0, 1, 2, 3, 4, 5, 6, 7)), "a reshape alone gathers no patch; bring the inner halves together first"),
    ]
    inputs = [(random_tensor(2, 4, 3, 6, 10, seed=1), 2, 3, 5), (random_tensor(1, 6, 2, 4, 6, seed=2), 3, 2, 2)]
    mark_function("patches_frames_first", answer, right, inputs, mistakes)


def space_then_time(answer: object) -> None:
    """Chapter 11: `space_then_time(x [B, f h w, D], grid, attend)`, attention within frames, then within places."""

    def space(x: Tensor, grid: tuple, attend: Callable) -> Tensor:
        return attend(x.reshape(-1, grid[1] * grid[2], x.shape[2])).reshape(x.shape)

    def time(x: Tensor, grid: tuple, attend: Callable) -> Tensor:
        f, h, w = grid
        y = x.reshape(len(x), f, h * w, -1).transpose(1, 2)  # [B, h w, f, D]
        return attend(y.reshape(-1, f, x.shape[2])).reshape(y.shape).transpose(1, 2).reshape(x.shape)

    def dealt(x: Tensor, grid: tuple, attend: Callable) -> Tensor:
        return attend(space(x, grid, attend).reshape(-1, grid[0], x.shape[2])).reshape(x.shape)

    def both(x: Tensor, grid: tuple, attend: Callable) -> Tensor:
        return time(space(x, grid, attend), grid, attend)

    def mixed(x: Tensor) -> Tensor:
        weights = torch.softmax(x @ x.transpose(1, 2), dim=-1)  # [N, L, L]
        return weights @ x

    mistakes = [
        (dealt, "a reshape alone groups neighbours in the list; exchange frames and places before, and back after"),
        (lambda x, g, a: space(time(x, g, a), g, a), "the order: first within each frame, then over time"),
        (space, "that is the half within each frame; then the same place of all frames, over time"),
        (time, "that is the half over time; before it, the tokens of each frame among themselves"),
        (lambda x, g, a: a(x), "that is full attention: every token sees all the others"),
        (lambda x, g, a: space(x, g, a) + time(x, g, a), "one after the other: time works on what space gave"),
    ]
    inputs = [(random_tensor(2, 24, 4, seed=1), (2, 3, 4), mixed), (random_tensor(1, 30, 4, seed=2), (5, 3, 2), mixed)]
    mark_function("space_then_time", answer, both, inputs, mistakes)


def frames_seen(answer: object) -> None:
    """Chapter 12: frames that one latent frame of an encoder of depth 1 depends on: 4 a group, 2 groups and 2 more."""
    mistakes = [
        (12.0, "those are the three groups; the block before the grouping looks two frames further back"),
        (8.0, "the second block looks two LATENT frames back, and each of those is four frames"),
        (6.0, "that is the group and the first block; a second block works on the latent frames"),
        (10.0, "the second block sees its own latent frame and two before: three groups, not two"),
        (13.0, "count the frame itself as well"),
    ]
    mark_number("frames_seen", answer, 14.0, mistakes)


def causal_conv(answer: object) -> None:
    """Chapter 12: `causal_conv(x [B, C, F], weight [out, C, k])`, over this frame and the k - 1 before, zeros first."""

    def padded(x: Tensor, w: Tensor, left: int, right: int = 0, **how: str) -> Tensor:
        return conv1d(pad(x, (left, right), **how), w)[..., : x.shape[2]]

    mistakes = [
        (lambda x, w: padded(x, w, (w.shape[2] - 1) // 2, w.shape[2] // 2), "padded on both sides, it sees the future"),
        (lambda x, w: padded(x, w, w.shape[2] // 2, (w.shape[2] - 1) // 2), "padded on both sides, it sees the future"),
        (lambda x, w: padded(x, w, 0, w.shape[2] - 1), "the zeros belong before the first frame, not after the last"),
        (lambda x, w: padded(x, w, w.shape[2]), "one zero too many: the present frame belongs to it"),
        (lambda x, w: padded(x, w, w.shape[2] - 1, mode="replicate"), "before the first frame there are zeros"),
        (
            lambda x, w: padded(x, w.flip(2), w.shape[2] - 1),
            "the last weight is that of the present frame, not the first",
        ),
        (lambda x, w: padded(x, w, 2), "two zeros fit k = 3 alone; how many does a window of k need?"),
    ]
    inputs = [(random_tensor(2, 3, 7, seed=s), random_tensor(4, 3, k, seed=9)) for s, k in ((1, 3), (2, 4))]
    mark_function("causal_conv", answer, lambda x, w: padded(x, w, w.shape[2] - 1), inputs, mistakes)


def encode_end(answer: object) -> None:
    """Chapter 12: `encode_end(encode, x [B, C, F, H, W], last)`, `last` latent frames of the end, encoded by itself."""

    def encode(x: Tensor) -> Tensor:  # causal: each group of four, and a little of all before
        if x.shape[2] % 4 != 1:
            raise ValueError(f"encode takes 1 + 4n frames, got {x.shape[2]}")
        groups = torch.cat([x[:, :, :1].expand(-1, -1, 3, -1, -1), x], dim=2).unflatten(2, (-1, 4))
        return groups.mean(3) + 0.1 * groups.mean(3).cumsum(2)

    mistakes = [
        (lambda e, x, n: e(x)[:, :, -n:], "encoded with all that comes before: frames that are not given leak in"),
        (lambda e, x, n: e(x[:, :, -4 * n - 1 :])[:, :, -n:], "4 n + 1 frames are a group too many, and it leaks in"),
        (lambda e, x, n: e(x[:, :, -4 * n - 1 :]), "4 n + 1 frames give n + 1 latent frames; n are asked for"),
        (lambda e, x, n: e(x[:, :, : 4 * n - 3]), "that is the beginning of the film, not its end"),
    ]
    inputs = [(encode, random_tensor(1, 2, 17, 2, 3, seed=s), s) for s in (2, 3)]
    mark_function("encode_end", answer, lambda e, x, n: e(x[:, :, -(4 * n - 3) :]), inputs, mistakes)


def all_right(answer: object) -> None:
    """Chapter 13: percent of videos with all of four attributes right, each right in 95 %, mistakes independent."""
    mistakes = [
        (95.0, "that needs all mistakes to fall on the same videos; independent ones fall on different videos too"),
        (80.0, "5 % four times over counts videos with two mistakes twice"),
        (85.74, "that is three attributes; there are four"),
        (90.25, "that is two attributes; there are four"),
        (0.8145, "right as a share; asked for is a percentage"),
    ]
    mark_number("all_right", answer, 81.45, mistakes, tolerance=0.06)


def mean_of_words(answer: object) -> None:
    """Chapter 13: `mean_of_words(h [B, L, D], tokens [B, L])`, the mean over real words; token 0 is padding."""

    def real(tokens: Tensor) -> Tensor:
        return (tokens != 0)[..., None].float()

    mistakes = [
        (lambda h, k: h.mean(1), "padding counts: the same caption gives another vector when it is padded further"),
        (lambda h, k: (h * real(k)).mean(1), "the sum leaves padding out, but it is divided by all L places"),
        (lambda h, k: (h * real(k)).sum(1), "that is the sum; divide it by the number of real words"),
        (lambda h, k: (h * (1 - real(k))).sum(1) / (1 - real(k)).sum(1), "that is the mean over the padding"),
        (lambda h, k: (h * real(k)).sum(1) / real(k).sum(), "divide each caption by its own number of words"),
        (lambda h, k: h[:, 0], "that is the first word alone"),
    ]
    tokens = torch.tensor([[3, 1, 2, 0, 0], [4, 9, 0, 0, 0], [1, 1, 7, 5, 0]])
    inputs = [(random_tensor(3, 5, 4, seed=1), tokens), (random_tensor(2, 5, 2, seed=2), tokens[1:])]
    mark_function("mean_of_words", answer, lambda h, k: (h * real(k)).sum(1) / real(k).sum(1), inputs, mistakes)


def known_channels(answer: object) -> None:
    """Chapter 13: `known_channels(known [B, C, n, h, w], mask [B, n])`, what tells of known frames, C + 1 channels."""

    def built(known: Tensor, m: Tensor, shown: Tensor, last: bool = True) -> Tensor:
        parts = [known * m, shown.expand_as(known[:, :1])]
        return torch.cat(parts if last else parts[::-1], dim=1)

    def wide(mask: Tensor) -> Tensor:
        return mask[:, None, :, None, None]

    def right(known: Tensor, mask: Tensor) -> Tensor:
        return built(known, wide(mask), wide(mask))

    mistakes = [
        (lambda z, m: right(z, 1 - m), "the mask is flipped: it is 1 where a frame IS known"),
        (lambda z, m: built(z, wide(1 - m), wide(m)), "you blank the known frames and show those that nobody knows"),
        (lambda z, m: built(z, wide(m), wide(1 - m)), "the frames are right, the channel of the mask is flipped"),
        (lambda z, m: built(z, 1 + 0 * wide(m), wide(m)), "frames that are not known leak in; multiply by the mask"),
        (lambda z, m: built(z, wide(m), wide(m), last=False), "the mask comes last, after the latents' channels"),
        (lambda z, m: z * wide(m), "the channel of the mask is missing: zeros may be a known frame or an unknown one"),
    ]
    masks = torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    inputs = [(random_tensor(2, 3, 3, 2, 4, seed=s), m) for s, m in ((1, masks), (2, masks.flip(1)))]
    mark_function("known_channels", answer, right, inputs, mistakes)
