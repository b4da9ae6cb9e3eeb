"""The suite is worth something: it fails for a broker that breaks any one of the six rules that matter most.

Each mutant is a copy of the whole project in which one rule is taken out of the source; then the suite runs as it is,
until its first failure.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.plain]


class Change(NamedTuple):
    """One place of the source, and what stands there instead."""

    file: str
    old: str
    new: str


LUA = "brokers/redis/lua"

#: The same rules where they are kept in Lua.
LUA_MUTANTS = {
    "no terminal check": [
        Change(f"{LUA}/machine.lua", "if state >= SUCCESS then return record, 'R' end", ""),
        Change(
            f"{LUA}/runs.lua", "  if is_finished(run) then\n    refused_events", "  if false then\n    refused_events"
        ),
    ],
    "no attempt check": [
        Change(
            f"{LUA}/machine.lua",
            "if not is_held(record) or event.token ~= record[TOKEN] then",
            "if not is_held(record) then",
        ),
    ],
    "no grace": [
        Change(f"{LUA}/tick.lua", "  extend_leases_after_a_gap()\n  local last", "  local last"),
    ],
    "no dedup": [
        Change(
            f"{LUA}/submit.lua",
            "    if start == d.total and stop > start then",
            "    start, stop = d.total, d.total + stop - start\n    if stop > start then",
        ),
    ],
    "notify before result": [
        Change(
            f"{LUA}/worker.lua",
            "    for _, outcome in ipairs(outcomes) do",
            "    notify(run)\n    for _, outcome in ipairs(outcomes) do",
        ),
        Change(f"{LUA}/worker.lua", "  if run then changed(run) end", "  if run then changed(run, true) end"),
    ],
    "no routing": [
        Change(f"{LUA}/workers.lua", "  if not contains(worker.queues, flat[1]) then return false end\n", ""),
    ],
}

MUTANTS = {
    # What has ended can end again. The table alone would still forbid it, so both checks go.
    "no terminal check": [
        Change("core/machine.py", "    if item.state in TERMINAL:\n", "    if False:\n"),
        Change(
            "core/machine.py", "    if (item.state, event.trigger, target.state) not in LEGAL:\n", "    if False:\n"
        ),
    ],
    # Whoever held an item once may fail it, release it or be blamed for it.
    "no attempt check": [
        Change("core/machine.py", "item.state not in HELD or event.token != item.token:", "item.state not in HELD:"),
    ],
    # After a long sleep, whoever has not spoken yet is dead.
    "no grace": [
        Change("core/dispatcher.py", "        self._extend_leases_after_a_gap(now)\n", ""),
    ],
    # Items that are sent twice are taken twice.
    "no dedup": [
        Change("core/run.py", "            if block.start != self.total:\n", "            if False:\n"),
    ],
    # The news of a commit goes out first, then its outcomes are written, and nothing tells of them.
    "notify before result": [
        Change(
            "core/dispatcher.py",
            """            name = worker.info.name if worker is not None else ""\n            for outcome""",
            """            self._dirty[run.spec.run_id] = run
            self._effects = self.take_effects()
            name = worker.info.name if worker is not None else ""
            for outcome""",
        ),
        Change(
            "core/dispatcher.py",
            "            self._changed(run, now)\n        elif final:\n",
            "            self._changed(run, now, tell=False)\n        elif final:\n",
        ),
    ],
    # Work is given to whoever has a free slot, whatever queue it was put on.
    "no routing": [
        Change("core/routing.py", "    if route.queue not in offer.queues:\n", "    if False:\n"),
    ],
}


def copy_project(folder: Path) -> Path:
    """The package and what its contract tests need, somewhere else."""
    nothing_built = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "nbqueue", folder / "nbqueue", ignore=nothing_built)
    shutil.copytree(ROOT / "tests" / "contract", folder / "tests" / "contract", ignore=nothing_built)
    for helper in ("conftest.py", "redis_servers.py"):
        shutil.copy(ROOT / "tests" / helper, folder / "tests")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_contract(folder: Path, kind: str) -> subprocess.CompletedProcess:
    """Hold the broker in *folder* to the contract, until the first failure."""
    others = "" if kind == "old-redis" else " and not old-redis"  # "redis" is in the names of both
    suite = ["tests/contract", "--ignore=tests/contract/test_mutants.py", "-k", kind + others]
    command = [sys.executable, "-m", "pytest", *suite, "-x", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def try_mutant(folder: Path, rule: str, kind: str) -> subprocess.CompletedProcess:
    """What the contract says of a broker without the rule."""
    copy_project(folder)
    for change in (LUA_MUTANTS if "redis" in kind else MUTANTS)[rule]:
        path = folder / "nbqueue" / change.file
        text = path.read_text()
        assert text.count(change.old) == 1, f"{change.file} has changed: choose the lines of this mutant anew"
        path.write_text(text.replace(change.old, change.new))
    return run_contract(folder, kind)


@pytest.fixture(scope="module")
def verdicts(request, tmp_path_factory) -> Iterator[dict[tuple[str, str], Future[subprocess.CompletedProcess]]]:
    """Of all mutants that were asked for: one process each, as many at a time as there are cores."""
    asked = [
        (item.callspec.params["rule"], item.callspec.params["kind"])
        for item in request.session.items
        if item.module is request.module and "rule" in item.callspec.params
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {one: pool.submit(try_mutant, tmp_path_factory.mktemp("mutant"), *one) for one in asked}
        pool.shutdown(cancel_futures=True)


def test_the_copy_passes_as_it_is(kind, tmp_path):
    # Given a copy without a change; what Python imports there is the copy
    folder = copy_project(tmp_path)
    command = [sys.executable, "-c", "import nbqueue; print(nbqueue.__file__)"]
    imported = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout

    # Then the suite passes, so what it says of the mutants below is due to their changes
    result = run_contract(folder, kind)
    assert str(folder / "nbqueue" / "__init__.py") == imported.strip()
    assert result.returncode == 0, result.stdout
    assert "passed" in result.stdout


@pytest.mark.parametrize("rule", MUTANTS)
def test_a_broker_that_breaks_a_rule_is_caught(rule, kind, verdicts):
    # Given a broker without the rule, when it is held to the contract
    result = verdicts[rule, kind].result()

    # Then a test fails: 1, not 2 or more, which would mean that the suite did not run
    assert result.returncode == 1, result.stdout
