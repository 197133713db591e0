"""Captions: what is said comes back from the parser, tokens keep every word, and the encoder reads words in order."""

import re
from itertools import product

import pytest
import torch
from torch.testing import assert_close

from sora_lib.text import (
    COLORS,
    DIRECTIONS,
    JOINERS,
    LONGEST,
    PAD,
    SPEEDS,
    SUBJECTS,
    SYNONYMS,
    TOKENS,
    VERBS,
    WORDS,
    TextEncoder,
    Thing,
    describe,
    parse,
    tokenize,
    words_of,
)
from sora_lib.transformer import rotary_angles

MOTIONS = [(d, s) for d in (*DIRECTIONS, None) for s in (*SPEEDS, None) if d != "still" or s is None]
THINGS = [Thing(subject, color, *motion) for subject, color, motion in product(SUBJECTS, (*COLORS, None), MOTIONS)]
SEVEN, CIRCLE = Thing("seven", "red", "up", "slow"), Thing("circle", "blue", "still")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn_pairs(count, seed=0):
    """Pairs of things, each with all, some or nothing said."""
    rows = torch.randint(len(THINGS), (count, 2), generator=seeded(seed)).tolist()
    return [(THINGS[i], THINGS[j]) for i, j in rows]


# --- Captions


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        ([SEVEN], "a red seven moving up slowly"),
        ([CIRCLE], "a blue circle standing still"),
        ([SEVEN, CIRCLE], "a red seven moving up slowly and a blue circle standing still"),
        ([Thing("eight", None, "down left", "fast")], "an eight moving down left fast"),
        ([Thing("square", None, None, "fast")], "a square moving fast"),
        ([Thing("one", "white", "up right")], "a white one moving up right"),
        ([Thing("triangle")], "a triangle"),
    ],
)
def test_captions_by_hand(scene, caption):
    assert describe(scene) == caption
    assert parse(caption) == tuple(scene)


def test_every_caption_of_one_thing_parses_back():
    """All 2,548: 13 subjects, 7 colours ("not said" is one), and 8 directions or none, with 3 speeds each, or still."""
    assert len(set(THINGS)) == 13 * 7 * (9 * 3 + 1)
    for thing in THINGS:
        assert parse(describe([thing])) == (thing,)


def test_every_caption_of_one_thing_parses_back_in_other_words():
    g = seeded()
    for thing in THINGS:
        assert parse(describe([thing], synonyms=True, generator=g)) == (thing,)


@pytest.mark.parametrize("synonyms", [False, True])
def test_captions_of_two_things_parse_back_in_their_order(synonyms):
    g, joined = seeded(1), set()
    for scene in drawn_pairs(600):
        caption = describe(scene, synonyms=synonyms, generator=g)
        assert parse(caption) == scene
        joined |= {joiner for joiner in JOINERS if f" {joiner} " in caption}
    assert joined == (set(JOINERS) if synonyms else {"and"})


def test_the_nearer_thing_comes_first_whatever_joins_them():
    near, far = "a red seven moving up slowly", "a blue circle standing still"
    for caption in (f"{near} and {far}", f"{near} in front of {far}", f"{far} behind {near}"):
        assert parse(caption) == (SEVEN, CIRCLE)
    assert parse(f"{near} behind {far}") == (CIRCLE, SEVEN)


def test_every_synonym_means_its_value():
    for kind, values in {"subject": SUBJECTS, "color": COLORS, "direction": DIRECTIONS, "speed": SPEEDS}.items():
        for value in values:
            assert len(SYNONYMS[value]) == 2
            for phrase in SYNONYMS[value]:
                wanted = {"subject": "zero"} | {kind: value}
                name = phrase if kind == "subject" else f"{phrase} zero" if kind == "color" else f"zero {phrase}"
                assert parse(f"the {name}") == (Thing(**wanted),)
    for verb in VERBS:
        assert parse(f"a zero {verb} up") == (Thing("zero", direction="up"),)


