"""The language of captions: its words, a tokenizer, a parser, and a small text encoder.

A caption names one or two things: "a red seven moving up slowly in front of a blue circle standing still". Of two, the
nearer one hides the farther. What a caption leaves out (colour, motion, speed) may be anything.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .transformer import Attention, rotary_angles
from .validate import check_choice, check_count, check_flag, check_list, check_memory, is_whole, shown

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHAPES = ("circle", "square", "triangle")
SUBJECTS = DIGITS + SHAPES
COLORS = ("red", "green", "blue", "yellow", "purple", "white")
DIRECTIONS = ("up", "up right", "right", "down right", "down", "down left", "left", "up left", "still")
SPEEDS = ("slow", "fast")

SYNONYMS = {  # the words for each value; the first is the one of short captions
    **{name: (name, str(i)) for i, name in enumerate(DIGITS)},
    **{"circle": ("circle", "disc"), "square": ("square", "box"), "triangle": ("triangle", "wedge")},
    **{"red": ("red", "crimson"), "green": ("green", "emerald"), "blue": ("blue", "azure")},
    **{"yellow": ("yellow", "golden"), "purple": ("purple", "violet"), "white": ("white", "snowy")},
    **{"up": ("up", "north"), "up right": ("up right", "northeast"), "right": ("right", "east")},
    **{"down right": ("down right", "southeast"), "down": ("down", "south"), "down left": ("down left", "southwest")},
    **{"left": ("left", "west"), "up left": ("up left", "northwest"), "still": ("standing still", "at rest")},
    **{"slow": ("slowly", "gently"), "fast": ("fast", "quickly")},
}
VERBS = ("moving", "drifting", "gliding")
JOINERS = ("and", "in front of", "behind")  # the first thing is the nearer one, but with "behind"
KINDS = {"subject": SUBJECTS, "color": COLORS, "direction": DIRECTIONS, "speed": SPEEDS}
WORDS = sorted(
    {word for value in SYNONYMS.values() for phrase in value for word in phrase.split()}
    | {word for phrase in (*VERBS, *JOINERS) for word in phrase.split()}
    | {"a", "an", "the"}
)
LONGEST = 24  # words in a caption
PAD = 0  # the token after the last word; a caption of nothing else is "no caption"
TOKENS = {word: i for i, word in enumerate(WORDS, start=1)}
_PHRASES = {
    tuple(phrase.split()): (kind, v) for kind, values in KINDS.items() for v in values for phrase in SYNONYMS[v]
}


@dataclass(frozen=True)
class Thing:
    """One thing in a video; None is "not said". A thing that stands still has no speed.

    Raises ValueError for a value that is not in `KINDS`.
    """

    subject: str
    color: str | None = None
    direction: str | None = None
    speed: str | None = None

    def __post_init__(self) -> None:
        for kind, accepted in KINDS.items():
            if kind == "subject" or getattr(self, kind) is not None:
                check_choice(f"the {kind} of a thing", getattr(self, kind), accepted)


def describe(scene: Sequence[Thing], *, synonyms: bool = False, generator: torch.Generator | None = None) -> str:
    """The caption of one or two things, nearer first; with `synonyms`, its words and their order are drawn."""

    def pick(options: Sequence[str]) -> str:
        return options[int(torch.randint(len(options), (), generator=generator))] if synonyms else options[0]

    def phrase(thing: Thing) -> str:
        name = " ".join(pick(SYNONYMS[value]) for value in (thing.color, thing.subject) if value)
        words = [pick(("a", "the")) if name[0] not in "aei8" else pick(("an", "the")), name]
        if thing.direction == "still":
            return " ".join([*words, pick(SYNONYMS["still"])])
        speed = [pick(SYNONYMS[thing.speed])] if thing.speed else []
        if thing.direction is None:
            return " ".join([*words, *([pick(VERBS)] if speed else []), *speed])
        motion = [pick(VERBS), pick(SYNONYMS[thing.direction])]
        return " ".join([*words, *pick((motion + speed, speed + motion))])

    check_flag("synonyms", synonyms)
    if len(check_list("scene", scene, Thing)) not in (1, 2):
        raise ValueError(f"scene must be one or two things, got {len(scene)}")
    if len(scene) == 1:
        return phrase(scene[0])
    joiner = pick(JOINERS)
    near, far = (phrase(thing) for thing in scene)
    return f"{far} behind {near}" if joiner == "behind" else f"{near} {joiner} {far}"


def words_of(caption: str) -> list[str]:
    """The caption's words, small letters, checked: ValueError for none, too many, or one that is not known."""
    if not isinstance(caption, str):
        raise TypeError(f"prompt must be a string, got {type(caption).__name__}")
    words = caption.lower().replace(",", " ").replace(".", " ").replace("-", " ").split()
    if not words:
        raise ValueError('prompt is empty; say what to show, for example "a red seven moving up"')
    if len(words) > LONGEST:
        raise ValueError(f"prompt has {len(words)} words, at most {LONGEST} are accepted")
    for word in words:
        if word not in TOKENS:
            near = difflib.get_close_matches(word, WORDS, cutoff=0.6)
            offer = f"did you mean {' or '.join(map(repr, near))}?" if near else f"the model knows {', '.join(WORDS)}"
            raise ValueError(f"prompt: {word!r:.40} is not a word that the model was taught; {offer}")
    return words


