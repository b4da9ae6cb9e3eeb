"""What Tab and Shift-Tab show of functions that pass their keywords on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def shows(*keywords: Mapping[str, Any]) -> Callable[[Function], Function]:
    """Let a function that takes ``**anything`` show these keywords instead, with their defaults."""

    def mark(function: Function) -> Function:
        signature = inspect.signature(function)
        own = {name: each for name, each in signature.parameters.items() if each.kind is not Parameter.VAR_KEYWORD}
        passed_on = {
            name: Parameter(name, Parameter.KEYWORD_ONLY, default=default)
            for some in keywords
            for name, default in some.items()
        }
        parameters = [*own.values(), *(passed_on[name] for name in passed_on if name not in own)]
        function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return function

    return mark
