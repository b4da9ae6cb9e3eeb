"""A real JupyterLab in a real Chromium: one server and one browser for all tests, a notebook and a page for each.

Screenshots are kept in build/screenshots, for people to look at; the tests ask for words and roles only.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "build" / "screenshots"
expect.set_options(timeout=20_000)  # the machine may be shared; what must be fast is measured
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")


@pytest.fixture(scope="module")  # not longer: while it lives an event loop runs, in the thread of all tests
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *QUIET]
        )
        yield browser
        browser.close()


class Lab:
    """The server's address, its folder, and the settings that pages find."""

    def __init__(self, folder: Path, port: int) -> None:
        self.notebooks = folder / "notebooks"
        self.settings = folder / "settings"
        self.url = f"http://127.0.0.1:{port}"
        for place in (self.notebooks, self.settings):
            place.mkdir()

    def set(self, plugin: str, **values: Any) -> None:
        """The user's settings of a plugin, as the next page finds them."""
        path = self.settings / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))

    def reset(self) -> None:
        """What tests rely on: every cell is in the page, and nobody asks about news."""
        shutil.rmtree(self.settings)
        self.set("@jupyterlab/notebook-extension/tracker", windowingMode="none")
        self.set("@jupyterlab/apputils-extension/notification", fetchNews="false", checkForUpdates=False)


@pytest.fixture(scope="session")
def lab(hub_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab = Lab(folder, port)
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.root_dir": lab.notebooks,
        "ServerApp.allow_root": True,
        "ServerApp.disable_check_xsrf": True,
        "IdentityProvider.token": "",
        "LabApp.expose_app_in_browser": True,
        "LabApp.user_settings_dir": lab.settings,
        "LabApp.workspaces_dir": folder / "workspaces",
    }
    # Extensions of other packages in this environment would put their dialogs over ours.
    page_config = Path(hub_environment["JUPYTER_CONFIG_DIR"], "labconfig", "page_config.json")
    page_config.parent.mkdir(parents=True)
    page_config.write_text(json.dumps({"disabledExtensions": {"ipyparallel-labextension": True}}))
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", *arguments],
            env=hub_environment,
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(lab.url, server, folder / "log")
        yield lab
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{url}/api/status", timeout=5).close()
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"JupyterLab did not start: {log.read_text()[-4000:]}")
            time.sleep(0.1)
        else:
            return


class Notebook:
    """One notebook in one page."""

    def __init__(self, page: Page, lab: Lab, name: str) -> None:
        self.page = page
        self.lab = lab
        self.name = name
        self.path = lab.notebooks / f"{name}.ipynb"

    def write(self, *cells: str) -> "Notebook":
        """Put *cells* into the file."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.path)
        return self

    def open(self) -> "Notebook":
        """Open, or reload, the page; waits for the kernel."""
        self.page.goto(f"{self.lab.url}/lab/tree/{self.name}.ipynb?reset")
        self.page.wait_for_function("!!window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel")
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        self.page.evaluate("() => window.jupyterapp.restored.then(() => {})")
        return self

    def do(self, command: str) -> None:
        """Execute a command of JupyterLab; does not wait for it."""
        self.page.evaluate(f"() => {{ window.jupyterapp.commands.execute('{command}') }}")

    def run(self, number: int) -> "Notebook":
        """Begin to run one cell, when the one before it has ended."""
        self.page.wait_for_function(
            "() => !document.querySelector('.jp-Notebook')?.innerText.includes('[*]') &&"
            " window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status == 'idle'"
        )
        self.cell(number).locator(".jp-InputPrompt").click()
        self.do("notebook:run-cell")
        return self

    def run_all(self) -> "Notebook":
        """Begin to run all cells."""
        self.do("notebook:run-all-cells")
        return self

    def save(self) -> nbformat.NotebookNode:
        """Save, and read what was saved."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
        return nbformat.read(self.path, as_version=4)

    def cell(self, number: int) -> Locator:
        """A cell; the first is 1."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number - 1)

    def output(self, number: int) -> Locator:
        """The outputs of a cell."""
        return self.cell(number).locator(".jp-OutputArea")

    def button(self, name: str) -> Locator:
        """A button of a card."""
        return self.page.locator(".jp-OutputArea").get_by_role("button", name=name)

    def kernel(self, call: str) -> None:
        """Call a method of the kernel's connection, and wait for it."""
        self.page.evaluate(f"() => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.{call}()")

    def picture(self, name: str) -> None:
        """Keep a screenshot."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")


@pytest.fixture
def notebook(
    browser: Browser, lab: Lab, hub_environment: dict[str, str], request: pytest.FixtureRequest
) -> Iterator[Notebook]:
    lab.reset()
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    notebook = Notebook(page, lab, request.node.name[:60].translate(str.maketrans("[]/ ", "____")))
    try:
        yield notebook
    finally:
        if request.node.stash.get(_FAILED, False):
            notebook.picture(f"failed-{notebook.name}")
        try:
            notebook.page.evaluate("() => window.jupyterapp?.serviceManager.sessions.shutdownAll()")
        except Error:  # the page may not have come so far
            pass
        context.close()
        # Runs go on when their kernel has gone: the next test is to find free slots.
        subprocess.run([sys.executable, "-m", "nbqueue", "stop"], env=hub_environment, timeout=30, check=False)


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if report.failed:
        item.stash[_FAILED] = True
    return report
