"""A worker whose packages are not those of the client."""

import sys
import venv
import warnings

import pytest

import nbqueue

pytestmark = pytest.mark.timeout(90)


def install(folder, name, version):
    """A package of one module, as pip would leave it."""
    package = folder / name
    package.mkdir(parents=True)
    package.joinpath("__init__.py").write_text(f"__version__ = {version!r}\n")
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Packages of this process: one that will be older elsewhere, one that differs in its last figure, and one more."""
    for name in ("frobnicate", "quux", "xyzzy"):
        install(tmp_path / "here", name, "2.1.0")
    monkeypatch.syspath_prepend(tmp_path / "here")
    yield
    for name in ("frobnicate", "quux", "xyzzy"):
        sys.modules.pop(name, None)


@pytest.fixture
def other_python(tmp_path):
    """An interpreter of another environment, with packages of its own before those of this one."""
    home = tmp_path / "other"
    venv.create(home, symlinks=True)
    [site_packages] = home.glob("lib/python*/site-packages")
    install(site_packages, "frobnicate", "1.9.0")
    install(site_packages, "quux", "2.1.7")
    inherited = [entry for entry in sys.path if entry and not entry.startswith(str(tmp_path))]
    site_packages.joinpath("inherited.pth").write_text("\n".join(inherited))
    return str(home / "bin" / "python")


def test_packages_that_differ_are_told_of_once_and_only_when_they_are_used(own_hub, packages, other_python):
    # Given a worker with another version of a package
    app = own_hub.app(workers=0)
    app.start_workers(1, python=other_python)

    def version():

        return frobnicate.__version__

    def small_difference():

        return quux.__version__

    import frobnicate
    import quux

    # When a function uses it, then that is told, with both versions and the worker
    with pytest.warns(nbqueue.EnvironmentWarning) as told:
        assert "1.9.0" == app.submit(version).get(20)
    [warning] = told
    [worker] = app.inspect().workers()
    assert f"worker {worker.worker} has frobnicate 1.9.0, here is frobnicate 2.1.0" in str(warning.message)

    # But not again, nor when only the last part differs, nor for who does not use it
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ["1.9.0"] * 3 == list(app.map(lambda _: version(), range(3)))
        assert "2.1.7" == app.submit(small_difference).get(20)
        assert 1 == app.submit(abs, -1).get(20)


def test_all_differences_can_be_seen(own_hub, packages, other_python):
    # Given a worker of this environment and one of another
    app = own_hub.app(workers=1)
    app.start_workers(1, python=other_python)

    # When they are compared
    differences = app.env_diff()

    # Then what differs is listed, what matters most first, and only for the worker where it does
    ours = {"frobnicate": ("2.1.0", "1.9.0", True), "quux": ("2.1.0", "2.1.7", False)}
    rows = {row.package: (row.here, row.there, row.notable) for row in differences if row.package in ours}
    assert ours == rows
    assert 1 == len({row.worker for row in differences if row.package in ours})
    assert sorted((row.notable for row in differences), reverse=True) == [row.notable for row in differences]
    assert 2 == len(differences.workers)
    assert "frobnicate" in repr(differences)
    assert "<td" in differences._repr_html_()


def test_where_all_is_the_same_that_is_said(own_hub):
    app = own_hub.app(workers=1)
    assert 1 == app.submit(abs, -1).get(20)
    [worker] = app.inspect().workers()

    differences = app.env_diff()

    assert [] == differences
    assert f"no difference to {worker.worker}" == repr(differences)


def test_who_waits_for_what_nobody_can_run_is_told(own_hub, monkeypatch):
    # Given a task that nobody can run, and a caller who has no card
    monkeypatch.setattr("nbqueue.client.result.PATIENCE_S", 0.5)
    app = own_hub.app(workers=1)
    assert 1 == app.submit(abs, -1).get(20)
    task = app.options(tags="gpu").submit(abs, -1)

    # When it is waited for, then that is told, once, and the wait goes on
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            with pytest.raises(TimeoutError):
                task.get(timeout=1.5)
    [warning] = told
    assert "No worker of queue 'default' has the tag 'gpu'" in str(warning.message)
    assert nbqueue.WaitingWarning is warning.category

    # And so for a map without a card
    handle = app.map(abs, [-1], queue="nobody", progress=False, timeout=1.5)
    monkeypatch.setattr("nbqueue.client.map_result.PATIENCE_S", 0.5)
    with pytest.warns(nbqueue.WaitingWarning, match="No worker serves queue 'nobody'"), pytest.raises(TimeoutError):
        list(handle)
