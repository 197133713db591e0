"""Every exercise notebook: unsolved it runs, solved it gets all marks, and each known mistake loses them.

A learner's mistakes are those that the checks know by name (teaching/checks/practice). The hidden tests, which give the
marks, must reject each of them as well.
"""

import contextlib
import io
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_output
from test_checks import inside

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "teaching"))
import course
from course import RELEASED, sources, student_version

REGION = re.compile(r"### BEGIN (SOLUTION|HIDDEN TESTS)\n(.*?)### END \1", re.S)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def run(cells, replaced=None):
    """Execute cells as a kernel does; return the names they leave and the lines they print.

    replaced: by name, an answer that takes the place of what the cell of that exercise defines.
    """
    names, out = {"__name__": "__main__"}, io.StringIO()
    with contextlib.redirect_stdout(out):
        for cell in cells:
            exec(compile(cell.source, cell.id, "exec"), names)
            for name, answer in (replaced or {}).items():
                if cell.metadata.get("nbgrader", {}).get("grade_id") == name:
                    names["answer" if "answer =" in cell.source else name] = answer
    return names, out.getvalue().splitlines()


PATHS, SOLUTIONS = sources(), Path(course.__file__).with_name("solutions.py")
SOURCES = {path.stem: nbformat.read(path, as_version=4) for path in PATHS}


def exercises(notebook):
    return [c.metadata.nbgrader.grade_id for c in code(notebook) if c.metadata.get("nbgrader", {}).get("solution")]


