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
        (81.0, "nearly; one decimal more, please"),
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


def frozen_error(answer: object) -> None:
    """Chapter 15: mean motion error of frozen videos; eight of nine ways move, at 0.5 or 1.5 pixels a frame."""
    mistakes = [
        (1.0, "that is the mean over what moves; one way in nine stands still, and there a frozen video is right"),
        (0.0, "the error is measured against the motion that was asked for, not from frame to frame"),
        (0.5, "that is the slow speed; half of what moves is fast"),
        (1.5, "that is the fast speed; half of what moves is slow"),
        (2.0, "that would be motion backwards: a frozen video is off by the speed, not by twice the speed"),
        (1.78, "that would be motion backwards: a frozen video is off by the speed, not by twice the speed"),
    ]
    mark_number("frozen_error", answer, 8 / 9, mistakes, tolerance=0.0105)


def keeps_subject(answer: object) -> None:
    """Chapter 15: `keeps_subject(logits [B, frames, subjects], wanted [B])`, the share right in every frame."""

    def hits(logits: Tensor, wanted: Tensor) -> Tensor:
        return logits.argmax(2) == wanted[:, None]  # [B, frames]

    def constant(logits: Tensor, _: Tensor) -> Tensor:
        seen = logits.argmax(2)
        return (seen == seen[:, :1]).all(1).float().mean()

    mistakes = [
        (lambda x, w: hits(x, w).float().mean(), "that is the share of frames; a video counts if all of its frames do"),
        (lambda x, w: hits(x, w).any(1).float().mean(), "one right frame is not enough; use all"),
        (lambda x, w: hits(x, w)[:, 0].float().mean(), "that is the first frame alone"),
        (lambda x, w: (x.mean(1).argmax(1) == w).float().mean(), "an average over frames hides those that are wrong"),
        (lambda x, w: hits(x, w)[:, -1].float().mean(), "that is the last frame alone"),
        (lambda x, w: hits(x, w)[:, [0, -1]].all(1).float().mean(), "that is the first and the last; what is between?"),
        (constant, "always the same subject is not enough: it must be the one that was asked for"),
        (lambda x, w: hits(x, w).all(1), "right for each video; asked for is the share, one number"),
        (lambda x, w: hits(x, w).all(1).float(), "right for each video; asked for is the share, one number"),
        (lambda x, w: hits(x, w).all(1).sum(), "that is how many; divide by the number of videos"),
    ]
    inputs = []
    for seed, (videos, frames) in enumerate(((8, 4), (10, 3), (13, 5))):
        wanted = torch.arange(videos) % 5
        logits = random_tensor(videos, frames, 5, seed=seed) + 1.5 * torch.eye(5)[wanted][:, None]
        logits[:4] += 20 * torch.eye(5)[wanted[:4]][:, None]  # right throughout
        logits[3] = logits[3].roll(1, 1)  # the same throughout, and wrong
        logits[4, 0] += 20 * torch.eye(5)[wanted[4]]  # on average right
        logits[4, -1] = logits[4, -1].roll(1) - 8 * torch.eye(5)[wanted[4]]
        logits[5] += 20 * torch.eye(5)[wanted[5] - 1]  # wrong on average, right in one frame
        logits[5, 1] = 9 * torch.eye(5)[wanted[5]]
        inputs.append((logits, wanted))
    mark_function("keeps_subject", answer, lambda x, w: hits(x, w).all(1).float().mean(), inputs, mistakes)


def nearest_other(answer: object) -> None:
    """Chapter 15: `nearest_other(x [N, D])`, the distance of each row to the nearest other row, `[N]`."""

    def right(x: Tensor) -> Tensor:
        return torch.cdist(x, x).fill_diagonal_(torch.inf).min(1).values

    mistakes = [
        (lambda x: torch.cdist(x, x).min(1).values, "each row is nearest to itself, at distance 0; leave it out"),
        (lambda x: torch.cdist(x, x).kthvalue(3, dim=1).values, "that is the second nearest other row"),
        (lambda x: torch.cdist(x, x).max(1).values, "that is the farthest row"),
        (lambda x: right(x) ** 2, "that is the squared distance"),
        (lambda x: torch.cdist(x, x).sum(1) / (len(x) - 1), "that is the mean distance to the others"),
        (lambda x: right(x).min(), "one distance for each row, not the smallest of all"),
        (lambda x: right(x).mean(), "one distance for each row, not their mean"),
        (
            lambda x: torch.cdist(x, x).fill_diagonal_(torch.inf).argmin(1).float(),
            "that is WHICH row is nearest; asked for is its distance",
        ),
    ]
    inputs = [(random_tensor(7, 3, seed=1),), (random_tensor(5, 4, seed=2),)]
    mark_function("nearest_other", answer, right, inputs, mistakes)


