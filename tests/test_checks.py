"""Every exercise's check: solutions get the tick, known mistakes their own hint, anything else a friendly line."""

import ast
import importlib.util
import inspect
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sora_lib import checks
from sora_lib.marking import mark_function, mark_number

TEACHING = Path(__file__).resolve().parents[1] / "teaching"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def functions_of(paths):
    """The public functions that files define."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    functions = [node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)]
    return sorted(name for name in functions if name[0] != "_")


solutions = load(TEACHING / "solutions.py")
NAMES = dir(checks)
IN_PLACE = functions_of((TEACHING / "checks").glob("*.py"))  # exercises in the chapters; tests/test_practice.py: others


def inside(name):
    """What a check passes on: its kind ("number" or "function"), the exact answer, inputs and known mistakes."""
    seen = {}

    def number(label, answer, exact, mistakes, tolerance=0.02):
        seen.update(kind="number", label=label, exact=exact, mistakes=mistakes, inputs=None)

    def function(label, answer, exact, inputs, mistakes):
        seen.update(kind="function", label=label, exact=exact, mistakes=mistakes, inputs=inputs)

    with pytest.MonkeyPatch.context() as patch:
        for marker, stand_in in {"mark_number": number, "mark_function": function}.items():
            patch.setitem(getattr(checks, name).__globals__, marker, stand_in)
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
    assert sorted(solved) == IN_PLACE
    for name in NAMES:
        assert inside(name)["label"] == name
        assert getattr(checks, name).__doc__.startswith(("Chapter 0", "Chapter 1"))
    assert all(getattr(solutions, name).__doc__ for name in FUNCTIONS if name in IN_PLACE)


def test_dir_lists_each_public_function_of_the_files_once():
    assert functions_of((TEACHING / "checks").rglob("*.py")) == NAMES


def test_an_unknown_name_is_told_the_near_ones_or_all():
    with pytest.raises(AttributeError, match="'alpha_baar'; near names: 'alpha_bar'"):
        _ = checks.alpha_baar
    with pytest.raises(AttributeError, match=f"'x'; there are {', '.join(NAMES)}"):
        _ = checks.x
    assert not hasattr(checks, "__wrapped__") and not hasattr(checks, "_repr_html_")


def test_a_missing_folder_is_named_when_a_check_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "missing", tmp_path / "empty"):
        monkeypatch.setattr(checks, "FOLDER", folder)
        with pytest.raises(FileNotFoundError, match="checks of the exercises are missing") as caught:
            checks.alpha_bar(1.0)
        assert str(folder) in str(caught.value)
        with pytest.raises(FileNotFoundError, match="checks of the exercises are missing"):
            dir(checks)
        assert not hasattr(checks, "__wrapped__")
    shutil.copytree(TEACHING / "checks", folder, dirs_exist_ok=True)
    assert dir(checks) == NAMES


def test_importing_asks_for_no_folder(tmp_path):
    (tmp_path / "sora_lib").mkdir()
    alone = load(Path(shutil.copy(checks.__file__, tmp_path / "sora_lib")))
    with pytest.raises(FileNotFoundError) as caught:
        alone.alpha_bar(1.0)
    assert str(tmp_path.resolve() / "teaching" / "checks") in str(caught.value)


@pytest.mark.parametrize("name", IN_PLACE)
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
    assert said(capsys, name, inside(name)["exact"]).startswith("✓")


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


def test_an_unknown_mistake_is_shown_where_the_values_differ(capsys):
    exact, inputs = (lambda x: x), [(torch.zeros(3),), (torch.arange(5.0),)]
    mark_function("f", lambda x: x + (x > 2.5) * 0.5, exact, inputs, [])
    assert capsys.readouterr().out == "✗ f: the shape is right, 2 of 5 values are not: 3.5, 4.5, exact 3, 4\n"
    mark_function("f", lambda x: x[:4], exact, inputs, [])  # right on the first input
    assert capsys.readouterr().out == "✗ f: the shape is [4], it should be [5]\n"


def test_a_mistake_that_gives_no_number_gets_its_hint(capsys):
    nothing = (lambda x: x / x, "0 / 0 is not a number")
    mark_function("f", lambda x: x / x, torch.ones_like, [(torch.tensor([0.0, 2.0]),)], [nothing])
    assert capsys.readouterr().out == "✗ f: 0 / 0 is not a number\n"


def test_of_two_near_mistakes_the_nearest_gives_the_hint(capsys):
    mark_number("n", 0.09, 1.0, [(0.075, "first"), (0.09, "second")])
    assert capsys.readouterr().out == "✗ n: second\n"
