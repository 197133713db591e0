"""Checks of the practice notebook of chapter 12."""

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from sora_lib.marking import mark_function, mark_number, random_tensor


def joint_psnr(answer: object) -> None:
    """Chapter 12: the PSNR of two clips together, of equal size, which have 30 and 20 dB by themselves."""
    mistakes = [
        (25.0, "that is the mean of the decibels; average the errors, then take the logarithm"),
        (19.586, "that is the sum of the two errors; both clips together have twice as many pixels as well"),
        (20.0, "that is the worse clip; the better one makes the mean error smaller"),
        (23.63, "that averages the roots of the errors; the mean squared error is a mean of squares"),
        (50.0, "decibels of two clips do not add"),
    ]
    mark_number("joint_psnr", answer, 22.596, mistakes)


def waiting_time(answer: object) -> None:
    """Chapter 12: seconds from frame 5 to the moment when its latent is final, at 8 frames a second, 1 + 4n."""
    mistakes = [
        (0.5, "the group has four frames, but from its first to its last it is three steps"),
        (0.0, "causal means that nothing after the group is needed; but the group itself has to be complete"),
        (1.375, "that waits for the end of a clip of 17 frames; only its own group is needed"),
        (3.0, "those are frames; how many seconds are they?"),
        (1.0, "that is when the last frame of the group comes; count from frame 5"),
        (0.25, "with groups of four from the start, frame 5 would be in 4 to 7; the first frame has one of its own"),
    ]
    mark_number("waiting_time", answer, 0.375, mistakes)


def byte_psnr(answer: object) -> None:
    """Chapter 12: `byte_psnr(decoded [B, 3, F, H, W], film)`, uint8 both, the PSNR of all clips together."""

    def decibels(error: Tensor, peak: float = 255.0**2) -> Tensor:
        return 10 * (peak / error).log10()

    def error(a: Tensor, b: Tensor) -> Tensor:
        return (a.float() - b.float()).square()

    def per_clip(a: Tensor, b: Tensor) -> Tensor:
        return decibels(error(a, b).mean((1, 2, 3, 4)))

    mistakes = [
        (
            lambda a, b: decibels(((a - b) ** 2).float().mean()),
            "that is the code of the task: what is 255 squared, in a type that holds 0 to 255?",
        ),
        (
            lambda a, b: decibels((a - b).float().square().mean()),
            "the difference is still taken in bytes: 3 - 5 gives 254",
        ),
        (
            lambda a, b: decibels(((a.short() - b.short()) ** 2).float().mean()),
            "a type of 16 bits ends at 32767, and 255 squared is larger",
        ),
        (lambda a, b: decibels(error(a, b).mean(), 1.0), "a peak of 1 belongs to pixels in [0, 1]"),
        (lambda a, b: decibels(error(a, b).mean(), 4.0), "a peak of 2 belongs to pixels in [-1, 1]"),
        (lambda a, b: decibels(error(a, b).mean(), 256.0**2), "256 is how many values there are; what is the range?"),
        (lambda a, b: decibels(error(a, b).mean(), 255.0), "the range is squared, as the error is"),
        (
            lambda a, b: decibels((a.float() - b.float()).abs().mean() ** 2),
            "that squares the mean; the mean of the squares is asked for",
        ),
        (lambda a, b: per_clip(a, b).mean(), "average the errors over the clips, not their decibels"),
        (per_clip, "those are the clips one by one; one number for all is asked for"),
        (lambda a, b: decibels(error(a, b).sum()), "that is the sum over all pixels; take the mean"),
        (lambda a, b: 2 * decibels(error(a, b).mean()), "20 times the logarithm is for the root of the ratio"),
        (lambda a, b: decibels(error(a, b).mean()) * 2.302585, "that is the natural logarithm; decibels have base 10"),
        (lambda a, b: -decibels(error(a, b).mean()), "the sign: a smaller error gives more decibels"),
    ]
    inputs = []
    for seed, shape in ((1, (2, 3, 5, 4, 6)), (2, (3, 3, 1, 5, 2))):
        size = torch.tensor([4.0, 60.0, 150.0])[: shape[0]].view(-1, 1, 1, 1, 1)
        film = 255 * random_tensor(*shape, seed=seed).sigmoid()
        decoded = (film + size * random_tensor(*shape, seed=seed + 10)).clamp(0, 255)
        decoded[:, :, 0, 0, 0], film[:, :, 0, 0, 0] = 255.0, 0.0
        inputs.append((decoded.byte(), film.byte()))
    mark_function("byte_psnr", answer, lambda a, b: decibels(error(a, b).mean()), inputs, mistakes)


