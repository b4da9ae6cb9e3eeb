"""What a worker runs by name, and what it accepts at all.

A worker that accepts pickles runs whatever it is sent, so a name may be that of any function that it can import. One
that accepts JSON only runs nothing but tasks: what the decorator `nbqueue.task` has marked in the modules that it was
started with. Its operator has written that list, and no client can lengthen it (ADR 0018).
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

from nbqueue.core.named import NamedTask
from nbqueue.core.serializers import Serializer
from nbqueue.errors import ContentDisallowed, NotRegistered

#: Names of tasks that an error tells.
_SHOWN_NAMES = 10

Function = Callable[..., Any]


class Catalog:
    """The tasks of one worker, imported when the first of them is asked for."""

    def __init__(self, accept: Sequence[Serializer], modules: Sequence[str], *, folder: str, worker: str) -> None:
        """Offer the tasks of *modules*.

        Args:
            accept: What functions and arguments may be packed with.
            modules: Their names.
            folder: Where modules are looked for that are found nowhere else, if there are any to be imported.
            worker: Its name, for errors.
        """
        self._accept = accept
        self._modules = modules
        self._folder = folder
        self._worker = worker
        self._tasks: dict[str, Function] | None = None

    @property
    def accepts_pickles(self) -> bool:
        """Whether this process may ever unpickle anything."""
        return "cloudpickle" in self._accept

    def check_pickled(self) -> None:
        """Raise `ContentDisallowed` if no function may be unpickled here."""
        if not self.accepts_pickles:
            raise ContentDisallowed(
                f"worker {self._worker} accepts json only, and this task is packed with cloudpickle: call one of its "
                "tasks by name (nbqueue.send_task), or send this one to a worker that accepts cloudpickle"
            )

    def find(self, name: str) -> Function:
        """The function that is called by *name*.

        Raises:
            ContentDisallowed: Nothing is called by name here, since arguments are JSON then.
            NotRegistered: There is no task of this name, or it cannot be imported.
        """
        if "json" not in self._accept:
            raise ContentDisallowed(f"worker {self._worker} accepts cloudpickle only, and {name!r} is called with JSON")
        task = self.tasks().get(name)
        if task is not None:
            return task
        if not self.accepts_pickles:
            raise NotRegistered(f"worker {self._worker} knows no task {name!r}: {self._what_there_is()}")
        return self._imported(name)

    def tasks(self) -> dict[str, Function]:
        """The tasks of all modules, by name.

        Raises:
            NotRegistered: A module cannot be imported, or two tasks have one name.
        """
        if self._tasks is None:
            if self._modules and self._folder not in sys.path:
                sys.path.append(self._folder)  # behind all others: nothing in it can stand for a module of Python
            found: dict[str, Function] = {}
            for module in self._modules:
                for task in self._tasks_of(module):
                    known = found.setdefault(task.name, task.function)
                    if known is not task.function:
                        raise NotRegistered(
                            f"worker {self._worker} knows two tasks {task.name!r}: give one another name"
                        )
            self._tasks = found
        return self._tasks

    def _tasks_of(self, module: str) -> list[NamedTask]:
        try:
            imported = importlib.import_module(module)
        except Exception as error:
            raise NotRegistered(
                f"worker {self._worker} cannot import module {module!r}, which was named for its tasks: "
                f"{type(error).__name__}: {error}"
            ) from error
        return [value for value in vars(imported).values() if isinstance(value, NamedTask)]

    def _what_there_is(self) -> str:
        if not self._modules:
            return "it accepts json only, and was started without tasks (nbqueue-worker --import MODULES)"
        names = sorted(self.tasks())
        more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
        listed = ", ".join(names[:_SHOWN_NAMES]) or "none"
        return f"it accepts json only, so it runs nothing but its own tasks: {listed}{more}"

    # -- whatever can be imported --------------------------------------------------------------------------------------

    def _imported(self, name: str) -> Function:
        try:
            found = _import(name)
        except Exception as error:
            why = str(error) if isinstance(error, _NoSuch) else f"{type(error).__name__}: {error}"
            raise NotRegistered(f"worker {self._worker} knows no task {name!r}: {why}") from error
        if isinstance(found, NamedTask):
            return found.function
        if not callable(found):
            raise NotRegistered(
                f"worker {self._worker} knows no task {name!r}: that is no function, but of type {type(found).__name__}"
            )
        return found  # type: ignore[no-any-return]  # what a name stands for can be anything


class _NoSuch(Exception):
    """A name stands for nothing."""


def _import(name: str) -> Any:
    """What the name "package.module.function" stands for."""
    first, *rest = name.split(".")
    if not rest or not all(part.isidentifier() for part in (first, *rest)):
        raise _NoSuch("a function that can be imported is named package.module.function")
    found: Any = importlib.import_module(first)
    for part in rest:
        if not hasattr(found, part):
            _import_inside(found, part)
        found = getattr(found, part)
    return found


def _import_inside(package: Any, part: str) -> None:
    """Import a module of a package, which has it then."""
    inner = f"{package.__name__}.{part}" if inspect.ismodule(package) else ""
    try:
        if inner:
            importlib.import_module(inner)
            return
    except ModuleNotFoundError as error:
        if error.name != inner:
            raise  # it is there, and imports something that is not
    raise _NoSuch(f"{getattr(package, '__name__', package)!r} has no {part!r}")
