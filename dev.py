#!/usr/bin/env python3
"""Everything the repository does: `python3 dev.py lab | test | execute | budget | bench | export | teach`.

Standard library only. The first start makes `.venv` beside this file and installs `requirements.txt` into it; then this
file starts itself once more with the environment's Python, where the rest happens. It must still parse on Python 3.6,
to be able to say that a newer Python is needed.
"""

import argparse
import base64
import collections
import contextlib
import copy
import difflib
import hashlib
import importlib.util
import json
import os
import platform
import re
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import uuid
import webbrowser
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
FIRST_CHAPTER = "notebooks/00_start_here.ipynb"
OLDEST, NEWEST = (3, 11), (3, 14)  # the Pythons for which the pinned torch has wheels, from 3.11 on
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PEERS = "requirements-bench.txt"  # what the benchmarks compare with
NEWS = "@jupyterlab/apputils-extension:announcements"  # the popup that asks whether to fetch news
WIDGET = "application/vnd.jupyter.widget-view+json"
LANGUAGE = {  # what a notebook says of its language; without Python's version, which differs between computers
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}
SECONDS, MEGABYTES, FILE_MEGABYTES = 90, 1500, 1  # the budget of one notebook
SMALL_MEGABYTES, SMALL_RATIO = 2000, 3  # what Binder gives, and how much slower its one core may be
NBVAL = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600"]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # of two processes: threads of both on the same processors wait for each other
KINDS = {"tests", "failures", "errors", "skipped"}  # what pytest's report counts
WINDOWS = os.name == "nt"


class Problem(Exception):
    """Something the user can act on: shown as one line, without a traceback; exit code 2."""


# --- The environment


def python_problem(version):
    """Say why this version of Python can't be used, or return None."""
    if OLDEST <= version <= NEWEST:
        return None
    what = "Python 3.{} to 3.{} is needed; this is {}.{}.".format(OLDEST[1], NEWEST[1], *version)
    return what + " Start dev.py with another one, for instance: python3.12 dev.py lab"


def platform_problem(system, machine, bits, libc):
    """Say why PyTorch has no ready-made wheel for this platform, or return None."""
    here = None
    if bits == 32:
        here = "a 32-bit Python"
    elif system == "Darwin" and machine == "x86_64":
        here = "Python for Intel Macs"
    elif system == "Linux" and not libc.startswith("glibc"):
        here = "a Linux without glibc (Alpine's musl, for instance)"
    return here and f"PyTorch has no wheel for {here}; use Binder (README.md) or another computer."


