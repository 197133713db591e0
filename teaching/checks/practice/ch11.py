"""Checks of the practice notebook of chapter 11."""

from collections.abc import Callable

import torch
from torch import Tensor

from sora_lib.marking import mark_function, mark_number, random_tensor


def seeming_speed(answer: object) -> None:
    """Chapter 11: how many times faster a thing seems with every second frame of 8 a second, shown at 12 a second."""
    mistakes = [
        (2.0, "that is from leaving out frames; those that are left also follow each other faster"),
        (1.5, "that is from showing frames faster; those that are left are also further apart"),
        (4 / 3, "both changes make it faster: neither takes back the other"),
        (0.75, "both changes make it faster"),
        (1 / 3, "that is how long it takes, compared with the world; the speed is the inverse"),
        (1.0, "the array knows no seconds, but whoever looks at it does"),
    ]
    mark_number("seeming_speed", answer, 3.0, mistakes)


def frames_for_circle(answer: object) -> None:
    """Chapter 11: the least number of latent frames whose offsets turn a pair of 0.5623 radians a frame all round."""
    mistakes = [
        (6.0, "that is the offset that is needed; between the first and the last of F frames it is F - 1"),
        (
            13.0,
            "half a turn each way is enough, and no single query has to see both: the first looks ahead, the last back",
        ),
        (
            12.0,
            "half a turn each way is enough, and no single query has to see both: the first looks ahead, the last back",
        ),
        (5.587, "that is the offset, not yet a whole number, and not yet frames"),
        (6.587, "frames are whole"),
        (5.0, "with 5 frames the largest offset is 4, and 4 times 0.5623 is less than half a turn"),
        (11.0, "the offsets -5 to 5 are 11, but 5 times 0.5623 is less than half a turn; and frames are asked for"),
    ]
    mark_number("frames_for_circle", answer, 7.0, mistakes)


def film_from_tokens(answer: object) -> None:
    """Chapter 11: `film_from_tokens(tokens [B, f h w, pf ph pw C], patch, grid)`, the film `[B, F, H, W, C]`."""

    def put(order: tuple[int, ...]) -> Callable:
        def film(tokens: Tensor, patch: tuple, grid: tuple) -> Tensor:
            x = tokens.reshape(len(tokens), *grid, *patch, -1).permute(order)
            return x.reshape(len(tokens), *(p * n for p, n in zip(patch, grid, strict=True)), -1)

        return film

    right = put((0, 1, 4, 2, 5, 3, 6, 7))
    mistakes = [
        (put((0, 1, 4, 3, 5, 2, 6, 7)), "that is the code of the task: look at what becomes of a row of blocks"),
        (put((0, 1, 4, 2, 6, 3, 5, 7)), "the blocks are in their places; inside each, rows and columns are exchanged"),
        (put((0, 1, 4, 3, 6, 2, 5, 7)), "now the whole picture is mirrored at its diagonal"),
        (put((0, 2, 4, 1, 5, 3, 6, 7)), "time and height of the grid are exchanged"),
        (put((0, 4, 1, 2, 5, 3, 6, 7)), "which block comes before which frame in it: only the first frames follow so"),
        (put((0, 1, 4, 5, 2, 6, 3, 7)), "which block comes before which row in it, and which column in it"),
        (put((0, 1, 2, 3, 4, 5, 6, 7)), "a reshape alone keeps the numbers of a token side by side"),
        (lambda *z: right(*z).movedim(-1, 1), "that is this course's order; in a file the channels come last"),
    ]
    inputs = [
        (random_tensor(2, 24, 36, seed=1), (2, 3, 2), (2, 3, 4)),
        (random_tensor(3, 12, 12, seed=2), (3, 2, 2), (1, 4, 3)),
    ]
    mark_function("film_from_tokens", answer, right, inputs, mistakes)


def velocity_at(answer: object) -> None:
    """Chapter 11: `velocity_at(start [B], u [B], room, i)`, the velocity in frame i of things between two walls."""

    def place(a: Tensor, u: Tensor, room: float, i: int) -> Tensor:
        return room - ((a + u * i).remainder(2 * room) - room).abs()

    def turned(back: Tensor, u: Tensor) -> Tensor:
        return torch.where(back, -u, u)

    def right(a: Tensor, u: Tensor, room: float, i: int) -> Tensor:
        return turned((a + u * i).remainder(2 * room) > room, u)

    def once(a: Tensor, u: Tensor, room: float, i: int) -> Tensor:
        free = a + u * i
        return turned((free < 0) | (free > room), u)

    mistakes = [
        (lambda a, u, r, i: turned(torch.fmod(a + u * i, 2 * r) > r, u), "fmod leaves negative numbers negative"),
        (
            lambda a, u, r, i: turned(((a + u * i) / r).int() % 2 != 0, u),
            "int() rounds towards 0: left of the first wall it must round down, as floor does",
        ),
        (once, "behind the mirrored world lies ours again: after two bounces it flies as at first"),
        (lambda a, u, r, i: place(a, u, r, i + 1) - place(a, u, r, i), "a step in which it bounces is too short"),
        (lambda a, u, r, i: place(a, u, r, i) - place(a, u, r, i - 1), "a step in which it bounces is too short"),
        (lambda a, u, r, i: u, "that is the velocity at the start; the walls are forgotten"),
        (
            lambda a, u, r, i: -right(a, u, r, i),
            "the sign: in our world it flies as at first, in the mirrored one back",
        ),
        (lambda a, u, r, i: right(a, u, r, i) / u.abs(), "that is the direction; the speed belongs to it"),
        (lambda a, u, r, i: right(a, u, r, i) * u.sign(), "a thing may fly to the left at the start, too"),
        (lambda a, u, r, i: turned((a + u * i).remainder(r) > r / 2, u), "there and back is twice the room"),
        (
            lambda a, u, r, i: turned((a / r + u * i / r).floor() > 0, u),
            "the left wall turns it round too, and a second bounce turns it back",
        ),
        (place, "that is where it is; asked for is how fast it flies, and which way"),
    ]
    inputs = []
    for seed, room, i in ((1, 18.0, 13), (2, 10.0, 20)):
        start = room * random_tensor(12, seed=seed).sigmoid()
        inputs.append((start, 1.7 * random_tensor(12, seed=seed + 10), room, i))
    mark_function("velocity_at", answer, right, inputs, mistakes)


