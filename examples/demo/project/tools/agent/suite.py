"""Runs a project's unittest suite, each time in a process of its own, and says what failed and which lines ran.

A candidate change can loop for ever, eat memory or end the interpreter, so the process has limits and a deadline; a run
that gives no complete answer counts as no run at all.
"""

import io
import json
import os
import resource
import select
import signal
import sys
import time
import unittest
from dataclasses import dataclass, field

MEMORY_LIMIT = 1 << 30
ANSWER_LIMIT = 16 << 20


@dataclass
class Outcome:
    """What one run of the suite showed."""

    tests: set = field(default_factory=set)
    """The names of all tests that ran."""
    failures: dict = field(default_factory=dict)
    """The last words of each test that failed, by name."""
    lines: dict = field(default_factory=dict)
    """The lines that each test ran, as `(file, line)`, by name; only of a traced run."""
    seconds: float = 0.0
    """How long the run took."""


class _Recorder(unittest.TestResult):
    def __init__(self, folder, traced):
        super().__init__()
        self.folder = os.path.join(os.path.realpath(folder), "")
        self.traced = traced
        self.outcome = Outcome()
        self.current = set()

    def startTest(self, test):
        super().startTest(test)
        self.outcome.tests.add(test.id())
        self.current = set()
        if self.traced:
            sys.settrace(self._trace)

    def stopTest(self, test):
        sys.settrace(None)
        self.outcome.lines[test.id()] = sorted(self.current)
        super().stopTest(test)

    def addFailure(self, test, err):
        self._failed(test, err)

    def addError(self, test, err):
        self._failed(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._failed(test, err)

    def addUnexpectedSuccess(self, test):
        self.outcome.failures[test.id()] = "succeeded, though it is expected to fail"

    def _failed(self, test, err):
        # A module that cannot be imported is reported as a test that never started.
        self.outcome.tests.add(test.id())
        self.outcome.failures[test.id()] = f"{err[0].__name__}: {err[1]}"[:2000]

    def _trace(self, frame, event, argument):
        name = frame.f_code.co_filename
        if not name.startswith(self.folder):
            return None
        if event == "line":
            self.current.add((name[len(self.folder):], frame.f_lineno))
        return self._trace


def run(folder, traced=False, limit=20.0):
    """Runs the tests below `folder/tests`; None when there was no complete answer within `limit` seconds."""
    begin = time.monotonic()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            _child(folder, traced, limit, writer)
        finally:
            os._exit(1)
    os.close(writer)
    answer = _read(reader, begin + limit)
    os.close(reader)
    # The child leads a process group of its own, so that whatever a test started ends with it.
    for end in (lambda: os.killpg(child, signal.SIGKILL), lambda: os.kill(child, signal.SIGKILL)):
        try:
            end()
        except ProcessLookupError:
            pass
    os.waitpid(child, 0)
    if answer is None:
        return None
    try:
        value = json.loads(answer)
    except ValueError:
        return None
    lines = {test: {(file, line) for file, line in pairs} for test, pairs in value["lines"].items()}
    return Outcome(set(value["tests"]), value["failures"], lines, time.monotonic() - begin)


def _read(reader, deadline):
    answer = bytearray()
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        piece = os.read(reader, 1 << 16)
        if not piece:
            return bytes(answer) or None
        answer += piece
        if len(answer) > ANSWER_LIMIT:
            return None


def _child(folder, traced, limit, writer):
    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 1))
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), io.StringIO(), io.StringIO()
    # A compiled file is found stale by time and size alone, which two candidates can share.
    sys.dont_write_bytecode = True
    folder = os.path.realpath(folder)
    os.chdir(folder)
    sys.path.insert(0, folder)
    recorder = _Recorder(folder, traced)
    unittest.TestLoader().discover("tests", top_level_dir=folder).run(recorder)
    outcome = recorder.outcome
    answer = json.dumps({"tests": sorted(outcome.tests), "failures": outcome.failures, "lines": outcome.lines})
    with os.fdopen(writer, "w") as pipe:
        pipe.write(answer)
    os._exit(0)
