"""Every exercise's check: solutions get the tick, known mistakes their own hint, anything else a friendly line."""

import importlib.util
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sora_lib import checks

_path = Path(__file__).resolve().parents[1] / "teaching" / "solutions.py"
_spec = importlib.util.spec_from_file_location("solutions", _path)
solutions = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(solutions)

NAMES = checks.__all__


def inside(name):
    """What a check passes on: its kind ("number" or "function"), the exact answer, inputs and known mistakes."""
    seen = {}

    def number(label, answer, exact, mistakes, tolerance=0.02):
        seen.update(kind="number", label=label, exact=exact, mistakes=mistakes, inputs=None)

    def function(label, answer, exact, inputs, mistakes):
        seen.update(kind="function", label=label, exact=exact, mistakes=mistakes, inputs=inputs)

    with pytest.MonkeyPatch.context() as patch:
        module = sys.modules[getattr(checks, name).__module__]
        for marker, stand_in in {"mark_number": number, "mark_function": function}.items():
            patch.setattr(module, marker, stand_in, raising=False)
        getattr(checks, name)(None)
    return seen


NUMBERS = [name for name in NAMES if inside(name)["kind"] == "number"]
FUNCTIONS = [name for name in NAMES if inside(name)["kind"] == "function"]
MISTAKES = [(name, i) for name in NAMES for i in range(len(inside(name)["mistakes"]))]


def said(capsys, name, answer):
    """The one line that the check prints."""
    assert getattr(checks, name)(answer) is None
    out = capsys.readouterr().out
    assert out.endswith("\n") and name in out
    return out.strip()


def test_there_are_checks_and_each_has_a_solution_and_a_chapter():
    assert len(NUMBERS) >= 5 and len(FUNCTIONS) >= 5  # one to predict and one to build in each of chapters 01 to 05
    solved = [n for n, v in vars(solutions).items() if isinstance(v, float) or inspect.isfunction(v)]
    assert sorted(solved) == sorted(NAMES)
    for name in NAMES:
        assert inside(name)["label"] == name
        assert getattr(checks, name).__doc__.startswith(("Chapter 0", "Chapter 1"))
    assert all(getattr(solutions, name).__doc__ for name in FUNCTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_solution_gets_the_tick(name, capsys):
    line = said(capsys, name, getattr(solutions, name))
    assert line.startswith("✓") and line.count("\n") == 0


@pytest.mark.parametrize(("name", "i"), MISTAKES, ids=[f"{n}-{i}" for n, i in MISTAKES])
def test_known_mistake_gets_its_own_hint(name, i, capsys):
    wrong, hint = inside(name)["mistakes"][i]
    assert said(capsys, name, wrong) == f"✗ {name}: {hint}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_part_that_is_wrong_on_one_input_only_gets_no_tick(name, capsys):
    inner = inside(name)
    calls = iter(range(99))

    def nearly(*args):
        value = torch.as_tensor(inner["exact"](*args))
        return value + 0.01 if next(calls) == len(inner["inputs"]) - 1 else value

    assert said(capsys, name, nearly).startswith("✗")


@pytest.mark.parametrize("unsolved", [None, ...], ids=["None", "dots"])
@pytest.mark.parametrize("name", NAMES)
def test_unsolved_says_not_yet(name, unsolved, capsys):
    assert "not yet" in said(capsys, name, unsolved)
    if name in FUNCTIONS:
        assert "not yet" in said(capsys, name, lambda *_: unsolved)


class Hostile:
    def __float__(self):
        raise RuntimeError("no")


WRONG_VALUES = [
    "seven", [], {}, object(), Hostile(), 1j, float("nan"), float("inf"), 10**400, torch.ones(3), torch.ones(0),
    np.ones(2), -123.0, torch.tensor(-123.0),
]  # fmt: skip


@pytest.mark.parametrize("value", WRONG_VALUES, ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_value_never_raises_and_gets_no_tick(name, value, capsys):
    assert said(capsys, name, value).startswith("✗")


@pytest.mark.filterwarnings("ignore")  # complex to float warns
@pytest.mark.parametrize("value", [*WRONG_VALUES, torch.ones(7, 5, 3), (torch.ones(2), torch.ones(3)), [[1], [1, 2]]])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_with_a_wrong_result_never_raises_and_gets_no_tick(name, value, capsys):
    assert said(capsys, name, lambda *_: value).startswith("✗")


@pytest.mark.parametrize("error", [ValueError("a"), ZeroDivisionError(), RecursionError(), AssertionError("b")])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_crash_is_told_not_raised(name, error, capsys):
    def crash(*_):
        raise error

    line = said(capsys, name, crash)
    assert line.startswith("✗") and type(error).__name__ in line
    assert said(capsys, name, lambda: 1).startswith("✗")  # takes no arguments


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_answer_that_changes_its_inputs_does_not_change_the_next_check(name, capsys):
    def spoil(*args):
        for a in args:
            if isinstance(a, torch.Tensor):
                a.zero_()
        return 0.0

    said(capsys, name, spoil)
    assert said(capsys, name, getattr(solutions, name)).startswith("✓")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_shape_is_named(name, capsys):
    inner = inside(name)
    line = said(capsys, name, lambda *args: torch.as_tensor(inner["exact"](*args))[None])
    assert "shape" in line and line.startswith("✗")


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_may_come_as_any_scalar(name, capsys):
    exact = inside(name)["exact"]
    for value in (exact, torch.tensor(exact), np.float64(exact), torch.tensor([exact]), exact + 0.01):
        assert said(capsys, name, value).startswith("✓")
    for value in (exact + 0.1, exact - 0.1):
        assert said(capsys, name, value).startswith("✗")
