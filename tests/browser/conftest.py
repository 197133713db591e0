"""A real browser, a real JupyterLab, and exported pages without a network."""

import re
import shutil
import socket

import nbconvert
import pytest
from jupyter import Notebook
from playwright.sync_api import sync_playwright

import dev

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=dev.find_browser(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """JupyterLab on a copy of the notebooks, with settings of its own: (server, folder)."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(dev.ROOT / "notebooks", folder / "notebooks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_CONFIG_DIR", str(folder / "config"))
        patch.setattr(dev, "VENV", folder)
        with socket.create_server(("127.0.0.1", 0)) as free:  # not 8888: two workers would take it at once
            port = free.getsockname()[1]
        with dev.Server(port, folder) as server:
            yield server, folder


@pytest.fixture(scope="session")
def usual_errors(browser, lab):
    """What JupyterLab's console says of an empty notebook."""
    notebook = Notebook(browser, lab, "empty.ipynb", [""])
    notebook.run_all()
    notebook.page.wait_for_timeout(2000)
    notebook.close()
    return set(notebook.errors)


@pytest.fixture(scope="module")
def open_notebook(browser, lab, usual_errors):
    """Open notebooks in JupyterLab.

    In the end their consoles must hold no error that an empty notebook has not, and their pages must have asked this
    computer alone; and that not for news, updates or extensions, which the server would fetch.
    """
    opened = []

    def start(name, sources=None):
        opened.append(Notebook(browser, lab, name, sources))
        return opened[-1]

    yield start
    for notebook in opened:
        notebook.close()
    assert not {error for notebook in opened for error in notebook.errors} - usual_errors
    near = re.escape(lab[0].address) + "/(?!lab/api/(news|update|extensions))|data:|blob:"
    assert not {url for notebook in opened for url in notebook.asked if not re.match(near, url)}


@pytest.fixture(scope="module")
def exported(browser, tmp_path_factory):
    """Export a notebook to HTML and open it from disk, with the network blocked."""
    context, folder = browser.new_context(offline=True), tmp_path_factory.mktemp("pages")
    context.route("http*://**", lambda route: route.abort())

    def open_page(path):
        html, _ = nbconvert.HTMLExporter().from_filename(str(path))
        file = folder / f"{path.stem}.html"
        file.write_text(html, encoding="utf-8")
        page = context.new_page()
        page.goto(file.as_uri())
        return page

    yield open_page
    context.close()
