"""Settings for every test; what belongs to one kind of test stands in that folder's conftest.py."""

import os

from hypothesis import settings

# The machine may be slow or shared: a property fails for what it says, never for the time it took (pytest's own
# timeout ends a test that hangs). In CI the same examples are drawn each time, so that a failure can be had again.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "desk")