def test_no_phrase_has_two_meanings():
    phrases = [phrase for value in SYNONYMS for phrase in SYNONYMS[value]] + [*VERBS, *JOINERS]
    assert len(set(phrases)) == len(phrases)


def test_captions_use_every_word_and_no_other():
    """A word that is never said would be a token that no training teaches."""
    g = seeded()
    said = {w for thing in THINGS for w in describe([thing], synonyms=True, generator=g).split()}
    said |= {w for scene in drawn_pairs(200) for w in describe(scene, synonyms=True, generator=g).split()}
    assert said == set(WORDS)


def test_an_stands_before_vowels_alone():
    g = seeded()
    captions = [describe([thing], synonyms=s, generator=g) for thing in THINGS for s in (False, True)]
    assert not [c for c in captions if re.search(r"\ba (azure|eight|emerald|8)\b", c)]
    assert all(word in ("azure", "eight", "emerald", "8") for c in captions for word in re.findall(r"\ban (\w+)", c))
    assert describe([Thing("eight")]) == "an eight" and describe([Thing("one")]) == "a one"


def test_other_words_come_from_the_generator():
    before = torch.get_rng_state()
    drawn = [describe([SEVEN, CIRCLE], synonyms=True, generator=seeded(s)) for s in (1, 1, *range(2, 12))]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 8
    assert torch.equal(torch.get_rng_state(), before)


def test_case_commas_stops_and_hyphens_do_not_matter():
    assert parse("  A Red seven, moving UP-right slowly. ") == (Thing("seven", "red", "up right", "slow"),)
    assert words_of("The seven,and a box.") == ["the", "seven", "and", "a", "box"]


def test_words_may_stand_in_another_order_and_be_said_twice():
    wanted = (Thing("seven", "red", "up", "slow"),)
    for caption in (
        "slowly moving up a seven red",
        "seven red up slowly",
        "a red crimson 7 seven moving up north gently",
    ):
        assert parse(caption) == wanted


# --- Captions that are refused


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("", "prompt is empty"),
        ("  ,. - ", "prompt is empty"),
        ("a crimsn seven", "'crimsn' is not a word that the model was taught; did you mean 'crimson'"),
        ("a red sevn", "did you mean 'seven'"),
        ("a tringle moving upp", "'tringle' is not a word that the model was taught; did you mean 'triangle'"),
        ("a xylophone", "'xylophone' is not a word that the model was taught; the model knows 0, 1, 2"),
        ("红色的七向上移动", "'红色的七向上移动' is not a word that the model was taught; the model knows"),
        ("eine rote Sieben", "'eine' is not a word that the model was taught"),
        ("a red seven! moving", "'seven!' is not a word that the model was taught; did you mean 'seven'"),
        ("x" * 500, f"prompt: '{'x' * 39} is not a word"),
        (" ".join(["a"] * 25), "prompt has 25 words, at most 24 are accepted"),
        ("a red blue seven", "one thing two colors, red and blue"),
        ("a crimson azure seven", "one thing two colors, red and blue"),
        ("a seven moving up down", "one thing two directions, up and down"),
        ("a seven moving right up", "one thing two directions, right and up"),
        ("a seven moving up standing still", "one thing two directions, up and still"),
        ("a seven moving up slowly fast", "one thing two speeds, slow and fast"),
        ("a seven circle", "one thing two subjects, seven and circle"),
        ("a seven 8", "one thing two subjects, seven and eight"),
        ("a seven moving standing still", "to move and to stand still"),
        ("a seven at rest slowly", "to move and to stand still"),
        ("a seven and a circle and a square", "names 3 things, at most 2"),
        ("a seven behind a circle in front of a square", "names 3 things, at most 2"),
        ("a red", "names nothing to show in 'a red'"),
        ("a seven and", "names nothing to show in ''"),
        ("behind a seven", "names nothing to show in ''"),
        ("moving up and a seven", "names nothing to show in 'moving up'"),
        ("a seven front", "'front' does not belong there"),
        ("a seven still", "'still' does not belong there"),
        ("a seven in a circle", "'in' does not belong there"),
    ],
)
def test_what_a_caption_may_not_be(caption, words):
    with pytest.raises(ValueError) as caught:
        parse(caption)
    assert str(caught.value).startswith("prompt") and words in str(caught.value)


