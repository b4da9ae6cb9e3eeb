"""Settings for every test; what belongs to one kind of test stands in that folder's conftest.py."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.contract.harness")

# The machine may be slow or shared: a property fails for what it says, never for the time it took (pytest's own
# timeout ends a test that hangs). In CI the same examples are drawn each time, so that a failure can be had again.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "desk")


@pytest.fixture(scope="session")
def hub_environment() -> Iterator[dict[str, str]]:
    """The environment of a process that is to use a hub of the tests' own, with two slots; stopped at the end."""
    folder = tempfile.mkdtemp(prefix="nbq", dir="/tmp")  # short: the path of a Unix socket has room for 100 characters
    environment = os.environ | {
        "NBQUEUE_RUNTIME_DIR": f"{folder}/run",
        "NBQUEUE_WORKERS": "2",
        "IPYTHONDIR": f"{folder}/ipython",
        "JUPYTER_CONFIG_DIR": f"{folder}/jupyter",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    yield environment
    subprocess.run([sys.executable, "-m", "nbqueue", "stop"], env=environment, timeout=30, check=False)
    shutil.rmtree(folder, ignore_errors=True)
