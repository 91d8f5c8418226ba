"""Searches for a change of the source with which a project's own tests pass.

1. Run the suite, noting which lines each test runs. Lines that failing tests run and passing ones do not come first
   (the Ochiai coefficient, as in fault localisation by spectrum).
2. Try small changes of those lines, the likeliest first, each in a copy of the project. The numbers and texts in the
   failing tests' messages are candidates for wrong constants.
3. A change that lets every test pass ends the search. One that lets some more pass, and none fail, is kept: several
   mistakes are mended by several such changes together, or one after the other.

A change that is found this way is plausible, not right: the tests are all that it knows. That is what review is for.
"""

import itertools
import math
import os
import shutil
import tempfile
import time
from dataclasses import dataclass

import mutation
import suite


class GaveUp(Exception):
    """The search ended without a result; its text says why."""


@dataclass
class Budget:
    """What a search may cost."""

    runs: int = 6000
    seconds: float = 240.0
    edits: int = 4


@dataclass
class Repair:
    """A change with which all tests pass."""

    edits: list
    """The single changes, in the order in which they were found."""
    sources: dict
    """The new text of each changed file."""
    failures: dict
    """What failed before, by test."""
    runs: int
    """How often the suite ran."""
    seconds: float
    """How long the search took."""


def read_sources(folder, allowed):
    """The Python files below the allowed folders, by path below `folder`."""
    found = {}
    for top in allowed:
        for place, folders, names in os.walk(os.path.join(folder, top)):
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
            for name in sorted(names):
                path = os.path.join(place, name)
                if name.endswith(".py") and os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as file:
                        found[os.path.relpath(path, folder)] = file.read()
    return found


def suspicion(outcome):
    """How much each line that ran looks like the cause of what failed, between 0 and 1."""
    failing, passing = {}, {}
    for test, lines in outcome.lines.items():
        counts = failing if test in outcome.failures else passing
        for line in lines:
            counts[line] = counts.get(line, 0) + 1
    total = len(outcome.failures)
    return {line: count / math.sqrt(total * (count + passing.get(line, 0))) for line, count in failing.items()}


def repair(folder, allowed, budget=None, progress=lambda text: None):
    """Finds a repair of the project in `folder`, whose files below `allowed` may change; changes nothing there."""
    with tempfile.TemporaryDirectory(prefix="repair-") as place:
        copy = os.path.join(place, "project")
        shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns(".git", "__pycache__"))
        return _Search(copy, allowed, budget or Budget(), progress).search()


