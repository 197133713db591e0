"""A notebook open in JupyterLab, driven as a reader does."""

import re

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import expect

STATUS = "#jp-bottom-panel, .jp-StatusBar-Widget, #jp-main-statusbar"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


class Notebook:
    """One notebook and its page. `sources`, where given, are its code cells.

    `errors` is what its console says, `asked` are the addresses that it asks.
    """

    def __init__(self, browser, lab, name, sources=None):
        self.server, folder = lab
        self.path, self.errors, self.asked = folder / "notebooks" / name, [], []
        if sources is not None:
            cells = [new_code_cell(source.strip()) for source in sources]
            nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), self.path)
        self.page = browser.new_page(viewport={"width": 1200, "height": 900})
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("websocket", lambda channel: self.asked.append(channel.url.replace("ws", "http", 1)))
        self.page.goto(f"{self.server.address}/lab/tree/notebooks/{name}?token={self.server.token}&reset")
        self.wait_until_idle()

    def wait_until_idle(self):
        expect(self.page.locator(STATUS).first).to_contain_text("| Idle", timeout=60_000)

    def status(self):
        """What the kernel is said to do, and what dialogs say."""
        return [box.inner_text() for box in self.page.locator(f"{STATUS}, .jp-Dialog").all()]

    def menu(self, name, item):
        self.page.get_by_role("menuitem", name=name, exact=True).click()
        self.page.get_by_role("menuitem", name=re.compile("^" + item)).click()  # some names end with a shortcut

    def run_all(self):
        """The kernel must be idle: before that, Run All does nothing."""
        self.menu("Run", "Run All Cells")

    def run_cell(self, number):
        self.page.locator(".jp-CodeCell").nth(number).locator(".jp-InputPrompt").click()
        self.page.keyboard.press("Shift+Enter")

    def restart(self):
        self.menu("Kernel", "Restart Kernel…")
        self.page.get_by_role("button", name="Confirm Kernel Restart").click()
        self.wait_until_idle()

    def close(self):
        """Close the page and end its kernel, which holds some 300 MB."""
        self.page.close()
        for session in self.server.api("/api/sessions"):
            if session["path"] == f"notebooks/{self.path.name}":
                self.server.api(f"/api/sessions/{session['id']}", "DELETE")