def lawful_loop(answer: object) -> None:
    """Chapter 14: frames until place and direction recur, for 1.5 pixels a frame in a room of 18: 2 * 18 / 1.5."""
    mistakes = [
        (12.0, "then it is at the other end of its way, or back but flying the other way; go on"),
        (21.33, "the thing is 14 pixels wide: its way is 18 pixels long, and it goes there and back"),
        (42.67, "the thing is 14 pixels wide: its way is 18 pixels long, not 32"),
        (36.0, "that is the way there and back in pixels; how many frames does it take?"),
        (72.0, "that is a slow thing, at half a pixel a frame"),
        (48.0, "that is twice round; it has been there before"),
        (25.0, "the 25th frame shows what the first did; a loop has each frame once"),
    ]
    mark_number("lawful_loop", answer, 24.0, mistakes)


def known_mask(answer: object) -> None:
    """Chapter 14: `known_mask(frames, first, last)`, the mask of latent frames, from numbers of frames 1 + 4k, or 0."""

    def mask(n: int, first: int, last: int) -> Tensor:
        return torch.tensor([float(i < first or i >= n - last) for i in range(n)])

    def groups(frames: int) -> int:
        return (frames + 3) // 4

    mistakes = [
        (lambda f, a, b: mask(f, a, b), "the mask counts latent frames: 1 + 4k frames make 1 + k of them"),
        (lambda f, a, b: mask(groups(f), a // 4, b // 4), "a given part of 1 + 4k frames fills 1 + k latent frames"),
        (lambda f, a, b: mask(groups(f), groups(a), b // 4), "the end is encoded by itself: its first frame counts"),
        (lambda f, a, b: mask(groups(f), 1 + a // 4, groups(b)), "0 frames given at the start fill no latent frame"),
        (lambda f, a, b: mask(groups(f), 1 + a // 4, 1 + b // 4), "0 given frames fill none, at either end"),
        (lambda f, a, b: mask(groups(f), groups(a), 1 + b // 4), "0 frames given at the end fill no latent frame"),
        (lambda f, a, b: mask(f // 4, groups(a), groups(b)), "the video's first frame is a latent frame of its own"),
        (lambda f, a, b: 1 - mask(groups(f), groups(a), groups(b)), "the mask is flipped: 1 where a frame IS known"),
        (lambda f, a, b: mask(groups(f), groups(b), groups(a)), "start and end are exchanged"),
        (lambda f, a, b: mask(groups(f), groups(a), 0), "the end is missing"),
        (lambda f, a, b: mask(groups(f), groups(a), groups(b) or groups(f)), "a slice of -0 takes all; none is given"),
    ]
    inputs = [(33, 9, 5), (17, 1, 0), (25, 0, 9)]
    mark_function("known_mask", answer, lambda f, a, b: mask(*map(groups, (f, a, b))), inputs, mistakes)


def closed_loop(answer: object) -> None:
    """Chapter 14: `closed_loop(video [B, 3, F, H, W], new, k)`, new from the video's last k frames to its first k."""

    def joined(video: Tensor, new: Tensor, left: int, right: int) -> Tensor:
        return torch.cat([video, new[:, :, left : new.shape[2] - right]], dim=2)

    mistakes = [
        (lambda v, n, k: joined(v, n, k, 0), "the first frames come twice: the end of `new` is the video's beginning"),
        (lambda v, n, k: joined(v, n, 0, k), "the last frames come twice: `new` begins with them"),
        (lambda v, n, k: joined(v, n, 0, 0), "the frames at both ends of `new` are in the video already"),
        (lambda v, n, k: joined(v, n, k - 1, k), "one frame comes twice, at the first seam"),
        (lambda v, n, k: joined(v, n, k, k - 1), "one frame comes twice: the loop ends before the first frame"),
        (lambda v, n, k: joined(v, n, k + 1, k), "one new frame is lost at the first seam"),
        (lambda v, n, k: n[:, :, k:-k], "those are the new frames alone; the video belongs to the loop"),
        (lambda v, n, k: torch.cat([n[:, :, k:-k], v], dim=2).flip(2), "played backwards; the video comes first"),
    ]
    inputs = [(random_tensor(1, 3, f, 2, 2, seed=f), random_tensor(1, 3, 13, 2, 2), k) for f, k in ((9, 5), (5, 1))]
    mark_function("closed_loop", answer, lambda v, n, k: joined(v, n, k, k), inputs, mistakes)
