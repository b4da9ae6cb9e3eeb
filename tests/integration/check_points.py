"""Interrupts at a chosen point of nbqueue's own code in the main thread, instead of at a chosen time.

CPython looks for signals at the first instruction of a function, behind a call of C code, and where a loop jumps back.
These are the points at which a `KeyboardInterrupt` can be raised; here, one is raised at the n-th of them.
"""

import dis
import os
import signal
import sys

import nbqueue

FOLDER = os.path.dirname(nbqueue.__file__)
RESUME, CALL, UNPACKING_CALL, JUMP_BACKWARD = (
    dis.opmap[name] for name in ("RESUME", "CALL", "CALL_FUNCTION_EX", "JUMP_BACKWARD")
)


def is_ours(frame):
    """Whether it runs code of nbqueue."""
    return frame is not None and frame.f_code.co_filename.startswith(FOLDER)


def is_before_the_call(frame, instruction):
    """Whether a call of the user's has not begun: what it was called on may be gone by then, and nobody can answer."""
    return frame.f_code.co_code[instruction] == RESUME and not is_ours(frame.f_back)


class InterruptAt:
    """Interrupts what is done in its context, at the n-th point."""

    def __init__(self, point):
        self._left = point
        self._last = {}  # instruction by frame
        self._latest = None  # frame that has run an instruction

    @property
    def has_interrupted(self):
        """Whether the point was reached."""
        return self._left == 0

    def cancel(self):
        """From now on, interrupt nothing."""
        self._left = -1

    def __enter__(self):
        sys.settrace(self._enter_function)
        return self

    def __exit__(self, *exc_info):
        sys.settrace(None)

    def _enter_function(self, frame, event, argument):
        if not is_ours(frame):
            self._latest = None
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._follow

    def _follow(self, frame, event, argument):
        if event == "return":
            self._last.pop(frame, None)
        elif event == "opcode":
            instruction = frame.f_code.co_code[frame.f_lasti]
            if self._is_point(frame, instruction):
                self._left -= 1
                if self._left == 0:
                    sys.settrace(None)
                    signal.raise_signal(signal.SIGINT)
            self._last[frame], self._latest = instruction, frame
        return self._follow

    def _is_point(self, frame, instruction):
        before = self._last.get(frame)
        is_behind_c_code = before == UNPACKING_CALL or (before == CALL and self._latest is frame)
        if is_before_the_call(frame, frame.f_lasti):
            return False
        return instruction in (RESUME, JUMP_BACKWARD) or is_behind_c_code