def test_the_message_does_not_grow_with_the_prompt():
    for caption in ("x" * 100_000, "a seven and " * 8, "é" * 5000):
        with pytest.raises(ValueError) as caught:
            parse(caption)
        assert len(str(caught.value)) < 700  # all words that the model knows take 430


@pytest.mark.parametrize("caption", [None, 7, ["a seven"], b"a seven", SEVEN])
def test_a_caption_is_a_string(caption):
    for reader in (parse, words_of):
        with pytest.raises(TypeError, match=f"prompt must be a string, got {type(caption).__name__}"):
            reader(caption)


@pytest.mark.parametrize("count", [0, 3])
def test_a_scene_is_one_or_two_things(count):
    with pytest.raises(ValueError, match=f"scene must be one or two things, got {count}"):
        describe([SEVEN] * count)


# --- Tokens


def test_tokens_are_the_words_in_order_then_padding():
    captions = [describe(scene, synonyms=True, generator=seeded(2)) for scene in drawn_pairs(50)]
    rows = tokenize(captions)
    assert rows.shape == (50, LONGEST) and rows.dtype == torch.int64
    names = {i: word for word, i in TOKENS.items()}
    for caption, row in zip(captions, rows.tolist(), strict=True):
        count = len(caption.split())
        assert [names[i] for i in row[:count]] == caption.split()
        assert set(row[count:]) == {PAD}


def test_every_word_has_a_token_of_its_own_and_padding_another():
    assert sorted(TOKENS.values()) == list(range(1, len(WORDS) + 1)) and PAD == 0
    assert list(TOKENS) == WORDS and len(set(WORDS)) == len(WORDS)


def test_no_caption_is_padding_alone():
    rows = tokenize([None, "a seven", None])
    assert rows[[0, 2]].count_nonzero() == 0 and rows[1].count_nonzero() == 2


def test_the_longest_caption_fits_and_no_longer_one():
    assert tokenize(["the " * LONGEST]).tolist() == [[TOKENS["the"]] * LONGEST]
    with pytest.raises(ValueError, match="prompt has 25 words"):
        tokenize(["a seven", "the " * (LONGEST + 1)])
    said = [describe(s, synonyms=True, generator=seeded(3)) for s in drawn_pairs(600)]
    assert max(len(caption.split()) for caption in said) <= LONGEST


def test_a_caption_alone_is_not_a_list():
    with pytest.raises(TypeError, match="captions must be a list, got 'a seven'"):
        tokenize("a seven")


# --- The encoder

SHORT, LONG = "a red seven", "a red seven moving up slowly in front of a blue circle standing still"


def encoder(**options):
    torch.manual_seed(0)
    return TextEncoder(**{"width": 24, "depth": 2, "heads": 2} | options).double()


def by_hand(model, caption):
    """One caption alone, no padding and no mask."""
    tokens = torch.tensor([TOKENS[word] for word in caption.split()])
    h = model.embed.weight[tokens][None]  # [1, L, width]
    angles = rotary_angles((len(tokens), 1, 1), 12).double()
    for i, (attention, mlp) in enumerate(zip(model.attentions, model.mlps, strict=True)):
        h = h + attention(model.norms[2 * i](h), angles)
        h = h + mlp(model.norms[2 * i + 1](h))
    return h[0].sum(0) / len(tokens)


