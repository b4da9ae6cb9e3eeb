"""Which names a cell needs from outside, and which it assigns: read from its bytecode, without running it.

Pure: standard library only. The cell is given as Python, after IPython's transformers have turned ``!ls`` and ``%time``
into calls of ``get_ipython()``; top-level ``await`` is allowed. Bytecode is asked because the compiler alone knows all
of Python's scopes; the order of statements is followed so far that a name which a cell always sets before it reads it
is not sent along.

The answer is generous where it cannot be exact: a name may be called read though a branch that reads it is never taken.
"""

from __future__ import annotations

import ast
import dis
import re
import string
import types
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

__all__ = ["Names", "analyse", "compile_cell"]

_READS = frozenset("LOAD_NAME LOAD_GLOBAL LOAD_FROM_DICT_OR_GLOBALS DELETE_NAME DELETE_GLOBAL".split())
_STORES = frozenset({"STORE_NAME", "STORE_GLOBAL"})
#: What `!command`, `%magic` and `%%magic` become.
_SHELL_CALLS = frozenset("system getoutput run_line_magic run_cell_magic".split())
#: Every namespace has one of its own.
_OWN = frozenset({"__annotations__"})
_DOLLAR = re.compile(r"(?<!\$)\$\{?(\w+)")

#: Turns the text of a cell into Python, as IPython does.
Transform = Callable[[str], str]


class Names(NamedTuple):
    """What a cell does with the names of its notebook."""

    read: frozenset[str]  #: it may use them before it sets them itself
    assigned: frozenset[str]  #: it may set them


def compile_cell(source: str, filename: str = "<cell>") -> types.CodeType:
    """Compile a cell; raises `SyntaxError` as the cell itself would."""
    code: types.CodeType = compile(source, filename, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return code


def analyse(source: str, transform: Transform = str) -> Names:
    """Say which names a cell reads and assigns.

    Args:
        source: Python, after the input transformers.
        transform: For the code inside ``%%time`` and its like.

    Raises:
        SyntaxError: It does not compile.
    """
    tree = compile(source, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    walk = _Walk(transform)
    walk.block(tree.body, frozenset())
    return Names(frozenset(walk.read - _OWN), frozenset(walk.assigned - _OWN))


class _Walk:
    """Follows the statements of a cell in their order."""

    def __init__(self, transform: Transform) -> None:
        self._transform = transform
        self.read: set[str] = set()
        self.assigned: set[str] = set()

    def block(self, statements: Iterable[ast.stmt], known: frozenset[str]) -> frozenset[str]:
        """Take in statements one after the other.

        Args:
            statements: Of the cell's own level.
            known: Names that are surely set before the first of them.

        Returns:
            Names that are surely set after the last one.
        """
        for statement in statements:
            known = self._statement(statement, known)
        return known

    def _statement(self, statement: ast.stmt, known: frozenset[str]) -> frozenset[str]:
        match statement:
            case ast.If(test=test, body=body, orelse=orelse):
                known = self._simple(ast.Expr(test), known)
                return self.block(body, known) & self.block(orelse, known)
            case ast.While(test=test, body=body, orelse=orelse):
                known = self._simple(ast.Expr(test), known)
                self.block(orelse, known)
                self.block(body, known)
                return known
            case (
                ast.For(target=target, iter=source, body=body, orelse=orelse)
                | ast.AsyncFor(target=target, iter=source, body=body, orelse=orelse)
            ):
                known = self._simple(ast.Expr(source), known)
                self.block(body, self._simple(_assignment(target), known))
                self.block(orelse, known)
                return known
            case ast.With(items=items, body=body) | ast.AsyncWith(items=items, body=body):
                for item in items:
                    known = self._simple(ast.Expr(item.context_expr), known)
                    if item.optional_vars is not None:
                        known = self._simple(_assignment(item.optional_vars), known)
                self.block(body, known)  # which a manager may leave early
                return known
            case ast.Try(body=body, handlers=handlers, orelse=orelse, finalbody=final):
                self.block(orelse, self.block(body, known))
                for handler in handlers:
                    self._handler(handler, known)
                return self.block(final, known)
            case ast.Break() | ast.Continue() | ast.Pass():
                return known
            case _:
                return self._simple(statement, known)

    def _handler(self, handler: ast.ExceptHandler, known: frozenset[str]) -> None:
        if handler.type is not None:
            known = self._simple(ast.Expr(handler.type), known)
        if handler.name is not None:
            self.assigned.add(handler.name)
            known |= {handler.name}
        self.block(handler.body, known)

    def _simple(self, statement: ast.stmt, known: frozenset[str]) -> frozenset[str]:
        """A statement without blocks at the cell's level: it reads first, then it stores."""
        code = compile(
            ast.fix_missing_locations(ast.Module([statement], [])),
            "<cell>",
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        reads, stores, deletes = _names_of(code)
        for text in _shell_texts(statement):
            reads |= self._names_in_text(text)
        self.read |= reads - known
        self.assigned |= stores
        is_definite = not isinstance(statement, ast.Match | ast.TryStar)
        return (known | stores if is_definite and not _is_lazy(statement) else known) - deletes

    def _names_in_text(self, text: str) -> set[str]:
        """Names in the argument of a magic or a command: ``{expression}``, ``$name``, and code to be timed."""
        found = set(_DOLLAR.findall(text))
        for expression in _braced(text):
            found |= self._names_in_code(expression)
        return found | self._names_in_code(text)

    def _names_in_code(self, text: str) -> set[str]:
        try:
            return set(analyse(self._transform(text), self._transform).read)
        except (SyntaxError, ValueError, RecursionError):
            return set()


def _assignment(target: ast.expr) -> ast.stmt:
    """``target = None``, for a target that a ``for`` or a ``with`` sets."""
    return ast.Assign([target], ast.Constant(None))


def _is_lazy(statement: ast.stmt) -> bool:
    """Whether a part of it may not be executed: then what is stored there is not sure."""
    lazy = (ast.IfExp, ast.BoolOp, ast.comprehension, ast.Compare)
    return any(isinstance(node, ast.NamedExpr) for node in ast.walk(statement)) and any(
        isinstance(node, lazy) for node in ast.walk(statement)
    )


def _names_of(code: types.CodeType) -> tuple[set[str], set[str], set[str]]:
    """Global names that the code, and all code in it, reads, and those that it stores or deletes."""
    reads, stores, deletes = set(), set(), set()
    for level, part in _codes(code):
        for instruction in dis.get_instructions(part):
            if instruction.opname in _READS:
                reads.add(instruction.argval)
            elif instruction.opname == "STORE_GLOBAL" or (instruction.opname in _STORES and level == 0):
                stores.add(instruction.argval)
            if instruction.opname == "DELETE_NAME" and level == 0:
                deletes.add(instruction.argval)
    return reads, stores, deletes


def _codes(code: types.CodeType, level: int = 0) -> Iterator[tuple[int, types.CodeType]]:
    yield level, code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant, level + 1)


def _shell_texts(statement: ast.stmt) -> Iterator[str]:
    """The text arguments of ``get_ipython().system(…)`` and its like."""
    for node in ast.walk(statement):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in _SHELL_CALLS
            and isinstance(node.func.value, ast.Call)
            and ast.unparse(node.func.value) == "get_ipython()"
        ):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def _braced(text: str) -> Iterator[str]:
    try:
        yield from (expression for _, expression, _, _ in string.Formatter().parse(text) if expression)
    except ValueError:  # braces of the shell's own
        yield from re.findall(r"\{([^{}]+)\}", text)
