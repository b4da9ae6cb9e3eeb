"""Tasks that are known to be short, submitted faster than they run, travel together.

A task of its own costs a message, a run and news of it; as an item of a run it costs next to nothing. So when a client
has many runs under way, its next tasks of a function that has been short so far become items of one run, each with a
handle as if it were alone. See docs/adr/0021.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from nbqueue.client.held_back import begins
from nbqueue.client.items import OneItem
from nbqueue.client.output import Listener
from nbqueue.client.run import ClientRun
from nbqueue.core.states import State
from nbqueue.core.task import Entry, RunSpec, TaskOptions
from nbqueue.wire.blobs import BlobStore
from nbqueue.wire.payload import PackedValues, is_plain

#: Tasks in one bundle, at most: their results stay with the broker as long as one of them is wanted.
MOST_MEMBERS = 256
#: So many runs of this client must be under way: then there is work enough for a while, and nobody waits for a message.
ENOUGH_RUNS = 16
#: A bundle that is not full waits so long for more.
PATIENCE_S = 0.002
#: A function is bundled while its tasks take no longer than this and return no more.
SHORT_S = 0.002
SMALL_BYTES = 2048
#: Of two measurements, the newer counts this much: the first call of a function may have imported half of the world.
_NEWER = 0.5
#: What was learnt is kept for so many functions.
HABITS_KEPT = 512
#: Longer texts are no small arguments.
_LONGEST_ARGUMENT = 1024


class Recipe(msgspec.Struct, frozen=True):
    """What a task is made of, besides its arguments."""

    function: bytes  #: digest
    body: bytes
    label: str
    options: TaskOptions
    environment: bytes

    def run(self, run_id: bytes) -> RunSpec:
        """A run of it."""
        return RunSpec(
            run_id=run_id,
            function=self.function,
            label=self.label,
            options=self.options,
            environment=self.environment,
        )


class Habit:
    """What the tasks of a function have been like."""

    __slots__ = ("_bytes", "_is_known", "_is_strange", "_seconds")

    def __init__(self) -> None:
        self._is_known = False
        self._is_strange = False  # it prints, or kills its process: to be looked at one by one
        self._seconds = self._bytes = 0.0

    @property
    def is_short(self) -> bool:
        """Whether they take next to no time and return next to nothing."""
        return self._is_known and not self._is_strange and self._seconds <= SHORT_S and self._bytes <= SMALL_BYTES

    def learn(self, entry: Entry) -> None:
        """Some have ended."""
        if entry.state is State.LOST:
            self._is_strange = True
        if entry.state not in (State.SUCCESS, State.FAILURE):
            return
        items = entry.stop - entry.start
        seconds, size = entry.wall_s / items, len(entry.payload) / items
        weight = _NEWER if self._is_known else 1.0
        self._seconds += weight * (seconds - self._seconds)
        self._bytes += weight * (size - self._bytes)
        self._is_known = True

    def has_printed(self) -> None:
        """One of them has."""
        self._is_strange = True


class Bundle(ClientRun):
    """Tasks that travel together."""

    def __init__(self, recipe: Recipe, occasion: object, again: Callable[[Any, dict[str, Any]], Any]) -> None:
        """Collect tasks of *recipe*, submitted on one *occasion*; *again* submits one with other options."""
        super().__init__(os.urandom(16), recipe.label)
        self.recipe = recipe
        self._occasion = occasion
        self._again = again
        self._unpacked: dict[int, PackedValues] = {}

    @property
    def spec(self) -> RunSpec:
        """Its run."""
        return self.recipe.run(self.run_id)

    def takes(self, recipe: Recipe, occasion: object) -> bool:
        """Whether tasks of *recipe* may join."""
        return recipe == self.recipe and occasion == self._occasion

    @property
    def is_full(self) -> bool:
        """Whether nobody more can join."""
        return len(self.members) >= MOST_MEMBERS

    def add(self, argument: Any, make_handle: Callable[[OneItem], Any]) -> Any:
        """One task more; its handle."""
        member = OneItem(self, len(self.members), argument)
        handle = make_handle(member)
        handle.retry_with(self._submit_again)
        begins(handle)
        member.join(handle)  # the last step, which is one: an interrupt may fall behind each
        return handle

    def _submit_again(self, handle: Any, override: dict[str, Any]) -> Any:
        return self._again(handle.run.argument, override)

    def close(self) -> list[Any]:
        """Nobody joins any more; the arguments of its tasks."""
        self.expect(len(self.members), closed=True)
        return [member.argument for member in self.members.values()]

    def values(self, entry: Entry, blobs: BlobStore | None) -> PackedValues:
        """See `ClientRun.values`; they are asked for one by one, and unpacked once."""
        values = self._unpacked.get(entry.start)
        if values is None:
            values = self._unpacked[entry.start] = super().values(entry, blobs)
        return values

    def print_to(self, listener: Listener) -> None:
        """Where the output of all of them is shown while it comes."""
        self.output.listen(listener)


class Bundles:
    """The bundles of one connection that can still be joined, and what is known of functions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[bytes, Bundle] = {}  # by function
        self._habits: OrderedDict[bytes, Habit] = OrderedDict()

    def habit(self, function: bytes) -> Habit:
        """What is known of a function."""
        habit = self._habits.get(function)
        if habit is None:
            habit = self._habits[function] = Habit()
            if len(self._habits) > HABITS_KEPT:
                self._habits.popitem(last=False)
        return habit

    def may_join(self, recipe: Recipe, argument: Any) -> bool:
        """Whether a task may travel with others: it is known to be short, its argument small and not to be changed."""
        habit = self._habits.get(recipe.function)
        return habit is not None and habit.is_short and _is_small(argument)

    def join(
        self,
        recipe: Recipe,
        argument: Any,
        *,
        occasion: object,
        make_handle: Callable[[OneItem], Any],
        again: Callable[[Any, dict[str, Any]], Any],
        begin: Callable[[Bundle], None],
    ) -> Any:
        """Let a task travel with others, or begin a bundle; its handle.

        Args:
            recipe: What it is made of.
            argument: See `may_join`.
            occasion: Its output is shown with that of others of the same occasion.
            make_handle: Makes its handle of its place in the run.
            again: Submits it again, given its argument and other options.
            begin: Called with a new bundle; to `close` it soon, and send it.
        """
        with self._lock:
            bundle = self._open.get(recipe.function)
            if bundle is None or not bundle.takes(recipe, occasion):
                bundle = Bundle(recipe, occasion, again)
                bundle.learner = self.habit(recipe.function)
                begin(bundle)
                self._open[recipe.function] = bundle
            handle = bundle.add(argument, make_handle)
            if bundle.is_full:
                del self._open[recipe.function]
            return handle

    def close(self, bundle: Bundle) -> list[Any]:
        """Nobody joins it any more; the arguments of its tasks."""
        with self._lock:
            if self._open.get(bundle.recipe.function) is bundle:
                del self._open[bundle.recipe.function]
            return bundle.close()


def _is_small(argument: Any) -> bool:
    """Whether it can be pickled later, together with others, since nobody can change it meanwhile."""
    if type(argument) is tuple:
        return len(argument) <= 16 and is_plain([argument]) and all(map(_is_short_text, argument))
    return is_plain([argument]) and _is_short_text(argument)


def _is_short_text(value: Any) -> bool:
    return not isinstance(value, str | bytes | int) or isinstance(value, bool) or _size(value) <= _LONGEST_ARGUMENT


def _size(value: str | bytes | int) -> int:
    return value.bit_length() // 8 if isinstance(value, int) else len(value)