def parse(caption: str) -> tuple[Thing, ...]:
    """What a caption asks for: one or two things, nearer first.

    Raises ValueError where it does not name one thing each, says two things at once (two colours, "up down"), or
    names more than two things; and for all that `words_of` refuses.
    """
    words, parts, order, i = words_of(caption), [[]], "", 0
    while i < len(words):
        joiner = next((j for j in JOINERS if words[i : i + len(j.split())] == j.split()), None)
        if joiner:
            order, i = joiner, i + len(joiner.split())
            parts.append([])
            continue
        parts[-1].append(words[i])
        i += 1
    if len(parts) > 2:
        raise ValueError(f"prompt names {len(parts)} things, at most 2 are accepted: {caption!r:.80}")
    things = tuple(_thing(part, caption) for part in parts)
    return things[::-1] if order == "behind" else things


def _thing(words: list[str], caption: str) -> Thing:
    found: dict[str, str] = {}
    i = 0
    while i < len(words):
        size = next((n for n in (2, 1) if tuple(words[i : i + n]) in _PHRASES), 0)
        if size:
            kind, value = _PHRASES[tuple(words[i : i + size])]
            if found.get(kind, value) != value:
                raise ValueError(f"prompt gives one thing two {kind}s, {found[kind]} and {value}: {caption!r:.80}")
            found[kind] = value
        elif words[i] not in {*VERBS, "a", "an", "the"}:
            raise ValueError(f"prompt: {words[i]!r} does not belong there in {caption!r:.80}")
        i += size or 1
    if "subject" not in found:
        raise ValueError(f"prompt names nothing to show in {' '.join(words)!r:.80}; name a digit or a shape")
    if found.get("direction") == "still" and ("speed" in found or set(words) & set(VERBS)):
        raise ValueError(f"prompt asks one thing to move and to stand still: {caption!r:.80}")
    return Thing(**found)


def attributes(things: Sequence[Thing]) -> dict[str, Tensor]:
    """For each kind of attribute, the number of each thing's value in `KINDS`, `[B]`; -1 where it has none."""
    check_list("things", things, Thing)
    return {
        kind: torch.tensor([values.index(value) if (value := getattr(thing, kind)) else -1 for thing in things])
        for kind, values in KINDS.items()
    }


def tokenize(captions: Sequence[str | None]) -> Tensor:
    """Captions to tokens `[B, LONGEST]`, whole numbers, padded at the end; None is "no caption"."""
    check_memory(f"{len(check_list('captions', captions))} captions", 8 * LONGEST * len(captions))
    rows = torch.full((len(captions), LONGEST), PAD)
    for row, caption in zip(rows, captions, strict=True):
        if caption is not None:
            tokens = [TOKENS[word] for word in words_of(caption)]
            row[: len(tokens)] = torch.tensor(tokens)
    return rows


class TextEncoder(nn.Module):
    """Tokens `[B, L]` to one vector a caption, `[B, width]`: words look at each other, then a mean over the words.

    The words' order is told by rotary positions. A caption of no words gives a learned vector of its own.
    """

    def __init__(self, width: int = 128, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        if check_count("width", width) % (2 * check_count("heads", heads)) or width < 6 * heads:
            raise ValueError(f"width must be an even multiple of heads, {heads}, and 6 times it or more, got {width}")
        check_count("depth", depth, 0)
        check_memory(f"weights of width {width} and depth {depth}", 32 * width**2 * depth + 4 * width * len(TOKENS))
        self.heads = heads
        self.embed = nn.Embedding(len(TOKENS) + 1, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))
        self.attentions = nn.ModuleList(Attention(width, heads) for _ in range(depth))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        if not is_whole(tokens) or tokens.ndim != 2 or not tokens.numel():
            raise TypeError(f"tokens must be whole numbers [B, L], as tokenize makes them, got {shown(tokens)}")
        if tokens.min() < PAD or tokens.max() > len(TOKENS):
            raise ValueError(f"tokens must lie in 0 to {len(TOKENS)}, got {tokens.min()} to {tokens.max()}")
        tokens = tokens[:, : max(1, int((tokens != PAD).sum(1).max()))]  # no longer than the longest caption
        real = (tokens != PAD) | (torch.arange(tokens.shape[1], device=tokens.device) == 0)  # [B, L]
        h = self.embed(tokens)  # [B, L, width]
        angles = rotary_angles((tokens.shape[1], 1, 1), h.shape[2] // self.heads).to(h)
        for i, (attention, mlp) in enumerate(zip(self.attentions, self.mlps, strict=True)):
            h = h + attention(self.norms[2 * i](h), angles, real[:, None, None])
            h = h + mlp(self.norms[2 * i + 1](h))
        return (h * real[..., None]).sum(1) / real.sum(1, keepdim=True)  # [B, width]