def timed_angles(answer: object) -> None:
    """Chapter 11: `timed_angles(grid, fps, time_rates [m], space_rates [n])`, rotary angles `[f h w, m + 2 n]`."""

    def angles(
        grid: tuple, fps: float, rates: Tensor, space: Tensor, scale: tuple = (1.0, 0.0, 0.0), order: str = "fhw"
    ) -> Tensor:
        stretch = [(8 / fps) ** power for power in scale]
        axes = [torch.arange(n) * s for n, s in zip(grid, stretch, strict=True)]
        f, h, w = (x.flatten() for x in torch.meshgrid(*axes, indexing="ij"))
        parts = {"f": f[:, None] * rates, "h": h[:, None] * space, "w": w[:, None] * space}
        return torch.cat([parts[letter] for letter in order], dim=1)

    def columns_first(grid: tuple, *z: object) -> Tensor:
        f, h, w = grid
        return angles(grid, *z).unflatten(0, (f, h, w)).transpose(1, 2).reshape(f * h * w, -1)

    def whole(grid: tuple, fps: float, rates: Tensor, space: Tensor) -> Tensor:
        f, h, w = grid
        right = angles(grid, fps, rates, space)
        rounded = (8 * torch.arange(f) // fps).repeat_interleave(h * w)
        return torch.cat([rounded[:, None] * rates, right[:, len(rates) :]], dim=1)

    def seconds(grid: tuple, fps: float, *z: object) -> Tensor:
        return angles(grid, 8 * fps, *z)

    mistakes = [
        (
            lambda *z: angles(*z, scale=(0.0, 0.0, 0.0)),
            "fps is not used: a step counts the same, however long it takes",
        ),
        (lambda *z: angles(*z, scale=(-1.0, 0.0, 0.0)), "the wrong way: at 4 frames a second a step takes longer"),
        (lambda *z: angles(*z, scale=(1.0, 1.0, 1.0)), "rows and columns have nothing to do with time"),
        (lambda *z: angles(*z, scale=(0.0, 0.0, 1.0)), "that stretches the columns; time is the axis to stretch"),
        (lambda *z: angles(*z, scale=(0.0, 1.0, 0.0)), "that stretches the rows; time is the axis to stretch"),
        (lambda *z: angles(*z, order="fwh"), "after the frame comes the row, then the column"),
        (lambda *z: angles(*z, order="hwf"), "the pairs of the frame come first"),
        (columns_first, "tokens come row by row: the column changes fastest"),
        (whole, "the frame need not be whole: no rounding"),
        (seconds, "those are seconds; the rates are per frame at 8 frames a second"),
    ]
    inputs = [
        ((3, 2, 4), 4.0, torch.tensor([1.0, 0.3, 0.1]), torch.tensor([0.8, 0.2])),
        ((4, 3, 2), 12.0, torch.tensor([0.7, 0.2]), torch.tensor([1.0, 0.5, 0.1])),
    ]
    mark_function("timed_angles", answer, angles, inputs, mistakes)


def past_mask(answer: object) -> None:
    """Chapter 11: `past_mask(grid)` to `[N, N]`: 1 where query (row) and key (column) may meet, no key being later."""

    def frame(grid: tuple) -> Tensor:
        return torch.arange(grid[0] * grid[1] * grid[2]) // (grid[1] * grid[2])

    def compare(q: Tensor, k: Tensor) -> Tensor:
        return (k[None, :] <= q[:, None]).float()

    def counted(grid: tuple) -> Tensor:
        return torch.arange(grid[0] * grid[1] * grid[2])

    mistakes = [
        (lambda g: compare(counted(g), counted(g)), "that hides a frame's later tokens, which are not later in time"),
        (lambda g: compare(frame(g), frame(g)).T, "rows are queries, columns are keys: this one sees only the future"),
        (lambda g: 1 - compare(frame(g), frame(g)), "the mask is flipped: 1 is where a key may be looked at"),
        (lambda g: 1 - compare(frame(g), frame(g)).T, "tokens of the same frame may look at each other"),
        (lambda g: (frame(g)[:, None] == frame(g)).float(), "the frames before are to be seen as well"),
        (lambda g: compare(counted(g) // g[2], counted(g) // g[2]), "those are rows of the picture, not frames"),
        (
            lambda g: compare(counted(g) % g[0], counted(g) % g[0]),
            "tokens come frame by frame: all of one, then the next",
        ),
        (
            lambda g: compare(counted(g) // g[0], counted(g) // g[0]),
            "a frame has h w tokens; f is the number of frames",
        ),
        (
            lambda g: torch.zeros(len(frame(g)), len(frame(g))).masked_fill(
                compare(frame(g), frame(g)) == 0, -torch.inf
            ),
            "that is what is added to the scores; 1 and 0 are asked for",
        ),
        (lambda g: torch.kron(torch.ones(g[0], g[0]), torch.eye(g[1] * g[2])), "that is the same place at all times"),
    ]
    mark_function("past_mask", answer, lambda g: compare(frame(g), frame(g)), [((3, 2, 4),), ((2, 3, 5),)], mistakes)
