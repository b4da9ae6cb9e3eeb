"""A port's conversation with the server: operations in batches, a list of news, and a new connection when one breaks.

An operation is one element of a script call. One call is under way at a time; what is asked meanwhile goes out together
with the next, so batches grow with the load and a lone operation waits for nobody. Every script is safe to repeat: when
the connection breaks, the call under way is sent again on the next one, before all that was asked later.

News are asked for ahead: the second connection has many commands waiting in the server, each for one entry of the list,
so that an entry comes without being asked for, and costs neither side a message more (docs/adr/0020).
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import hiredis
import redis

from nbqueue.brokers.redis import operations
from nbqueue.brokers.redis.address import Address
from nbqueue.brokers.redis.channel import Channel, ChannelClosed, pack_command
from nbqueue.brokers.redis.failures import describe, is_elsewhere, translate_redis_errors
from nbqueue.brokers.redis.scripts import Script, functions, plain_scripts
from nbqueue.brokers.redis.server import AnyConnection, ServerInfo, ask, check, open_connection, read_info
from nbqueue.brokers.redis.watch import Watch
from nbqueue.core.dispatcher import Limits
from nbqueue.errors import BrokerUnavailable

logger = logging.getLogger(__name__)

#: Operations and bytes of one script call: it blocks the server, so it must be short.
MAX_OPERATIONS = 256
MAX_CALL_BYTES = 2**20
#: The server holds back the answer to "any news?" for so long.
BLOCK_S = 2.0
#: An answer that is so late will not come: the connection is dead, whatever the network says.
SILENCE_S = BLOCK_S + 5.0
#: Pause between attempts to connect again.
RECONNECT_PAUSE_S = 0.2
#: A port's first exchange with the server must not take longer.
GREETING_S = 10.0
#: A broker that could not be reached for so long is given up.
GIVE_UP_S = 60.0
#: Pause before a call is repeated that a full server refused.
FULL_PAUSE_S = 0.5
#: So many entries of the list are asked for ahead; when so few are left, more are asked for together with the next
#: call, and at the latest when there are hardly any.
NEWS_AHEAD = 32
NEWS_FEW = 16
NEWS_HARDLY_ANY = 8
EAR_BYTES = 8

Reply = bytes
OnReply = Callable[[Reply], None]


class Operation(NamedTuple):
    """One element of a script call."""

    script: str
    body: bytes
    on_reply: OnReply | None = None
    on_full: Callable[[], None] | None = None  #: the server is out of memory and has refused it
    is_awaited: bool = True  #: False: that it was carried out will be seen when there is something else to see


class Listener(Protocol):
    """Whose conversation it is."""

    def on_entry(self, entry: bytes) -> None:
        """Something arrived in the list."""

    def greetings(self) -> list[Operation]:
        """What is to be said first on a new connection, whose list is another one than the last one's."""

    def on_reconnected(self, *, is_same_server: bool) -> None:
        """The greetings were answered on a connection that replaces a broken one.

        Args:
            is_same_server: The process has run all the time; another one may have lost the last writes.
        """


class Opened(NamedTuple):
    """A pair of connections, ready to use."""

    commands: Channel
    news: Channel
    info: ServerInfo
    scripts: dict[str, Script]


class ScriptLoader(Protocol):
    """Makes a server know the scripts; tests bring a clock of their own."""

    def __call__(self, connection: AnyConnection, info: ServerInfo) -> dict[str, Script]:
        """The scripts by name; raises what redis-py raises."""


def load_scripts(connection: AnyConnection, info: ServerInfo) -> dict[str, Script]:
    """See `ScriptLoader`: functions where the server has them, and lets us."""
    if info.knows_functions:
        try:
            script = functions()["tick"]  # they are all in one library
            if not ask(connection, "FUNCTION", "LIST", "LIBRARYNAME", script.library):
                ask(connection, *script.load)
            return functions()
        except redis.ResponseError as error:  # not allowed to, or no memory left for them
            logger.info("redis takes no functions", extra={"reason": str(error)})
    found = plain_scripts(knows_flags=info.knows_functions)
    for script in found.values():
        ask(connection, *script.load)
    return found


def connect(address: Address, load: ScriptLoader = load_scripts) -> Opened:
    """Connect twice, for commands and for news; blocks for a few seconds at most.

    Raises:
        BrokerUnavailable: The server does not answer, or cannot be a broker.
        EnvironmentMismatch: It is too old.
    """
    commands = open_connection(address)
    try:
        with translate_redis_errors(address):
            info = read_info(commands)
        check(info, address)
        with translate_redis_errors(address):
            loaded = load(commands, info)
        news = open_connection(address)
    except BaseException:
        commands.disconnect()
        raise
    return Opened(Channel(commands), Channel(news), info, loaded)


