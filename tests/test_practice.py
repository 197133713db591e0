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
from test_checks import inside

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "teaching"))
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


PATHS = sources()
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