class _Search:
    def __init__(self, copy, allowed, budget, progress):
        self.copy, self.budget, self.progress = copy, budget, progress
        self.original = read_sources(copy, allowed)
        self.on_disk = dict(self.original)
        self.begin = time.monotonic()
        self.runs = 0
        self.limit = 60.0

    def search(self):
        first = self._run(self.original, traced=True)
        if first is None:
            raise GaveUp("the tests themselves do not end")
        if not first.tests:
            raise GaveUp("there are no tests")
        self.tests = first.tests
        # A candidate that is ten times slower than the code it came from will not end well.
        self.limit = max(2.0, 10 * first.seconds)
        if not first.failures:
            return Repair([], {}, {}, self.runs, self._seconds())
        edits, sources = self._mend(self.original, first, [])
        changed = {file: text for file, text in sources.items() if text != self.original[file]}
        return Repair(edits, changed, first.failures, self.runs, self._seconds())

    def _seconds(self):
        return time.monotonic() - self.begin

    def _run(self, sources, traced=False):
        self.runs += 1
        for file, text in sources.items():
            if self.on_disk[file] != text:
                with open(os.path.join(self.copy, file), "wb") as target:
                    target.write(text)
                self.on_disk[file] = text
        return suite.run(self.copy, traced, self.limit)

    def _mend(self, sources, outcome, done):
        """Goes on from `sources`, which fail as `outcome` says, after the changes in `done`."""
        better = []
        failing = set(outcome.failures)
        for edit in self._ranked(sources, outcome):
            self._check_budget()
            after = self._attempt(self._applied(sources, [edit]))
            if after is None or not set(after.failures) < failing:
                continue
            if not after.failures:
                return done + [edit], self._applied(sources, [edit])
            better.append((edit, after))
            self.progress(f"{edit.describe()}: {len(failing) - len(after.failures)} more pass, kept in mind")
            together = self._combine(sources, failing, better, self.budget.edits - len(done))
            if together:
                return done + together, self._applied(sources, together)
        if len(done) + 1 < self.budget.edits:
            better.sort(key=lambda pair: len(pair[1].failures))
            for edit, _ in better[:3]:
                changed = self._applied(sources, [edit])
                traced = self._run(changed, traced=True)
                if traced is None:
                    continue
                try:
                    return self._mend(changed, traced, done + [edit])
                except _DeadEnd:
                    continue
        raise _DeadEnd(f"no small change lets {len(failing)} failing tests pass, after {self.runs} runs")

    def _ranked(self, sources, outcome):
        scores = suspicion(outcome)
        hints = mutation.Hints.of(outcome.failures.values())
        suspects = {file for file, _ in scores}
        ranked = []
        for file, text in sources.items():
            for edit in mutation.edits(file, text, hints):
                # Definitions run when a module is imported, so constants have no failing test's line of their own; and
                # a module that cannot be imported leaves no line at all.
                score = scores.get((file, edit.line))
                if score is None:
                    constant = not edit.function and (file in suspects or not suspects)
                    score = 0.4 if constant else 0.0 if suspects else 0.3
                if score > 0:
                    ranked.append((-score * edit.weight, file, edit.line, edit.start, edit.after, edit))
        ranked.sort(key=lambda entry: entry[:-1])
        return [entry[-1] for entry in ranked]

    def _combine(self, sources, failing, better, most):
        """The newest of the changes that help, together with earlier ones that help the other tests."""
        newest, outcome = better[-1]
        missing = set(outcome.failures)
        groups = {}
        for edit, after in better[:-1]:
            fixed = frozenset(missing - set(after.failures))
            if fixed:
                groups.setdefault(fixed, []).append(edit)
        ordered = sorted(groups, key=lambda tests: (-len(tests), sorted(tests)))
        for count in range(1, most):
            for chosen in itertools.combinations(ordered, count):
                if set().union(*chosen) != missing:
                    continue
                for others in itertools.islice(itertools.product(*(groups[tests][:3] for tests in chosen)), 27):
                    edits = [*others, newest]
                    if not _apart(edits):
                        continue
                    self._check_budget()
                    after = self._attempt(self._applied(sources, edits))
                    if after is not None and not after.failures:
                        return edits
        return None

    def _applied(self, sources, edits):
        changed = dict(sources)
        # From the end of a file to its start, so that the positions of the rest still hold.
        for edit in sorted(edits, key=lambda edit: -edit.start):
            changed[edit.file] = edit.apply(changed[edit.file])
        return changed

    def _attempt(self, sources):
        """The outcome, or None when the candidate is not even the same suite."""
        outcome = self._run(sources)
        if self.runs % 100 == 0:
            self.progress(f"{self.runs} changes tried in {self._seconds():.0f} s")
        return outcome if outcome is not None and outcome.tests == self.tests else None

    def _check_budget(self):
        if self.runs >= self.budget.runs:
            raise GaveUp(f"the budget of {self.budget.runs} runs of the tests is used up")
        if self._seconds() >= self.budget.seconds:
            raise GaveUp(f"the budget of {self.budget.seconds:.0f} s is used up")


class _DeadEnd(GaveUp):
    """This branch of the search has no result."""


def _apart(edits):
    """Whether no two changes touch the same piece of text."""
    ordered = sorted(edits, key=lambda edit: (edit.file, edit.start))
    return all(a.file != b.file or a.end <= b.start for a, b in zip(ordered, ordered[1:]))
