"""A class of seven, headless: the course is made, work is collected, graded and given back, and the marks exported."""

import csv
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "teaching"))
import course

NAME = "practice_02_forward_diffusion"
FULL = {"lost_root": 1, "betas_from": 2, "cosine_log_snr": 2, "jump_on": 2, "excess_kurtosis": 2}
PEEK = f"""
from pathlib import Path
looked = [Path.cwd().parents[2], Path({str(course.ROOT)!r}) / "teaching"]
seen = [path for folder in looked for path in folder.rglob("*") if path.suffix in (".ipynb", ".db")]
print("found", len(seen))
exec(next(line for path in seen for line in path.read_text().splitlines() if "x_s" in line))
"""
ESCAPE = """
import socket
from pathlib import Path
for place in (Path.cwd().parents[2] / "escaped", Path("{folder}/escaped")):
    try:
        place.write_text("here")
    except OSError as error:
        print("refused", type(error).__name__)
try:
    socket.create_connection(("{address}", {port}), timeout=2)
    print("connected")
except OSError as error:
    print("no network")
"""


def shut_in():
    command = ["bwrap", "--ro-bind", "/", "/", "true"]
    return shutil.which("bwrap") is not None and subprocess.run(command, capture_output=True).returncode == 0


def nbgrader(folder, *words):
    """Run one of nbgrader's commands in the course, as the guide says; return what it prints."""
    command = [sys.executable, "-m", "nbgrader", *words]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # as in the activated environment
    options = {"cwd": folder, "env": os.environ | {"PATH": path}, "timeout": 900}
    done = subprocess.run(command, **options, capture_output=True, text=True, encoding="utf-8")
    return done.returncode, done.stdout + done.stderr


def answers_of(source):
    cells = nbformat.read(source, as_version=4).cells
    solved = {c.metadata.nbgrader.grade_id: c.source for c in cells if c.metadata.get("nbgrader", {}).get("solution")}
    return {name: re.sub(r" *### (BEGIN|END) SOLUTION\n?", "", text) for name, text in solved.items()}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The folder after the whole flow, what nbgrader said while grading, and the folder beside it."""
    beside = tmp_path_factory.mktemp("beside")
    folder = tmp_path_factory.mktemp("class") / "the teacher's course"
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        sources = tmp_path_factory.mktemp("sources")
        shutil.copytree(course.SOURCES / NAME, sources / NAME)
        patch.setattr(course, "SOURCES", sources)
        course.make_course(folder)
        right = answers_of(sources / NAME / f"{NAME}.ipynb")
        address, port = server.getsockname()
        wrong = right["betas_from"].replace(".clamp(max=0.999)", "")
        assert wrong != right["betas_from"]
        students = {
            "right": right,
            "wrong": right | {"betas_from": wrong},
            "blank": {},
            "crashing": right | {"betas_from": "raise RuntimeError('no')"},
            "endless": right | {"cosine_log_snr": "while True:\n    pass"},
            "peeking": right | {"jump_on": PEEK},
            "escaping": right | {"excess_kurtosis": ESCAPE.format(folder=beside, address=address, port=port)},
        }
        archive = folder / "downloaded" / NAME / "archive"
        archive.mkdir(parents=True)
        for student, answers in students.items():
            work = nbformat.read(folder / "release" / NAME / f"{NAME}.ipynb", as_version=4)
            for cell in work.cells:
                cell.source = answers.get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
            nbformat.write(work, archive / f"{student}_{NAME}.ipynb")
        assert nbgrader(folder, "zip_collect", NAME)[0] == 0
        code, said = nbgrader(folder, "autograde", NAME, "--Execute.timeout=25")
        assert code == 0, said
        assert nbgrader(folder, "generate_feedback", NAME)[0] == 0
        assert nbgrader(folder, "export")[0] == 0
    return folder, said, beside


def marks(folder):
    with open(folder / "grades.csv", encoding="utf-8") as file:
        return {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}


def printed(folder, student):
    cells = nbformat.read(folder / "autograded" / student / NAME / f"{NAME}.ipynb", as_version=4).cells
    return "".join(o.get("text", "") for c in cells if c.cell_type == "code" for o in c.outputs)


def test_the_marks_are_exactly_those_of_each_kind_of_student(graded):
    full = sum(FULL.values())
    lost = {"right": 0, "wrong": 2, "blank": full, "crashing": 2, "endless": 2, "peeking": 2, "escaping": 2}
    assert marks(graded[0]) == {student: (full - points, full) for student, points in lost.items()}


def test_the_endless_loop_ends_at_its_limit(graded):
    assert graded[1].count("Timeout waiting for execute reply (25s)") == 1


def test_each_student_gets_a_page_of_feedback(graded):
    pages = {path.parts[-3]: path.read_text(encoding="utf-8") for path in graded[0].glob("feedback/*/*/*.html")}
    assert sorted(pages) == sorted(marks(graded[0]))
    assert "9.0" in pages["right"] and "Score: 7.0 / 9.0" in re.sub(r"\s+", " ", pages["wrong"])


@pytest.mark.skipif(not shut_in(), reason="bubblewrap does not run here; the guide says what is unprotected then")
def test_students_code_sees_no_tests_and_writes_nothing_outside(graded):
    folder, _, beside = graded
    assert "found 0" in printed(folder, "peeking")
    assert "no network" in printed(folder, "escaping") and "connected" not in printed(folder, "escaping")
    assert not [path for place in (folder, beside) for path in place.rglob("escaped")]


def test_what_is_released_holds_no_solution(graded):
    text = (graded[0] / "release" / NAME / f"{NAME}.ipynb").read_text(encoding="utf-8")
    assert "SOLUTION" not in text and "HIDDEN" not in text and "cumprod" not in text


def test_a_folder_with_something_in_it_stays_as_it_is(tmp_path, capsys, monkeypatch):
    (tmp_path / "grades.csv").write_text("mine")
    for folder in (tmp_path, tmp_path / "grades.csv"):
        with pytest.raises(course.Problem, match="is not empty"):
            course.make_course(folder)
    with pytest.raises(course.Problem, match="lies in the repository"):
        course.make_course(course.ROOT / "class")
    assert [path.name for path in tmp_path.iterdir()] == ["grades.csv"]
    monkeypatch.setattr(sys, "argv", ["course.py", str(tmp_path)])
    assert course.main() == 2 and capsys.readouterr().err.startswith("error: ")