def test_it_is_its_formula_for_each_caption_by_itself_whatever_the_batch():
    """So padding changes nothing, and captions of a batch do not mix."""
    model, captions = encoder(), [SHORT, LONG, "an eight", "the golden box gliding northwest"]
    wanted = torch.stack([by_hand(model, caption) for caption in captions])
    assert_close(model(tokenize(captions)), wanted)
    for caption, row in zip(captions, wanted, strict=True):
        assert_close(model(tokenize([caption]))[0], row)


def test_without_layers_it_is_the_mean_of_the_words():
    model = encoder(depth=0)
    rows = model.embed.weight
    wanted = (rows[TOKENS["a"]] + rows[TOKENS["red"]] + rows[TOKENS["seven"]]) / 3
    assert_close(model(tokenize([LONG, SHORT]))[1], wanted)


def test_more_padding_than_needed_changes_nothing():
    model, tokens = encoder(), tokenize([SHORT, LONG])
    cut = tokens[:, : int(tokens.count_nonzero(1).max())]
    longer = torch.cat([tokens, torch.zeros(2, 9, dtype=torch.int64)], dim=1)
    assert_close(model(cut), model(tokens))
    assert_close(model(longer), model(tokens))


def test_padding_gets_no_gradient_and_every_word_does():
    model = encoder()
    model(tokenize([SHORT, LONG])).square().sum().backward()
    touched = {i for i, row in enumerate(model.embed.weight.grad) if row.any()}
    assert touched == {TOKENS[word] for word in LONG.split()}


def test_no_caption_has_a_vector_of_its_own_that_learns():
    model = encoder()
    none = model(tokenize([None]))[0]
    assert_close(model(tokenize([LONG, None, SHORT]))[1], none)
    others = model(tokenize([SHORT, LONG, "a", "seven"]))
    assert (others - none).abs().amax(1).min() > 1e-2
    none.square().sum().backward()
    assert {i for i, row in enumerate(model.embed.weight.grad) if row.any()} == {PAD}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a red seven in front of a blue circle", "a blue circle in front of a red seven"),
        ("a red seven and a blue circle", "a blue seven and a red circle"),
        ("a seven moving up right", "a seven moving right up"),
    ],
)
def test_the_order_of_words_matters(one, other):
    assert sorted(one.split()) == sorted(other.split())
    vectors = encoder()(tokenize([one, other]))
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3
    mean = encoder(depth=0)(tokenize([one, other]))  # the test can tell: here the order is lost
    assert_close(mean[0], mean[1])


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"width": 25}, ValueError, "width must be an even multiple of heads, 2"),
        ({"width": 8}, ValueError, "width must be an even multiple of heads, 2, and 6 times it or more, got 8"),
        ({"width": 0}, ValueError, "width must be 1 or more"),
        ({"heads": 0}, ValueError, "heads must be 1 or more"),
        ({"depth": -1}, ValueError, "depth must be 0 or more"),
        ({"depth": 1.5}, TypeError, "depth must be a whole number"),
    ],
)
def test_bad_options_are_told(options, error, words):
    with pytest.raises(error) as caught:
        encoder(**options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("tokens", "error", "words"),
    [
        ([[1, 2]], TypeError, "tokens must be whole numbers [B, L]"),
        (SHORT, TypeError, "tokens must be whole numbers [B, L]"),
        (torch.ones(2, 3), TypeError, "tokens must be whole numbers [B, L]"),
        (torch.ones(3, dtype=torch.int64), TypeError, "tokens must be whole numbers [B, L]"),
        (tokenize([]), TypeError, "tokens must be whole numbers [B, L]"),
        (torch.tensor([[1, -1]]), ValueError, f"tokens must lie in 0 to {len(TOKENS)}, got -1 to 1"),
        (torch.tensor([[1, 999]]), ValueError, f"tokens must lie in 0 to {len(TOKENS)}, got 1 to 999"),
    ],
)
def test_bad_tokens_are_told(tokens, error, words):
    with pytest.raises(error) as caught:
        encoder()(tokens)
    assert words in str(caught.value)
