"""The calls that put work on a broker, with their options."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, TypeVar

import msgspec

from nbqueue.brokers.base import Broker
from nbqueue.brokers.nesting import MAX_DEPTH, NEST, Parent
from nbqueue.client.again import KeptArguments, SecondRun, unsuccessful
from nbqueue.client.bundles import Recipe
from nbqueue.client.feeder import Feeder
from nbqueue.client.held_back import begins, handed_over
from nbqueue.client.keywords import shows
from nbqueue.client.link import Link
from nbqueue.client.map_result import MapResult, Stream
from nbqueue.client.options import (
    DEFAULTS,
    MAP_DEFAULTS,
    MapOptions,
    OnError,
    OnInterrupt,
    Progress,
    check_options,
    retry_on,
    task_options,
)
from nbqueue.client.output import Prints
from nbqueue.client.result import AsyncResult, View
from nbqueue.client.run import ClientRun
from nbqueue.client.waiting import Attendant, NoAttendant
from nbqueue.core.task import Block, RunSpec
from nbqueue.errors import NestingLimitExceeded, NotSerializable
from nbqueue.wire.environment import current_environment
from nbqueue.wire.function import Call, pack_function
from nbqueue.wire.payload import pack_blocks

#: Items that `imap` keeps ahead of the consumer.
IMAP_BUFFERSIZE = 10_000

Handle = TypeVar("Handle", bound=AsyncResult)
Again = Callable[[AsyncResult, dict[str, Any]], MapResult]


class Display(Attendant, Protocol):
    """Shows runs while they go on, and keeps what it shows alive while somebody waits."""

    def show(self, handle: AsyncResult, *, progress: Progress, desc: str | None) -> View | None:
        """Begin to show *handle*; never raises."""

    def follow(self, prints: Prints) -> None:
        """Show what single tasks print, while they do; never raises."""

    @property
    def preparation(self) -> object:
        """To be unpickled in a slot before a function; None when there is nothing to prepare."""


class NoDisplay(NoAttendant):
    """Shows nothing."""

    preparation = None

    def show(self, handle: AsyncResult, *, progress: Progress, desc: str | None) -> View | None:
        """Show nothing."""
        return None

    def follow(self, prints: Prints) -> None:
        """Show nothing."""


class Connected(Protocol):
    """What a submitter needs of an app."""

    display: Display

    def connection(self) -> tuple[Link, Broker]:
        """The live connection."""


class Submitter:
    """The calls of an app, with task options."""

    def __init__(self, app: Connected, options: dict[str, Any]) -> None:
        """Submit through *app*; *options* are checked here, see `Calls.options`."""
        self._app = app
        self._options = check_options(options)
        self._retry_on = retry_on(self._options)
        self._task_options = task_options(self._options)

    @handed_over
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """Run ``fn(*args, **kwargs)`` on a worker; the handle comes back at once.

        Returns:
            Its handle. The task is the broker's as soon as the I/O thread has sent it, normally within a
            millisecond.

        Raises:
            NotSerializable: The function or an argument cannot be pickled.
            BrokerUnavailable: The broker cannot be reached or started.
        """
        return self.submit_item(AsyncResult, fn, *_as_item(args, kwargs))

    @handed_over
    def submit_as(self, kind: Callable[..., Handle], fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Handle:
        """`submit` with a handle of another *kind*: a class, or what makes one from the arguments of `AsyncResult`."""
        return self.submit_item(kind, fn, *_as_item(args, kwargs))

    def submit_item(self, kind: Callable[..., Handle], fn: Callable[..., Any], call: Call, argument: Any) -> Handle:
        """`submit` with its arguments as one item, of which *call* says how it becomes arguments."""
        link, broker = connection = self._app.connection()
        recipe = self._recipe(fn, call, broker)
        if kind is AsyncResult and link.bundles(recipe, argument) and NEST.parent() is None:
            return self._join_bundle(link, broker, recipe, fn, call, argument)  # type: ignore[return-value]  # of that kind
        spec, body = _new_run(recipe), recipe.body
        try:
            blocks = list(pack_blocks([argument], start=0, blobs=broker.blobs, folder=spec.run_id.hex()))
        except NotSerializable as error:
            from nbqueue.wire.blame import refusal_of_arguments  # looks into values, which only this case needs

            raise refusal_of_arguments(*_arguments(call, argument)) or error from None
        return begin_one(
            connection,
            self._app.display,
            kind,
            spec,
            body,
            blocks,
            lambda argument, override: self.changed(override).submit_item(kind, fn, call, argument),
        )

    def _join_bundle(
        self, link: Link, broker: Broker, recipe: Recipe, fn: Callable[..., Any], call: Call, argument: Any
    ) -> AsyncResult:
        """Submit a task that travels with others."""
        display = self._app.display
        return link.join_bundle(
            recipe,
            argument,
            occasion=display.occasion(),
            make_handle=lambda item: AsyncResult(item, link, broker.blobs, attendant=display),
            again=lambda argument, override: self.changed(override).submit_item(AsyncResult, fn, call, argument),
            follow=display.follow,
        )

    @handed_over
    @shows(DEFAULTS)
    def map(
        self,
        fn: Callable[..., Any],
        /,
        *iterables: Iterable[Any],
        chunksize: int | Literal["auto"] = "auto",
        buffersize: int | None = None,
        ordered: bool = True,
        timeout: float | None = None,
        on_error: OnError = "raise",
        progress: Progress = True,
        desc: str | None = None,
        total: int | None = None,
        label: str | None = None,
        on_interrupt: OnInterrupt = "revoke",
        **task_options: Any,
    ) -> MapResult:
        """Run *fn* over items on the workers, and show a card meanwhile.

        Args:
            fn: Called with one item of each iterable: ``fn(x)`` for one, ``fn(x, y)`` for two.
            *iterables: Read in the caller's thread, up to the end of the shortest.
            chunksize: Items that a worker takes at once; "auto": learnt from how long they run.
            buffersize: Read the input lazily, at most so many items ahead of the results consumed. Without it the input
                is read to its end, and when the call returns the broker has all of it.
            ordered: Iterate in input order, or in the order in which items end.
            timeout: Seconds after which `get` and iteration raise `TimeoutError`.
            on_error: What `get` and iteration do with an item that failed: raise its error, return it in its place, or
                skip it. The other items go on in any case.
            progress: Show a card or a bar: True, False, "text", or ``dict(desc=…, unit=…, leave=…)``.
            desc: Title of the card; default: the label.
            total: Number of items, for the card, when the input is lazy.
            label: Name of the run; default: that of the function.
            on_interrupt: What an interrupt (■, Ctrl-C) of a wait does. "revoke": it stops the map if the same cell or
                script has made it, else only the wait. "detach": it only stops the wait.
            **task_options: As for `options`.

        Returns:
            The handle, at once: iterate, index or `get` it.

        Example:
            >>> nbqueue.map(abs, [-1, 2, -3]).get()
            [1, 2, 3]

        Raises:
            NotSerializable: The function or an item cannot be pickled.
            QueueFull: The broker had no room for so long as `NBQUEUE_SUBMIT_TIMEOUT`.
            BrokerUnavailable: The broker cannot be reached or started.
        """
        if not iterables:
            raise TypeError("map needs at least one iterable")
        return self._map(
            fn,
            iterables[0] if len(iterables) == 1 else zip(*iterables, strict=False),
            "one" if len(iterables) == 1 else "star",
            chunksize=chunksize,
            buffersize=buffersize,
            ordered=ordered,
            timeout=timeout,
            on_error=on_error,
            progress=progress,
            desc=desc,
            total=total,
            on_interrupt=on_interrupt,
            label=label,
            **task_options,
        )

    @handed_over
    @shows(MAP_DEFAULTS, DEFAULTS)
    def starmap(self, fn: Callable[..., Any], iterable: Iterable[Iterable[Any]], /, **options: Any) -> MapResult:
        """`map` for items that are tuples of arguments: ``fn(*item)``.

        Takes the keywords of `map`.
        """
        return self._map(fn, iterable, "star", **options)

    @handed_over
    @shows({**MAP_DEFAULTS, "buffersize": IMAP_BUFFERSIZE}, DEFAULTS)
    def imap(self, fn: Callable[..., Any], /, *iterables: Iterable[Any], **options: Any) -> Stream:
        """Results in input order; the input may be endless.

        It is read as the results are consumed. Takes the keywords of `map`; ``buffersize`` (default 10,000) bounds how
        far the input is read ahead.
        """
        return Stream(self.map(fn, *iterables, **{"buffersize": IMAP_BUFFERSIZE, **options}))

    @handed_over
    @shows({**MAP_DEFAULTS, "buffersize": IMAP_BUFFERSIZE, "ordered": False}, DEFAULTS)
    def imap_unordered(self, fn: Callable[..., Any], /, *iterables: Iterable[Any], **options: Any) -> Stream:
        """`imap` in the order in which items end."""
        return self.imap(fn, *iterables, ordered=False, **options)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _map(self, fn: Callable[..., Any], items: Iterable[Any], call: Call, **keywords: Any) -> MapResult:
        own = {name: keywords.pop(name) for name in MapOptions.__struct_fields__ if name in keywords}
        how = MapOptions(**own)
        label = keywords.pop("label", None) or self._options["label"]
        submitter = Submitter(self._app, {**self._options, **keywords, "label": label})
        link, broker = self._app.connection()
        spec, body = submitter._pack(fn, call, broker, chunksize=how.chunk_items)
        run, kept = ClientRun(spec.run_id, spec.label), None
        if how.buffersize is None:
            kept = _keep(run, [])
        feeder = Feeder(items, run, link, broker.blobs, buffersize=how.buffersize, kept=kept)
        handle = MapResult(run, link, broker.blobs, options=how, feeder=feeder, attendant=self._app.display)
        if kept is not None:
            handle.retry_with(submitter._runner_again(fn, call, how, kept))
        begins(handle)
        try:
            link.submit(spec, body, [], closed=False, run=run, handle=handle)
            handle.show_in(self._app.display.show(handle, progress=how.progress, desc=how.desc))
            if how.buffersize is None:
                feeder.feed_all()
                link.wait_until_accepted(run)
            else:
                feeder.top_up(0)
            return handle  # noqa: TRY300 -- an interrupt that falls before it is ours to answer
        except KeyboardInterrupt:  # nobody will get the handle
            feeder.give_up()
            raise

    def changed(self, override: dict[str, Any]) -> Submitter:
        """The same with other options."""
        return Submitter(self._app, {**self._options, **override})

    @handed_over
    def map_again(
        self, former: AsyncResult, fn: Callable[..., Any], call: Call, how: MapOptions, kept: KeptArguments
    ) -> MapResult:
        """Run the items of *former* again that have not succeeded, with their *kept* arguments."""
        link, broker = self._app.connection()
        former_run = former.run
        assert isinstance(former_run, ClientRun), "it is that of a map"
        items = unsuccessful(former_run)
        numbers = [number for item in items for number, _ in former_run.on_broker(item, item + 1)]
        spec, body = self._pack(fn, call, broker, chunksize=how.chunk_items)
        values = kept.values(numbers, broker.blobs)
        blocks = list(pack_blocks(values, start=0, blobs=broker.blobs, folder=spec.run_id.hex()))
        run = SecondRun(spec.run_id, spec.label, former=former_run, items=items)
        handle = MapResult(run, link, broker.blobs, options=how, attendant=self._app.display)
        handle.retry_with(self._runner_again(fn, call, how, _keep(run, blocks)))
        begins(handle)
        link.submit(spec, body, blocks, closed=True, run=run, handle=handle)
        handle.show_in(self._app.display.show(handle, progress=how.progress, desc=how.desc))
        return handle

    def _runner_again(self, fn: Callable[..., Any], call: Call, how: MapOptions, kept: KeptArguments) -> Again:
        return lambda former, override: self.changed(override).map_again(former, fn, call, how, kept)

    def _pack(
        self, fn: Callable[..., Any], call: Call, broker: Broker, *, chunksize: int | None = None
    ) -> tuple[RunSpec, bytes]:
        """The run of a call and its packed function."""
        recipe = self._recipe(fn, call, broker, chunksize=chunksize)
        return _new_run(recipe), recipe.body

    def _recipe(self, fn: Callable[..., Any], call: Call, broker: Broker, *, chunksize: int | None = None) -> Recipe:
        """What a call is made of, but for its items."""
        if not callable(fn):
            raise TypeError(f"the first argument must be a function, not {type(fn).__name__}")
        environment = current_environment(with_variables=broker.blobs is not None)  # of a broker on this machine
        digest, body = pack_function(
            fn,
            call=call,
            retry_on=self._retry_on,
            environment=environment,
            blobs=broker.blobs,
            preparation=self._app.display.preparation,
        )
        options = self._task_options if chunksize is None else task_options(self._options, chunksize=chunksize)
        return Recipe(digest, body, self._options["label"] or _name_of(fn), options, environment.digest)


def begin_one(
    connection: tuple[Link, Broker],
    display: Display,
    kind: Callable[..., Handle],
    spec: RunSpec,
    body: bytes,
    blocks: Sequence[Block],
    again: Callable[[Any, dict[str, Any]], AsyncResult],
) -> Handle:
    """Submit a run of one item, whose handle is of this *kind*; *again* does it with its argument and other options."""
    link, broker = connection
    run = ClientRun(spec.run_id, spec.label, total=1, closed=True)
    run.learner = link.learner(spec.function)
    handle = kind(run, link, broker.blobs, attendant=display)
    kept = _keep(run, blocks)
    handle.retry_with(lambda _, override: again(kept.values([0], broker.blobs)[0], override))
    display.follow(handle)
    begins(handle)
    link.submit(spec, body, blocks, closed=True, run=run, handle=handle)
    if NEST.is_slot:
        link.wait_until_accepted(run)  # its slot is lent when the task waits for it: it must come first there
    return handle


def _new_run(recipe: Recipe) -> RunSpec:
    """A run, which may be inside of a task."""
    spec, parent = recipe.run(os.urandom(16)), NEST.parent()
    return spec if parent is None else nested(spec, parent)


def nested(spec: RunSpec, parent: Parent) -> RunSpec:
    """The run as one that is submitted inside a task: before everything that waits on the level of that task.

    Raises:
        NestingLimitExceeded: It would be too deep.
    """
    depth = parent.depth + 1
    if depth > MAX_DEPTH:
        raise NestingLimitExceeded(
            f"{spec.label!r} would be the task number {depth + 1} inside of one another: at most {MAX_DEPTH} may be "
            "below the first one, since each of them keeps a process waiting; does the recursion end?"
        )
    priority = parent.priority + 1 + max(0, spec.options.priority)
    options = msgspec.structs.replace(spec.options, priority=priority)
    return msgspec.structs.replace(spec, options=options, parent=parent.run_id, parent_item=parent.item, depth=depth)


def _keep(run: ClientRun, blocks: Sequence[Block]) -> KeptArguments:
    """Keep the packed arguments of the run until they have succeeded."""
    kept = KeptArguments()
    for block in blocks:
        kept.add(block)
    run.on_success = kept.let_go
    return kept


def _as_item(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Call, Any]:
    """How the arguments of one call travel."""
    if kwargs:
        return "call", (args, kwargs)
    if len(args) == 1:
        return "one", args[0]
    return "star", args


def _arguments(call: Call, item: Any) -> tuple[Sequence[Any], dict[str, Any]]:
    """The arguments that an item becomes."""
    match call:
        case "one":
            return [item], {}
        case "star":
            return item, {}
        case _:
            args, kwargs = item
            return args, kwargs


def _name_of(fn: Callable[..., Any]) -> str:
    inner = getattr(fn, "func", fn)  # of a functools.partial
    return str(getattr(inner, "__name__", type(inner).__name__))