def known_groups(answer: object) -> None:
    """Chapter 12: `known_groups(mask [B, 1 + 4n])` to `[B, 1 + n]`: 1 for each latent all of whose frames are known."""

    def groups(mask: Tensor, before: float = 1.0) -> Tensor:
        return pad(mask, (3, 0), value=before).unflatten(1, (-1, 4))

    def right(mask: Tensor) -> Tensor:
        return groups(mask).amin(2)

    def from_the_start(mask: Tensor) -> Tensor:
        return pad(mask, (0, 3), value=1.0).unflatten(1, (-1, 4)).amin(2)

    def some(mask: Tensor) -> Tensor:
        return torch.cat([mask[:, :1], mask[:, 1:].unflatten(1, (-1, 4)).amax(2)], dim=1)

    def share(mask: Tensor) -> Tensor:
        return torch.cat([mask[:, :1], mask[:, 1:].unflatten(1, (-1, 4)).mean(2)], dim=1)

    mistakes = [
        (some, "one known frame is not enough: the latent tells of all four"),
        (share, "that is which share of a group is known; a latent is given or it is not"),
        (lambda m: (share(m) >= 0.5).float(), "half a group is not enough: the latent tells of all four frames"),
        (lambda m: m[:, ::4], "that looks at the last frame of each group alone"),
        (lambda m: torch.cat([m[:, :1], m[:, 1::4]], dim=1), "that looks at the first frame of each group alone"),
        (from_the_start, "the first frame makes a group of its own: 0, then 1 to 4, 5 to 8, and so on"),
        (lambda m: right(m)[:, 1:], "the latent of the first frame is missing"),
        (lambda m: groups(m, 0.0).amin(2), "the first frame is shown four times; filled up with 0 it is never known"),
        (lambda m: 1 - right(m), "the mask is flipped: 1 where a latent IS known"),
        (lambda m: right(m).cumprod(1), "a group in the middle may be known, whatever is known of those before it"),
    ]
    inputs = [((random_tensor(b, f, seed=s) > -1.0).float(),) for b, f, s in ((4, 17, 1), (5, 13, 2), (3, 9, 5))]
    mark_function("known_groups", answer, right, inputs, mistakes)


def conv_piece(answer: object) -> None:
    """Chapter 12: `conv_piece(past [B, C, k - 1], piece [B, C, n], weight [C, C, k])`, results, then the new past."""

    def join(past: Tensor, piece: Tensor) -> Tensor:
        return torch.cat([past, piece], dim=2)

    def results(past: Tensor, piece: Tensor, weight: Tensor) -> Tensor:
        return conv1d(join(past, piece), weight)

    def right(past: Tensor, piece: Tensor, weight: Tensor) -> Tensor:
        return join(results(past, piece, weight), join(past, piece)[:, :, piece.shape[2] :])

    def forgetful(past: Tensor, piece: Tensor, weight: Tensor) -> Tensor:
        return join(results(0 * past, piece, weight), join(past, piece)[:, :, piece.shape[2] :])

    def kept_results(past: Tensor, piece: Tensor, weight: Tensor) -> Tensor:
        y = results(past, piece, weight)
        return join(y, join(past, y)[:, :, piece.shape[2] :])

    def short(past: Tensor, piece: Tensor, weight: Tensor) -> Tensor:
        return join(results(past, piece, weight), piece[:, :, -past.shape[2] :])

    def filled(past: Tensor, piece: Tensor, weight: Tensor) -> Tensor:
        return join(results(past, piece, weight), join(0 * past, piece)[:, :, piece.shape[2] :])

    def stale(past: Tensor, piece: Tensor, weight: Tensor) -> Tensor:
        return join(results(past, piece, weight), past)

    def after(past: Tensor, piece: Tensor, weight: Tensor) -> Tensor:
        return join(results(piece, past, weight), join(past, piece)[:, :, piece.shape[2] :])

    def swapped(past: Tensor, piece: Tensor, weight: Tensor) -> Tensor:
        both = right(past, piece, weight)
        return join(both[:, :, piece.shape[2] :], both[:, :, : piece.shape[2]])

    def long(past: Tensor, piece: Tensor, weight: Tensor) -> Tensor:
        y = conv1d(pad(join(past, piece), (past.shape[2], 0)), weight)
        return join(y, join(past, piece)[:, :, piece.shape[2] :])

    mistakes = [
        (forgetful, "every piece starts from zeros: the film flickers where pieces meet"),
        (
            lambda p, x, w: right(0 * p, x, w),
            "the past is not used: every piece starts from zeros, and the film flickers where pieces meet",
        ),
        (kept_results, "what must be kept is what goes into the convolution, not what comes out"),
        (short, "a piece of fewer than k - 1 frames does not fill the new past by itself"),
        (filled, "the piece is too short, and zeros stand where older frames should be"),
        (stale, "the past that was handed in is handed on unchanged"),
        (after, "the past comes before the piece, not after it"),
        (swapped, "the results come first, then the new past"),
        (long, "the past stands in the place of the zeros: pad no zeros as well"),
        (lambda p, x, w: right(p, x, w.flip(2)), "the last weight is that of the present frame"),
        (results, "the new past is missing: what will the next piece look back at?"),
    ]
    inputs = [
        (random_tensor(2, c, k - 1, seed=1), random_tensor(2, c, n, seed=2), random_tensor(c, c, k, seed=3))
        for c, k, n in ((3, 3, 4), (2, 4, 1))
    ]
    mark_function("conv_piece", answer, right, inputs, mistakes)