class Session:
    """See the module. Belongs to one thread, `ask_now` and `wake` excepted; `fileno` and `pump` make up its life."""

    def __init__(
        self,
        address: Address,
        *,
        news: bytes,
        client_id: bytes = b"",
        limits: Limits,
        listener: Listener,
        tick_s: float,
        load: ScriptLoader = load_scripts,
    ) -> None:
        """Connect to *address*.

        Args:
            address: Of the server.
            news: What the keys of this port's lists of news begin with; each connection has one of its own.
            client_id: The client whose port it is; empty for a supervisor.
            limits: Of the broker.
            listener: Whose conversation it is.
            tick_s: Seconds between looks at the clock.
            load: Makes the server know the scripts.

        Raises:
            BrokerUnavailable: The server does not answer, or cannot be a broker.
            EnvironmentMismatch: It is too old.
        """
        self._address = address
        self._news = news
        self._client_id = client_id
        self._limits = limits
        self._listener = listener
        self._tick_s = tick_s
        self._load = load
        self._turn = threading.Lock()  # held by whoever sends or receives
        self._queue: deque[Operation] = deque()
        self._under_way: list[Operation] = []
        self._heard_at = self._adopted_at = time.monotonic()
        self._retry_at: float | None = None
        self._ear = b""
        self._ask_for_entry = b""  # the command, packed
        self._asked_for = 0  # entries that the server will send when they come
        self._is_greeted = False
        self._lost_at: float | None = None
        self._next_tick = time.monotonic() + tick_s * (0.1 + random.random())
        self._alarm: threading.Timer | None = None
        self._opening: threading.Thread | None = None
        self._opened: Opened | BaseException | None = None
        self._is_closed = False
        self._is_refused = False  # scripts have to be loaded again
        self._is_awaited = True  # the answer to what is under way
        self._is_finishing = False
        self._is_settled_for: bool | None = None  # `_settle` was called for awaited answers, or not, and all was sent
        self._watch = Watch()
        self._pair: Opened | None = None
        self._info: ServerInfo
        try:
            self._adopt(connect(address, load))
        except BaseException:
            self._free()
            raise

    # -- for the port --------------------------------------------------------------------------------------------------

    @property
    def info(self) -> ServerInfo:
        """What the server said of itself when it was last connected to."""
        return self._info

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is asked that was not answered."""
        return not (self._queue or self._under_way)

    @property
    def news_key(self) -> bytes:
        """The list of news that this connection reads."""
        return self._news + self._ear

    def fileno(self) -> int:
        """Readable when `pump` has something to do."""
        return self._watch.fileno()

    def ask(self, operation: Operation) -> None:
        """Queue an operation for the next `pump`."""
        self._queue.append(operation)

    @property
    def is_idle(self) -> bool:
        """Whether `ask_now` would send at once; may be asked by any thread."""
        return self._pair is not None and self.is_quiet and self._retry_at is None

    def ask_now(self, operation: Operation) -> bool:
        """Send an operation at once, from any thread, unless others are under way; whether that was done."""
        if not self._turn.acquire(blocking=False):
            return False
        try:
            if self._pair is None or not self.is_idle:
                return False
            self._under_way.append(operation)
            try:
                self._send_call()
            except ChannelClosed:
                self.wake()  # its owner finds out, and sends it on the next connection
            if self._pair.commands.has_unsent or self._pair.news.has_unsent:
                self.wake()
            return True
        finally:
            self._turn.release()

    def wake(self) -> None:
        """Make `fileno` readable; may be called by any thread."""
        self._watch.ring()

    def flush(self) -> None:
        """Send what was asked, unless an answer is outstanding: then it goes out with that. Raises as `pump` does."""
        if not self._queue and self._is_settled_for == self._is_awaited:
            return
        with self._turn:
            if self._pair is not None:
                try:
                    self._flush(self._pair, time.monotonic())
                    self._settle(self._pair)
                except ChannelClosed as error:
                    self._lose(str(error))

    def pump(self) -> None:
        """Send what was asked, take what has arrived, look at the clock; never blocks.

        Raises:
            BrokerUnavailable: The server could not be reached for long, or a script failed there.
        """
        with self._turn:
            now = time.monotonic()
            self._watch.hush()
            if self._pair is None:
                self._take_opened(now)
            if self._pair is not None:
                try:
                    self._flush(self._pair, now)
                    if self._is_awaited:
                        self._take_answers(self._pair, now)
                    if not self._take_news(self._pair, now) and not self._is_awaited:
                        self._take_answers(self._pair, now)
                    self._look_at_the_clock(now)
                    self._flush(self._pair, now)
                    self._settle(self._pair)
                except ChannelClosed as error:
                    self._lose(str(error))

    def finish(self, timeout_s: float) -> bool:
        """Wait until all that was asked is answered; False when that took too long."""
        deadline = time.monotonic() + timeout_s
        self._is_finishing = True
        try:
            while not self.is_quiet:
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0:
                    return False
                self.pump()
                if not self.is_quiet:
                    self._watch.wait(min(remaining_s, 0.1))
            return True
        finally:
            self._is_finishing = False

    def greet(self) -> None:
        """Wait for the answer to the greetings.

        Raises:
            BrokerUnavailable: There was none.
        """
        try:
            if not self.finish(GREETING_S):
                raise BrokerUnavailable(f"Redis at {self._address} does not answer")
        except BaseException:
            self.close()
            raise

    def part(self, timeout_s: float) -> None:
        """Say what is still to be said, as far as that takes no longer than *timeout_s*, and close."""
        try:
            self.finish(timeout_s)
        except BrokerUnavailable:
            pass  # nobody is there to hear it
        self.close()

    def close(self) -> None:
        """Free the connections; may be called twice."""
        if not self._is_closed:
            self._is_closed = True
            self._drop_pair()
            self._free()

    # -- asking --------------------------------------------------------------------------------------------------------

    def _flush(self, pair: Opened, now: float) -> None:
        """Send the next call if none is under way."""
        if self._queue and not self._is_awaited:
            self._take_answers(pair, now)  # it may have been there for long
        if self._under_way or not self._queue or (self._retry_at is not None and now < self._retry_at):
            return
        self._retry_at = None
        script, size = self._queue[0].script, 0
        while self._queue and len(self._under_way) < MAX_OPERATIONS and size < MAX_CALL_BYTES:
            if self._queue[0].script != script:
                break
            operation = self._queue.popleft()
            size += len(operation.body)
            self._under_way.append(operation)
        self._send_call()

    def _send_call(self) -> None:
        assert self._pair is not None
        script = self._pair.scripts[self._under_way[0].script]
        circumstances = operations.circumstances(self._limits, self._ear, self._client_id)
        bodies = [operation.body for operation in self._under_way]
        self._is_awaited = any(operation.is_awaited for operation in self._under_way)
        call = pack_command(*script.call, 1, self._address.prefix, circumstances, *bodies)
        if self._is_refused:
            loads = dict.fromkeys(script.load for script in self._pair.scripts.values())
            call = b"".join(pack_command(*load) for load in loads) + call
        self._pair.commands.send(call)
        if self._is_greeted and self._asked_for <= NEWS_FEW:
            self._ask_for_news(self._pair)  # the server is awake anyway

    def _take_reply(self, reply: Any, now: float) -> None:
        if isinstance(reply, bytes):
            self._is_refused = False  # a script was loaded
        elif isinstance(reply, hiredis.ReplyError):
            self._take_error(str(reply), now)
        elif self._under_way:
            answered, self._under_way, self._is_awaited = self._under_way, [], True
            for operation, answer in zip(answered, reply[1:], strict=True):
                if operation.on_reply is not None:
                    operation.on_reply(answer)
            if reply[0]:
                self._tick_in(float(reply[0]), now)

    def _take_error(self, text: str, now: float) -> None:
        if text.startswith("NOSCRIPT") or "Function not found" in text:
            self._is_refused = True
            self._send_call()
        elif "OOM" in text[:40] or "-OOM" in text:
            self._take_full(now)
        elif is_elsewhere(text):
            raise ChannelClosed(text)
        else:
            raise BrokerUnavailable(describe(hiredis.ReplyError(text)))

    def _take_full(self, now: float) -> None:
        """The server is out of memory: work is refused, all else is said again, because it frees or finishes."""
        refused, self._under_way, self._is_awaited = self._under_way, [], True
        self._retry_at = now + FULL_PAUSE_S
        self._ring_in(FULL_PAUSE_S)
        again = []
        for operation in refused:
            if operation.on_full is not None:
                operation.on_full()
            else:
                again.append(operation)
        self._queue.extendleft(reversed(again))
        if not again:
            self._retry_at = None

    # -- hearing -------------------------------------------------------------------------------------------------------

    def _take_answers(self, pair: Opened, now: float) -> None:
        for reply in pair.commands.receive():
            self._heard_at = now
            self._take_reply(reply, now)

    def _take_news(self, pair: Opened, now: float) -> bool:
        """Whether there was anything."""
        replies = pair.news.receive()
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError):
                raise ChannelClosed(str(reply))
            self._heard_at = now
            self._asked_for -= 1
            if self._asked_for <= NEWS_HARDLY_ANY:
                self._ask_for_news(pair)
            if reply is not None:  # else none came in time
                self._listener.on_entry(reply[1])
        return bool(replies)

    def _ask_for_news(self, pair: Opened) -> None:
        pair.news.send(self._ask_for_entry * (NEWS_AHEAD - self._asked_for))
        self._asked_for = NEWS_AHEAD

    # -- time ----------------------------------------------------------------------------------------------------------

    def _look_at_the_clock(self, now: float) -> None:
        if now - self._heard_at > SILENCE_S:
            raise ChannelClosed("the server does not answer")
        if now >= self._next_tick:
            self._next_tick = now + self._tick_s * (0.9 + 0.2 * random.random())
            self.ask(Operation("tick", _TICK))

    def _tick_in(self, seconds: float, now: float) -> None:
        """Something is due by then: look at the clock in time."""
        due = now + seconds + 0.001
        if due < self._next_tick < math.inf:
            self._next_tick = due
            self._ring_in(seconds + 0.001)

    def _ring_in(self, seconds: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = threading.Timer(seconds, self.wake)
        self._alarm.daemon = True
        self._alarm.start()

    # -- connecting again ----------------------------------------------------------------------------------------------

    def _adopt(self, pair: Opened) -> None:
        """Go on with new connections."""
        is_first, now = self._lost_at is None, time.monotonic()
        is_same_server = is_first or pair.info.run_id == self._info.run_id
        self._pair, self._info = pair, pair.info
        self._lost_at = None
        self._heard_at = self._adopted_at = now
        self._is_refused, self._is_awaited, self._is_settled_for = False, True, None
        self._ear, self._asked_for, self._is_greeted = os.urandom(EAR_BYTES), 0, False
        self._ask_for_entry = pack_command("BLPOP", self.news_key, BLOCK_S)
        self._settle(pair)
        again, self._under_way = self._under_way, []
        self._queue.extendleft(reversed(again))
        greetings = self._listener.greetings()
        last = greetings[-1]

        def answered(reply: Reply) -> None:
            if last.on_reply is not None:
                last.on_reply(reply)
            if self._pair is not None:
                self._is_greeted = True
                self._ask_for_news(self._pair)
            if not is_first:
                logger.warning("reconnected to redis", extra={"server": str(self._address)})
                self._listener.on_reconnected(is_same_server=is_same_server)

        greetings[-1] = last._replace(on_reply=answered)
        self._queue.extendleft(reversed(greetings))

    def _lose(self, reason: str) -> None:
        """The connection broke: a helper thread makes a new one, so that the port goes on serving its owner."""
        logger.warning("lost redis", extra={"server": str(self._address), "reason": reason})
        self._drop_pair()
        self._lost_at = now = time.monotonic()
        self._start_opening(0.0 if now - self._adopted_at > 1.0 else RECONNECT_PAUSE_S)

    def _start_opening(self, pause_s: float) -> None:
        def open_pair() -> None:
            time.sleep(pause_s)
            try:
                self._opened = connect(self._address, self._load)
            except BaseException as error:
                self._opened = error
            self.wake()

        self._opened = None
        self._opening = threading.Thread(target=open_pair, name="nbqueue-redis-connect", daemon=True)
        self._opening.start()

    def _take_opened(self, now: float) -> None:
        opened, self._opened = self._opened, None
        if isinstance(opened, Opened):
            self._adopt(opened)
        elif opened is not None:
            assert self._lost_at is not None
            if now - self._lost_at > GIVE_UP_S or not isinstance(opened, BrokerUnavailable):
                raise opened
            self._start_opening(RECONNECT_PAUSE_S)

    def _drop_pair(self) -> None:
        if self._pair is not None:
            for channel in (self._pair.commands, self._pair.news):
                self._watch.drop(channel)
                channel.close()
            self._pair = None

    # -- descriptors ---------------------------------------------------------------------------------------------------

    def _settle(self, pair: Opened) -> None:
        """Send what the sockets take, and be woken for what somebody waits for: news, room to send, awaited answers."""
        is_awaited = self._is_awaited or bool(self._queue) or self._is_finishing
        if is_awaited == self._is_settled_for and not (pair.commands.has_unsent or pair.news.has_unsent):
            return
        for channel in (pair.commands, pair.news):
            if channel.has_unsent:
                channel.flush()
        self._watch.want(pair.commands, answers=is_awaited)
        self._watch.want(pair.news, answers=True)
        is_all_sent = not (pair.commands.has_unsent or pair.news.has_unsent)
        self._is_settled_for = is_awaited if is_all_sent else None

    def _free(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._watch.close()


_TICK = operations.encode(["t"])
