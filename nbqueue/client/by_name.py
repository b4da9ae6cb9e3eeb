"""Calls of tasks by their names, with JSON: nothing of this process goes along, and nothing is ever unpickled."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from nbqueue.brokers.nesting import NEST
from nbqueue.client.held_back import handed_over
from nbqueue.client.options import check_options, task_options
from nbqueue.client.result import AsyncResult
from nbqueue.client.submitter import Connected, begin_one, nested
from nbqueue.core.task import RunSpec
from nbqueue.wire.as_json import AsJson, check_json
from nbqueue.wire.function import pack_name
from nbqueue.wire.payload import pack_blocks


@handed_over
def send(
    app: Connected, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
) -> AsyncResult:
    """Have a worker call what it knows by *name*; see `Calls.send_task`."""
    values = check_options(options)
    if values["autoretry_for"]:
        raise ValueError(
            "autoretry_for names exceptions of this process, and a call by name sends nothing of it: with max_retries "
            "alone every exception is retried"
        )
    _check(name, args, kwargs)
    _, broker = connection = app.connection()
    digest, body = pack_name(name)
    spec = RunSpec(run_id=os.urandom(16), function=digest, label=values["label"] or name, options=task_options(values))
    parent = NEST.parent()
    spec = spec if parent is None else nested(spec, parent)
    arguments = AsJson([list(args), dict(kwargs)])
    blocks = list(pack_blocks([arguments], start=0, blobs=broker.blobs, folder=spec.run_id.hex()))

    def again(argument: list[Any], override: dict[str, Any]) -> AsyncResult:
        args, kwargs = argument
        return send(app, name, args, kwargs, {**options, **override})

    return begin_one(connection, app.display, AsyncResult, spec, body, blocks, again)


def _check(name: object, args: object, kwargs: object) -> None:
    """Raise for what cannot be meant, and for arguments that JSON does not have."""
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f'name must be the name of a task, e.g. "package.module.function", not {name!r}')
    if not isinstance(args, list | tuple):
        raise TypeError(f"args must be a list or a tuple, not {args!r}")
    if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
        raise TypeError(f"kwargs must be a dict with names of arguments, not {kwargs!r}")
    for argument, value in (*enumerate(args), *kwargs.items()):
        check_json(value, f"argument {argument!r}")