MISTAKES = [
    (stem, name, i)
    for stem, nb in SOURCES.items()
    for name in exercises(nb)
    for i in range(len(inside(name)["mistakes"]))
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_unsolved_it_runs_and_says_not_yet(path):
    student = student_version(path)
    assert not [cell for cell in student.cells if "BEGIN" in cell.source or "END SOL" in cell.source]
    _, lines = run(code(student))
    names = exercises(student)
    assert [line for line in lines if "not yet" in line] == [line for line in lines if line.startswith("…")]
    assert [line.split()[1].rstrip(":") for line in lines if line.startswith("…")] == names


@pytest.mark.parametrize("stem", SOURCES)
def test_solved_it_gets_every_tick_and_every_mark(stem):
    _, lines = run(code(SOURCES[stem]))
    assert [line.split()[1].rstrip(":") for line in lines if line[0] in "✓✗…"] == exercises(SOURCES[stem])
    assert not [line for line in lines if line[0] in "✗…"]


@pytest.mark.parametrize("stem", SOURCES)
def test_each_exercise_is_marked_and_has_enough_wrong_answers(stem):
    notebook = SOURCES[stem]
    cells = {c.metadata.nbgrader.grade_id: c for c in code(notebook) if "nbgrader" in c.metadata}
    kinds = [inside(name)["kind"] for name in exercises(notebook)]
    assert kinds.count("function") >= 3 and kinds.count("number") >= 1
    for name in exercises(notebook):
        assert len(inside(name)["mistakes"]) >= 2
        assert REGION.search(cells[name].source)[1] == "SOLUTION"
        assert REGION.search(cells[f"marks_{name}"].source)[1] == "HIDDEN TESTS"
        assert cells[f"marks_{name}"].metadata.nbgrader.points >= 1


@pytest.mark.parametrize(("stem", "name", "i"), MISTAKES, ids=[f"{name}-{i}" for _, name, i in MISTAKES])
def test_the_hidden_tests_reject_each_known_mistake(stem, name, i):
    wrong, _ = inside(name)["mistakes"][i]
    cells = code(SOURCES[stem])
    setup = [c for c in cells if "nbgrader" not in c.metadata]
    own = [c for c in cells if c.metadata.get("nbgrader", {}).get("grade_id") in (name, f"marks_{name}")]
    with pytest.raises(AssertionError):
        run([*setup, *own], {name: wrong})


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_released_notebook_is_made_from_its_source(path):
    released = nbformat.read(RELEASED / path.name, as_version=4)
    wanted = student_version(path)
    assert [(c.cell_type, c.id, c.source) for c in released.cells] == [
        (c.cell_type, c.id, c.source) for c in wanted.cells
    ], "run: python3 dev.py teach"


def test_there_is_a_practice_notebook_for_each_chapter_from_01_on():
    chapters = sorted(path.stem for path in (RELEASED.parent).glob("*.ipynb"))[1:]
    assert [f"practice_{chapter}" for chapter in chapters] == list(SOURCES)
    assert sorted(path.stem for path in RELEASED.glob("*.ipynb")) == list(SOURCES)
    builds = sum(inside(name)["kind"] == "function" for nb in SOURCES.values() for name in exercises(nb))
    print(f"{len(SOURCES)} notebooks, {builds} exercises to build, {len(MISTAKES)} wrong answers, all rejected")
    assert builds >= 45


@pytest.mark.parametrize("stem", SOURCES)
def test_the_guide_gives_the_minutes_and_points_of_a_notebook(stem):
    text = "\n".join(cell.source for cell in SOURCES[stem].cells if cell.cell_type == "markdown")
    tasks = re.findall(r"^\*\*\d\. (Predict|Build|Extend).*?\((\d+)(?: to \d+)? minutes\)", text, re.M)
    short, opened = (sum(int(n) for kind, n in tasks if (kind == "Extend") == last) for last in (False, True))
    points = sum(c.metadata.get("nbgrader", {}).get("points", 0) for c in code(SOURCES[stem]))
    guide = SOLUTIONS.with_name("README.md").read_text(encoding="utf-8")
    row = re.search(rf"\| `{stem}` \| (\d+) \+ (\d+)(?: to \d+)? \| (\d+) \|", guide)
    assert [int(n) for n in row.groups()] == [short, opened, points]


# --- Leaks


def long_lines(text):
    """Statements, without comments and indentation, that are too long to be alike by chance; no heads of loops."""
    lines = (" ".join(re.sub(r"(^|\s)#.*", "", line).split()) for line in text.splitlines())
    return {line for line in lines if len(line) >= 25 and line[-1] != ":"}


def secret(kinds):
    """The long lines of those regions that stand nowhere else in the exercise notebooks."""
    cells = [cell for notebook in SOURCES.values() for cell in notebook.cells]
    told = {line for cell in cells for line in long_lines(REGION.sub("", cell.source))}
    regions = [text for cell in cells for kind, text in REGION.findall(cell.source) if kind in kinds]
    return {line for text in regions for line in long_lines(text)} - told


SOLVED = secret(["SOLUTION"]) | long_lines(SOLUTIONS.read_text(encoding="utf-8").split("# --- 00", 1)[1])
HIDDEN = secret(["HIDDEN TESTS"])


def leaks(notebook, lines):
    """Which of the lines a notebook shows, in its cells or in their results, and nbgrader's marks."""
    shown = [cell.source for cell in notebook.cells]
    for cell in code(notebook):
        shown += [str(o.get("text", o.get("data", {}).get("text/plain", ""))) for o in cell.outputs]
    text = "\n".join(shown)
    return sorted(lines & long_lines(text)) + re.findall("BEGIN (?:SOLUTION|HIDDEN TESTS)", text)


def test_there_is_something_to_look_for():
    assert len(SOLVED) > 150 and len(HIDDEN) > 400


@pytest.mark.parametrize("path", sorted(RELEASED.parent.rglob("*.ipynb")), ids=lambda path: path.stem)
def test_no_notebook_shows_a_solution(path):
    """Chapters may show a line that a hidden test uses as well; what is released may not."""
    assert leaks(nbformat.read(path, as_version=4), SOLVED | HIDDEN if path.parent == RELEASED else SOLVED) == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_scan_finds_each_planted_solution_in_a_cell_or_in_its_result(path):
    for name in exercises(SOURCES[path.stem]):
        cell = next(c for c in code(SOURCES[path.stem]) if c.metadata.get("nbgrader", {}).get("grade_id") == name)
        planted = REGION.search(cell.source)[2]
        if inside(name)["kind"] == "number":
            continue  # too short to be told from other numbers
        told, printed = student_version(path), student_version(path)
        code(told)[-1].source += "\n" + planted
        code(printed)[-1].outputs = [new_output("stream", text=planted)]
        assert leaks(told, SOLVED) and leaks(printed, SOLVED), name
    assert leaks(SOURCES[path.stem], SOLVED)