def pooled_spread(answer: object) -> None:
    """Chapter 12: `pooled_spread(mean_a [C], std_a [C], n_a, mean_b, std_b, n_b)`, mean and std of both, `[2, C]`."""

    def pool(
        ma: Tensor, sa: Tensor, na: int, mb: Tensor, sb: Tensor, nb: int, between: float = 1.0, power: int = 2
    ) -> Tensor:
        a, b = na / (na + nb), nb / (na + nb)
        mean = a * ma + b * mb
        spread = a * (sa**power + between * (ma - mean) ** 2) + b * (sb**power + between * (mb - mean) ** 2)
        return torch.stack([mean, spread ** (1 / power)])

    def variance(*z: object) -> Tensor:
        mean, std = pool(*z)
        return torch.stack([mean, std**2])

    def root_mean_square(*z: object) -> Tensor:
        mean, std = pool(*z)
        return torch.stack([mean, (mean**2 + std**2).sqrt()])

    def less_one(ma: Tensor, sa: Tensor, na: int, mb: Tensor, sb: Tensor, nb: int) -> Tensor:
        mean, std = pool(ma, sa, na, mb, sb, nb)
        return torch.stack([mean, std * ((na + nb) / (na + nb - 1)) ** 0.5])

    def whole(ma: Tensor, sa: Tensor, na: int, mb: Tensor, sb: Tensor, nb: int) -> Tensor:
        return torch.stack([pool(ma, sa, na, mb, sb, nb)[0], ((na * sa**2 + nb * sb**2) / (na + nb)).sqrt()])

    def independent(ma: Tensor, sa: Tensor, na: int, mb: Tensor, sb: Tensor, nb: int) -> Tensor:
        return torch.stack([pool(ma, sa, na, mb, sb, nb)[0], (sa**2 + sb**2).sqrt()])

    mistakes = [
        (lambda *z: pool(*z, between=0.0, power=1), "standard deviations do not average; and the means differ, too"),
        (whole, "that is the spread within the sets; that of their means comes on top"),
        (
            lambda a, s, n, b, t, m: pool(a, s, 1, b, t, 1),
            "the sets are not equally large: weigh them by their numbers",
        ),
        (lambda a, s, n, b, t, m: pool(a, s, m, b, t, n), "the weights are exchanged: the larger set counts more"),
        (independent, "that is the spread of a sum of two numbers; here each number comes from one of the sets"),
        (root_mean_square, "that is the root of the mean square; take the square of the mean off first"),
        (less_one, "divide by the count, not by the count less 1"),
        (variance, "the second row is a variance; take the root"),
        (lambda *z: pool(*z).flip(0), "the mean comes first, then the standard deviation"),
        (lambda *z: pool(*z, between=2.0), "the spread of the means is counted twice"),
    ]
    inputs = []
    for seed, c, n_a, n_b in ((1, 4, 300, 100), (2, 3, 20, 80)):
        (ma, mb), (ra, rb) = random_tensor(2, c, seed=seed), random_tensor(2, c, seed=seed + 10)
        inputs.append((ma, 0.3 + ra.abs(), n_a, mb, 0.3 + rb.abs(), n_b))
    mark_function("pooled_spread", answer, pool, inputs, mistakes)