def libc_name():
    """Return for instance "glibc 2.36", or "" where the C library is another one."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, OSError, ValueError):
        return ""


@contextlib.contextmanager
def only_one():
    """Hold a lock on the environment. The system releases it even when this process is killed."""
    with open(ROOT / ".venv.lock", "ab+") as file:
        if WINDOWS:
            import msvcrt

            file.seek(0)
            while True:
                with contextlib.suppress(OSError):
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)  # gives up after ten seconds: try again
                    break
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def stamp_path(dev):
    return VENV / ("installed-dev.txt" if dev else "installed.txt")


def stamp(dev):
    """Return a hash of all that decides what is installed."""
    facts = [str(ROOT), platform.python_version(), str(dev)]
    facts += [(ROOT / name).read_text(encoding="utf-8") for name in ("requirements.txt", "pyproject.toml")]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def installed(dev):
    return stamp_path(dev).exists() and stamp_path(dev).read_text(encoding="utf-8") == stamp(dev)


def inside():
    return Path(sys.prefix).resolve() == VENV.resolve()


def usable(python):
    """See whether the environment's Python starts, has pip and is the version that runs this file."""
    code = "import pip, platform; print(platform.python_version())"
    with contextlib.suppress(OSError):
        answer = subprocess.run([str(python), "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return answer.stdout.decode().strip() == platform.python_version()
    return False


def run_quietly(command, what, show=()):
    """Run a command, print only lines that start with one of `show`; if it fails, raise with its last lines."""
    last = collections.deque(maxlen=8)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in process.stdout:
        last.append(line.decode(errors="replace").rstrip())
        if last[-1].strip().startswith(show):
            print("  " + last[-1].strip()[:100], flush=True)
    if process.wait() != 0:
        raise Problem(f"{what} failed. Its last lines:\n  " + "\n  ".join(last))


def answers(url, seconds):
    """See whether an address answers in time. In a thread, since looking up a name can hang longer than any timeout."""
    found = []

    def ask():
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=seconds):
            found.append(True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(found)


def install(python, dev):
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-r", "requirements.txt"]
    command += ["-e", ".[dev]"] if dev else []
    download = "Installing into .venv. If nothing is in pip's cache, this downloads about "
    if platform.system() != "Linux":
        print(download + "250 MB.", flush=True)
    elif answers(CPU_INDEX + "/torch/", 2):
        command += ["--extra-index-url", CPU_INDEX]  # on the command line it adds to the user's own settings
        print(download + "350 MB, with PyTorch for the CPU alone.", flush=True)
    else:
        print(download + "350 MB, or some 3 GB where pip's index has PyTorch only with GPU libraries:", flush=True)
        print(f"  PyTorch's CPU index ({CPU_INDEX}) did not answer within 2 s.", flush=True)
    run_quietly(command, "Installation", show=("Downloading", "Installing collected", "Building"))
    disable = [str(python), "-m", "jupyterlab.labextensions", "disable", "--level=sys_prefix", NEWS]
    run_quietly(disable, "Setting up JupyterLab")


def environment(dev=False):
    """Make `.venv` and install what is missing; return the path of its Python."""
    python = VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")
    with only_one():
        if not inside() and not usable(python):
            if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
                raise Problem("This Python has no venv module. On Debian and Ubuntu: sudo apt install python3-venv")
            run_quietly([sys.executable, "-m", "venv", "--clear", str(VENV)], "Making .venv")
        if not installed(dev):
            for path in filter(Path.exists, map(stamp_path, (False, True))):
                path.unlink()  # until pip has ended well, nothing counts as installed
            install(python, dev)
            for group in {False, dev}:
                stamp_path(group).write_text(stamp(group), encoding="utf-8")
    return python


# --- lab


def port_number(text):
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 1 to 65535")
    return int(text)


def port_free(port):
    with socket.socket() as probe:
        if not WINDOWS:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


def choose_port(wanted):
    if wanted and not port_free(wanted):
        raise Problem(f"Port {wanted} is in use; choose another one with --port, or leave --port out.")
    if wanted or port_free(8888):
        return wanted or 8888
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A JupyterLab server on this computer, with a token of its own. It ends with the `with` block."""

    def __init__(self, port, root=ROOT):
        self.address, self.token = f"http://127.0.0.1:{port}", secrets.token_hex(24)
        self.url = f"{self.address}/lab/tree/{FIRST_CHAPTER}?token={self.token}"
        self.log = VENV / f"lab-{port}.log"
        self.command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
        self.command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}"]
        self.command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []

    def __enter__(self):
        # In a group of its own, Ctrl-C reaches only this file, which then asks the server to stop.
        group = {"creationflags": 0x200} if WINDOWS else {"start_new_session": True}
        env = dict(os.environ, JUPYTER_TOKEN=self.token)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env, **group
            )
        try:
            self.wait_until_ready(120)
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_until_ready(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(OSError):
                return self.api("/api/status")
            time.sleep(0.1)
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["(no output)"]
        raise Problem(f"JupyterLab did not start: {lines[-1]} (all of it is in {self.log})")

    def __exit__(self, *_):
        try:
            self.api("/api/shutdown", "POST")
        except OSError:
            self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def api(self, path, method="GET", body=None):
        """Call the server's REST interface, past any proxy."""
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(self.address + path, data=data, method=method)
        request.add_header("Authorization", "token " + self.token)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as reply:
            return json.loads(reply.read() or b"null")

    def run_cell(self, code):
        """Run code in a kernel of the first chapter; return its error, or None."""
        import websocket

        body = {"path": FIRST_CHAPTER, "name": "check", "type": "notebook", "kernel": {"name": "python3"}}
        kernel = self.api("/api/sessions", "POST", body)["kernel"]["id"]
        header = {"msg_id": uuid.uuid4().hex, "session": uuid.uuid4().hex, "username": "", "version": "5.3"}
        message = {"channel": "shell", "parent_header": {}, "metadata": {}, "content": {"code": code, "silent": False}}
        channels = websocket.create_connection(
            f"{self.address.replace('http', 'ws', 1)}/api/kernels/{kernel}/channels",
            header=["Authorization: token " + self.token],
            timeout=90,
            http_no_proxy=["127.0.0.1"],
        )
        with contextlib.closing(channels):
            channels.send(json.dumps(dict(message, header=dict(header, msg_type="execute_request"))))
            while True:
                reply = json.loads(channels.recv())
                if reply["msg_type"] == "execute_reply" and reply["parent_header"].get("msg_id") == header["msg_id"]:
                    content = reply["content"]
                    return None if content["status"] == "ok" else f"{content.get('ename')}: {content.get('evalue')}"


def check_lab(server):
    try:
        chapter = server.api("/api/contents/" + FIRST_CHAPTER)["content"]
    except OSError as error:
        raise Problem(f"{FIRST_CHAPTER} does not answer: {error}") from None
    cell = next((cell for cell in chapter["cells"] if cell["cell_type"] == "code"), None)
    try:
        error = server.run_cell(cell["source"]) if cell else "the chapter has no code cell"
    except Exception as problem:  # a refused or broken connection has many types; the reader needs the reason alone
        error = f"the kernel does not answer: {problem!r}"
    if error:
        raise Problem(f"A cell of {FIRST_CHAPTER} failed: {error}")
    print("Checked: the first chapter answers and its kernel runs a cell.")


def open_browser(url):
    """Open a browser where there is one with a window; a text browser would take over the terminal."""
    if platform.system() != "Linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        with contextlib.suppress(webbrowser.Error):
            webbrowser.get().open(url)


def lab(args):
    with contextlib.suppress(KeyboardInterrupt), Server(choose_port(args.port)) as server:
        if args.check:
            check_lab(server)
            return 0
        print(f"Ready: {server.url}", flush=True)
        print("Stop with Ctrl-C.", flush=True)
        if not args.no_browser:
            open_browser(server.url)
        while server.process.poll() is None:
            time.sleep(0.2)
    return 1 if args.check else 0


# --- test


def find_browser():
    """Return the path of a Chromium or Chrome on this computer, or None."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge"):
        if shutil.which(name):
            return shutil.which(name)
    programs = [os.environ.get(name, "") for name in ("ProgramFiles", "ProgramFiles(x86)")]
    places = [Path(folder, "Google/Chrome/Application/chrome.exe") for folder in programs if folder]
    places.append(Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"))
    return next((str(place) for place in places if place.exists()), None)


def run_ruff(command):
    done = subprocess.call([sys.executable, "-m", "ruff", *command], cwd=ROOT)
    return collections.Counter(failed=1) if done else collections.Counter(passed=1)


def run_pytest(arguments):
    """Run pytest, one thread in each process, and count. Where nothing ran, that is a failure: it can't pass unseen."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", f"--junitxml={report}", *arguments]
        code = subprocess.call(command, cwd=ROOT, env=os.environ | ONE_THREAD)
        suites = ElementTree.parse(report).getroot().iter("testsuite") if report.exists() else ()
        found = [collections.Counter({key: int(suite.get(key)) for key in KINDS}) for suite in suites]
    counts = sum(found, collections.Counter())
    failed, skipped = counts["failures"] + counts["errors"], counts["skipped"]
    passed = max(0, counts["tests"] - failed - skipped)
    if code == 5 or (os.environ.get("CI") and passed + failed == 0):
        print("No test ran here, which counts as a failure.", flush=True)
        failed += 1
    elif code and not failed:
        print(f"pytest ended with code {code}, which counts as a failure.", flush=True)
        failed += 1
    return collections.Counter(passed=passed, failed=failed, skipped=skipped)


def shared(how):
    """pytest's options to work on two things at a time, where there are two processors."""
    in_order = ["--no-loadscope-reorder"] if how == "loadfile" else []  # else files of few long tests come last
    return ["-n", "2", "--dist", how, *in_order] if (os.cpu_count() or 1) > 1 else []


def run_notebooks(arguments):
    """Where CI is set, each kernel gets no more memory than Binder has."""
    with memory_limit(SMALL_MEGABYTES) if os.environ.get("CI") else contextlib.nullcontext():
        return run_pytest(arguments)


def run_browser_tests(arguments):
    if find_browser() or os.environ.get("CI"):
        return run_pytest(arguments)
    print("Skipped: no Chromium or Chrome on this computer.", flush=True)
    return collections.Counter(skipped=1)


def sort_paths(paths):
    """Split paths into (unit tests, notebooks, browser tests)."""
    unit, books, browser = [], [], []
    for path in (Path(path).resolve() for path in paths):
        if not Path(str(path).split("::")[0]).exists():
            raise Problem(f"There is no file or folder {path}")
        if path.suffix == ".ipynb" or ROOT / "notebooks" in (path, *path.parents):
            books.append(str(path))
        else:
            (browser if ROOT / "tests" / "browser" in (path, *path.parents) else unit).append(str(path))
    return unit, books, browser


def test(args):
    first = ["tests/test_training_quality.py", "tests/test_course.py"]  # long ones last would leave a processor idle
    unit, books, browser = [*first, "tests", "--ignore=tests/browser"], ["notebooks"], ["tests/browser"]
    if args.paths:
        unit, books, browser = sort_paths(args.paths)
    elif args.fast:
        books = browser = []
    stages = [
        ("lint", run_ruff, ["check", "."]),
        ("format", run_ruff, ["format", "--check", "."]),
        ("unit tests", run_pytest, unit and ["-p", "no:nbval", *shared("loadfile"), *unit]),
        ("notebooks", run_notebooks, books and [*NBVAL, *shared("loadfile"), *books]),
        ("browser tests", run_browser_tests, browser and ["-p", "no:nbval", *shared("loadgroup"), *browser]),
    ]
    total = collections.Counter()
    for name, run, arguments in stages:
        if arguments:
            print(f"== {name}", flush=True)
            total += run(arguments)
    print("{passed} passed, {failed} failed, {skipped} skipped".format_map(total))
    return 1 if total["failed"] else 0


# --- execute and budget


def find_notebooks(names):
    """Turn `02`, `02_forward_diffusion` or a path into paths; without names, return all of the course."""
    course = sorted(ROOT.glob("notebooks/*.ipynb")) + sorted(ROOT.glob("notebooks/exercises/*.ipynb"))
    found = []
    for name in names:
        stem = name[: -len(".ipynb")] if name.endswith(".ipynb") else name
        matching = [path for path in course if path.stem == stem or path.stem.startswith(stem + "_")]
        if name.endswith(".ipynb") and Path(name).is_file():
            matching = [Path(name).resolve()]
        if not matching:
            stems = [path.stem for path in course]
            near = difflib.get_close_matches(Path(stem).stem, stems, cutoff=0.4) or stems
            raise Problem(f"There is no notebook {name!r}; nearest: {', '.join(near) or '(none exist yet)'}")
        found += matching
    return found if names else course


def clean_outputs(outputs):
    """Drop widgets and progress output, and join what was printed in pieces."""
    kept = []
    for output in outputs:
        if output.get("name") == "stderr" or WIDGET in output.get("data", {}):
            continue
        if output["output_type"] == "stream" and kept and kept[-1]["output_type"] == "stream":
            kept[-1]["text"] += output["text"]
        else:
            kept.append(output)
    for output in kept:
        if output["output_type"] == "stream":  # a carriage return overwrites its line, as on a terminal
            output["text"] = re.sub(r"[^\n]*\r(?=[^\r\n])", "", output["text"]).replace("\r", "")
    return [output for output in kept if output.get("text", " ")]


def clean(notebook):
    """Take out of a notebook, in place, what differs between two runs or two computers."""
    metadata = notebook["metadata"]
    metadata.pop("widgets", None)
    metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata["language_info"] = copy.deepcopy(LANGUAGE)
    for cell in notebook["cells"]:
        cell["metadata"].pop("execution", None)
        if cell["cell_type"] == "code":
            cell["outputs"] = clean_outputs(cell["outputs"])
    return notebook


def run_notebook(path):
    """Run a notebook from a fresh kernel in its own folder; return it and what went wrong (or None)."""
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    options = {"timeout": 600, "kernel_name": "python3", "record_timing": False, "store_widget_state": False}
    quiet = ["--log-level=CRITICAL"]  # the kernel's own log would go to this terminal
    client = nbclient.NotebookClient(notebook, resources=resources, extra_arguments=quiet, **options)
    try:
        with client.setup_kernel():  # unlike client.execute(), this ends cleanly on Ctrl-C
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
    except nbclient.exceptions.CellExecutionError as error:
        failing = [
            number
            for number, cell in enumerate(notebook.cells, 1)
            if any(output.output_type == "error" for output in cell.get("outputs", []))
        ]
        source = notebook.cells[failing[-1] - 1].source if failing else ""
        return notebook, f"cell {failing[-1] if failing else '?'} failed\n\n{source}\n\n{error.ename}: {error.evalue}"
    except (nbclient.exceptions.CellTimeoutError, nbclient.exceptions.DeadKernelError) as error:
        return notebook, str(error)
    return notebook, None


def write_notebook(path, notebook):
    """Replace the file in one step, and only if it changed; return whether it did."""
    import nbformat

    text = nbformat.writes(notebook).rstrip("\n") + "\n"
    if path.read_bytes() == text.encode():
        return False
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(text.encode())
    shutil.copymode(path, temporary)
    os.replace(temporary, path)
    return True


def outcome(notebook):
    """Return the picture of the cell tagged "outcome", as PNG bytes, or None; the notebook's first cell shows it."""
    for cell in notebook["cells"]:
        if "outcome" in cell["metadata"].get("tags", []):
            return next(
                base64.b64decode(o["data"]["image/png"]) for o in cell["outputs"] if "image/png" in o.get("data", {})
            )
    return None


def write_outcome(path, notebook):
    """Save the outcome picture as pictures/NAME.png beside the notebook, if it changed."""
    picture, target = outcome(notebook), path.parent / "pictures" / f"{path.stem}.png"
    if picture and not (target.exists() and target.read_bytes() == picture):
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(picture)


def execute(args):
    failed = False
    for path in find_notebooks(args.notebooks):
        start = time.monotonic()
        notebook, error = run_notebook(path)
        if error:
            result, failed = "left as it was: " + error, True
        else:
            result = "changed" if write_notebook(path, clean(notebook)) else "unchanged"
            write_outcome(path, notebook)
        print(f"{path.stem}: {time.monotonic() - start:.0f} s, {result}", flush=True)
    return 1 if failed else 0


def exporter(slides=False):
    """nbconvert's HTML exporter, for pages that ask nothing of the network: pictures inside, formulas as MathML.

    Slides, without code, fetch reveal.js, jQuery and RequireJS from the network.
    """
    from jinja2 import pass_context
    from latex2mathml.converter import convert
    from nbconvert import HTMLExporter, SlidesExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

    class Renderer(IPythonRenderer):
        def inline_math(self, body):
            return convert(body)

        def block_math(self, body):
            return convert(body, display="block")

    class Exporter(SlidesExporter if slides else HTMLExporter):
        @pass_context
        def markdown2html(self, context, source):
            path = context["resources"]["metadata"]["path"]
            html = MarkdownWithMath(renderer=Renderer(escape=False, embed_images=True, path=path)).render(source)
            return re.sub(r'href="(?:\.\./|exercises/)?([^":]+)\.ipynb"', r'href="\1.html"', html)  # all in one folder

    options = {"require_js_url": ""}
    if slides:
        options = {"exclude_input": True, "exclude_output_prompt": True, "reveal_scroll": True}
    return Exporter(mathjax_url="", embed_images=True, **options)


def slide_type(text):
    """Where a paragraph goes: headings begin slides, predictions wait for a key, prose is for the speaker."""
    if text.startswith(("# ", "## ")):
        return "slide"
    if text.startswith("### "):
        return "subslide"
    if text.startswith("**Predict"):
        return "fragment"
    return "-" if re.match(r"[|$!*]|- |\d\. |> ", text) else "notes"


def as_slides(notebook):
    """The notebook up to its exercises, with nbconvert's slide marks; code cells that show nothing are skipped."""
    from nbformat.v4 import new_markdown_cell, new_notebook

    cells = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text, *exercises = re.split(r"^## Exercises$", cell.source, flags=re.MULTILINE)
            for part in map(str.strip, re.findall(r"(?:```.*?```|[^\n]|\n(?!\n))+", text, flags=re.DOTALL)):
                cells.append(new_markdown_cell(part, metadata={"slideshow": {"slide_type": slide_type(part)}}))
            if exercises:
                break
        else:
            pictures = [output for output in cell.outputs if {"image/png", "text/html"} & set(output.get("data", {}))]
            shown = copy.deepcopy(cell)  # a value alone says nothing without its code
            shown.outputs = [output for output in cell.outputs if output in pictures or output.output_type == "stream"]
            shown.metadata["slideshow"] = {"slide_type": "subslide" if pictures else "-" if shown.outputs else "skip"}
            cells.append(shown)
    return new_notebook(cells=cells, metadata=notebook.metadata)


def export(args):
    import nbformat

    args.to.mkdir(parents=True, exist_ok=True)
    for path in find_notebooks(args.notebooks):
        notebook = nbformat.read(path, as_version=4)
        notebook = as_slides(notebook) if args.slides else notebook
        where = {"metadata": {"path": str(path.parent), "name": path.stem}}
        html, _ = exporter(args.slides).from_notebook_node(notebook, where)
        target = args.to / f"{path.stem}{'.slides' if args.slides else ''}.html"
        target.write_text(html, encoding="utf-8")
        print(f"{target}: {len(html.encode()) / 1e6:.2f} MB", flush=True)
    return 0


def teach(args):
    return subprocess.call([sys.executable, str(ROOT / "teaching" / "course.py"), *filter(None, [args.folder])])


def probe():
    """Measure how fast this computer is right now: machines are shared."""
    import torch

    a, seconds = torch.randn(1024, 1024), []
    for _ in range(30):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    speed = 2 * 1024**3 / statistics.median(seconds) / 1e9
    return f"float32 matrix product: {speed:.0f} GFLOP/s with {torch.get_num_threads()} threads"


def peak_memory(process):
    """Return the most bytes that a process has held."""
    with contextlib.suppress(OSError, AttributeError):
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024
    memory = process.memory_info()
    return getattr(memory, "peak_wset", memory.rss)


def watch(peaks, stop):
    """Note the memory of the kernel, which is this process's only child, and of the kernel's children."""
    import psutil

    while not stop.wait(0.1):
        with contextlib.suppress(psutil.Error):
            peaks.append(sum(map(peak_memory, psutil.Process().children(recursive=True))))


def measure(path):
    """Run a notebook; return its seconds, its peak bytes and what went wrong (or None)."""
    peaks, stop, start = [0], threading.Event(), time.monotonic()
    watcher = threading.Thread(target=watch, args=(peaks, stop))
    watcher.start()
    try:
        _, error = run_notebook(path)
    finally:
        stop.set()
        watcher.join()
    if error:
        print(f"{path.stem}: {error}", file=sys.stderr, flush=True)
    return time.monotonic() - start, max(peaks), error


def budget(args):
    if args.small:
        return small_budget(find_notebooks(args.notebooks))
    print(probe() + "\n\n| notebook | seconds | peak MB | file MB | |\n| --- | ---: | ---: | ---: | --- |", flush=True)
    verdicts = []
    for path in find_notebooks(args.notebooks):
        seconds, peak, error = measure(path)
        figures = seconds, peak / 1e6, path.stat().st_size / 1e6
        over = any(figure > limit for figure, limit in zip(figures, (SECONDS, MEGABYTES, FILE_MEGABYTES), strict=True))
        verdicts.append("failed" if error else "over" if over else "ok")
        print("| {} | {:.0f} | {:.0f} | {:.2f} | {} |".format(path.stem, *figures, verdicts[-1]), flush=True)
    print(f"\nBudget: {SECONDS} s, {MEGABYTES} MB peak resident, {FILE_MEGABYTES} MB file.")
    return 0 if set(verdicts) <= {"ok"} else 1


@contextlib.contextmanager
def memory_limit(megabytes):
    """Give each process that is started meanwhile so much memory; where the system is not Linux, as much as it wants.

    Linux counts what a process could write to without sharing it (RLIMIT_DATA). Pages that it has reserved and not yet
    touched count too, so this is stricter than the same limit on resident memory; libraries' code does not count.
    """
    if platform.system() != "Linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = [megabytes * 10**6] + [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@contextlib.contextmanager
def one_core():
    """Keep each process that is started meanwhile on one processor core, with one thread to compute."""
    cores, threads = os.sched_getaffinity(0), os.environ.get("OMP_NUM_THREADS")
    os.sched_setaffinity(0, {min(cores)})
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        os.environ.pop("OMP_NUM_THREADS")
        os.environ.update({"OMP_NUM_THREADS": threads} if threads else {})


def small_budget(paths):
    """Run each notebook freely and then as on Binder: on one core, with SMALL_MEGABYTES of memory."""
    if platform.system() != "Linux":
        raise Problem("--small needs Linux, which can hold a process to one core and to a size.")
    print(probe() + "\n\n| notebook | seconds | peak MB | small, s | small, peak MB | ratio | |", flush=True)
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |", flush=True)
    verdicts = []
    for path in paths:
        seconds, peak, wrong = measure(path)
        with one_core(), memory_limit(SMALL_MEGABYTES):
            slower, less, error = measure(path)
        verdicts.append("failed" if wrong or error else "over" if slower > SMALL_RATIO * seconds else "ok")
        figures = seconds, peak / 1e6, slower, less / 1e6, slower / seconds
        print("| {} | {:.0f} | {:.0f} | {:.0f} | {:.0f} | {:.1f} | {} |".format(path.stem, *figures, verdicts[-1]))
        sys.stdout.flush()
    print(f"\nSmall: one core, {SMALL_MEGABYTES} MB of writable memory, {SMALL_RATIO} times the seconds at most.")
    return 0 if set(verdicts) <= {"ok"} else 1


def find_benchmarks(names):
    """Turn `controls` into the path of its file; without names, return all benchmarks."""
    scripts = {path.stem: path for path in sorted(ROOT.glob("benchmarks/[a-z]*.py"))}
    for name in names:
        if name not in scripts:
            raise Problem(f"There is no benchmark {name!r}; there are: {', '.join(scripts)}")
    return [scripts[name] for name in names or scripts]


def bench(args):
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-deps", "-r", PEERS]
    run_quietly(command, "Installing what is compared with")
    save = ["--save"] if args.save else []
    codes = [subprocess.call([sys.executable, str(path), *save], cwd=ROOT) for path in find_benchmarks(args.benchmarks)]
    return 1 if any(codes) else 0


# --- The command line


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"error: {message} (see: {self.prog} --help)\n")


def parser():
    top = Parser(prog="dev.py", description="Sora, step by step: read, test and maintain the course.")
    commands = top.add_subparsers(
        dest="command", required=True, metavar="lab | test | execute | budget | bench | export | teach"
    )

    def command(function, description):
        sub = commands.add_parser(function.__name__, help=description, description=description)
        sub.set_defaults(run=function)
        return sub

    sub = command(lab, "Install what is needed and open JupyterLab at the first chapter.")
    sub.add_argument("--port", type=port_number, help="the port to serve on (default: 8888, or any free one)")
    sub.add_argument("--no-browser", action="store_true", help="print the address only")
    sub.add_argument("--check", action="store_true", help="start, run one cell of the first chapter, stop")
    sub = command(test, "Run the linter, the unit tests, every notebook, and the browser tests.")
    sub.add_argument("--fast", action="store_true", help="only the linter and the unit tests")
    sub.add_argument("paths", nargs="*", help="only the linter and these test files, notebooks or folders")
    sub = command(execute, "Run notebooks in place, each from a fresh kernel, and save them clean.")
    sub.add_argument("notebooks", nargs="*", help="for instance: 02, 02_forward_diffusion or a path (default: all)")
    sub = command(budget, "Run notebooks, keep nothing, and print their seconds and memory as a Markdown table.")
    sub.add_argument("notebooks", nargs="*", help="for instance: 02, 02_forward_diffusion or a path (default: all)")
    sub.add_argument("--small", action="store_true", help="compare with one core and 2 GB of memory, as on Binder")
    sub = command(bench, "Measure, and print the figures; libraries that it compares with are installed first.")
    sub.add_argument("benchmarks", nargs="*", help="for instance: controls (default: all of benchmarks/)")
    sub.add_argument("--save", action="store_true", help="also write tables and figures to docs/benchmarks.md")
    sub = command(export, "Write notebooks as HTML pages that need no network: for a website, a USB stick, a handout.")
    sub.add_argument("notebooks", nargs="*", help="for instance: 02, 02_forward_diffusion or a path (default: all)")
    sub.add_argument("--to", type=Path, default=ROOT / "html", help="the folder to write to (default: html)")
    sub.add_argument("--slides", action="store_true", help="slides for a lesson: figures and headings, prose as notes")
    sub = command(teach, "Make an nbgrader course in FOLDER; without FOLDER, the student versions of the exercises.")
    sub.add_argument("folder", nargs="?", metavar="FOLDER", help="a new or empty folder outside of this one")
    return top


def end_cleanly():
    """Treat every polite request to stop like Ctrl-C, so that servers and kernels are shut down."""

    def interrupt(*_):
        raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), interrupt)


def print_anything():
    """Where an output's encoding lacks a letter, of a folder's name say, print its code; in child processes too."""
    os.environ.setdefault("PYTHONIOENCODING", ":backslashreplace")
    sys.stdout.reconfigure(errors="backslashreplace")


def main(arguments):
    problem = python_problem(sys.version_info[:2]) or platform_problem(
        platform.system(), platform.machine(), 64 if sys.maxsize > 2**32 else 32, libc_name()
    )
    try:
        if problem:
            raise Problem(problem)
        print_anything()
        args = parser().parse_args(arguments)
        choose_port(getattr(args, "port", None))
        find_notebooks(getattr(args, "notebooks", []))
        find_benchmarks(getattr(args, "benchmarks", []))
        sort_paths(getattr(args, "paths", []))
        python = str(environment(dev=args.run in (test, bench, export, teach)))
        if inside():
            end_cleanly()
            if args.run is not bench:  # there PyTorch is measured as it comes
                os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # waiting threads spin briefly: computers are busy
            return args.run(args)
        command = [python, str(ROOT / "dev.py"), *arguments]
        if not WINDOWS:
            os.execv(python, command)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that is started here
        return subprocess.call(command)
    except Problem as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
