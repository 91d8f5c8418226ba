"""Shows that the demo's agent searches: it mends mistakes that it has never seen, and says so where it cannot.

Needs python3 and git, no engine. Run with `python3 -m unittest discover -s examples/demo/tests`.
"""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.dirname(HERE)
PROJECT = os.path.join(DEMO, "project")
sys.dont_write_bytecode = True
sys.path[:0] = [DEMO, os.path.join(PROJECT, "tools", "agent")]

import bugs  # noqa: E402
import guideline  # noqa: E402
import mutation  # noqa: E402
import repair  # noqa: E402
import suite  # noqa: E402


def copy_of_project(case):
    """A copy that ends with the test."""
    place = tempfile.mkdtemp(prefix="demo-test-")
    case.addCleanup(shutil.rmtree, place)
    folder = os.path.join(place, "project")
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def read(folder, file):
    """The text of a file of the project."""
    with open(os.path.join(folder, file), "rb") as source:
        return source.read()


class TheProject(unittest.TestCase):
    def test_it_ships_with_failing_tests(self):
        outcome = suite.run(PROJECT)
        self.assertGreaterEqual(len(outcome.failures), 2)
        self.assertGreater(len(outcome.tests), len(outcome.failures))

    def test_its_tests_pass_once_the_shipped_mistakes_are_out(self):
        folder = copy_of_project(self)
        bugs.mend(folder)
        self.assertEqual(suite.run(folder).failures, {})

    def test_each_planted_mistake_makes_a_test_fail(self):
        for name in bugs.BUGS:
            with self.subTest(name):
                folder = copy_of_project(self)
                bugs.plant(folder, name)
                outcome = suite.run(folder, limit=5)
                self.assertTrue(outcome is None or outcome.failures)


class TheSearch(unittest.TestCase):
    def mended(self, folder):
        """Repairs a project and checks what has to hold of any repair."""
        before = {file: read(folder, file) for file in repair.read_sources(folder, ["pricing"])}
        result = repair.repair(folder, ["pricing"])
        self.assertTrue(result.edits)
        for file, text in before.items():
            self.assertEqual(read(folder, file), text, "the search changed the project itself")
        for file, text in result.sources.items():
            self.assertTrue(file.startswith("pricing/"))
            with open(os.path.join(folder, file), "wb") as target:
                target.write(text)
        self.assertEqual(suite.run(folder).failures, {})
        return result

    def test_mends_the_shipped_mistakes(self):
        result = self.mended(copy_of_project(self))
        self.assertEqual(len(result.edits), 2)

    def test_mends_what_else_is_planted(self):
        for name in bugs.BUGS:
            if name == "endless-loop":
                continue
            with self.subTest(name):
                folder = copy_of_project(self)
                bugs.plant(folder, name)
                result = self.mended(folder)
                self.assertEqual(len(result.edits), len(bugs.BUGS[name]))

    def test_mends_a_mistake_in_code_that_it_has_never_seen(self):
        with tempfile.TemporaryDirectory() as folder:
            for path in ("pricing", "tests"):
                os.mkdir(os.path.join(folder, path))
            files = {
                "pricing/words.py": "def longest(words):\n    best = ''\n    for word in words:\n"
                "        if len(word) < len(best):\n            best = word\n    return best\n",
                "tests/__init__.py": "",
                "tests/test_words.py": "import unittest\nfrom pricing.words import longest\n\n"
                "class T(unittest.TestCase):\n    def test_longest(self):\n"
                "        self.assertEqual(longest(['a', 'ccc', 'bb', 'ddd']), 'ccc')\n"
                "    def test_none(self):\n        self.assertEqual(longest([]), '')\n",
            }
            for path, text in files.items():
                with open(os.path.join(folder, path), "w", encoding="utf-8") as target:
                    target.write(text)
            self.assertEqual([edit.after for edit in self.mended(folder).edits], [">"])

    def test_gives_up_on_what_no_small_change_mends(self):
        folder = copy_of_project(self)
        bugs.mend(folder)
        path = os.path.join(folder, "tests", "test_discount.py")
        with open(path, "a", encoding="utf-8") as target:
            target.write("\n\nclass Never(unittest.TestCase):\n    def test_contradiction(self):\n"
                         "        self.assertNotEqual(reduce(1999, 0), reduce(1999, 0))\n")
        with self.assertRaises(repair.GaveUp):
            repair.repair(folder, ["pricing"], repair.Budget(runs=150))

    def test_keeps_to_its_budget(self):
        with self.assertRaisesRegex(repair.GaveUp, "budget of 5 runs"):
            repair.repair(copy_of_project(self), ["pricing"], repair.Budget(runs=5))

    def test_says_when_the_tests_themselves_never_end(self):
        folder = copy_of_project(self)
        bugs.plant(folder, "endless-loop")
        self.assertIsNone(suite.run(folder, limit=3))

    def test_does_nothing_where_all_tests_pass(self):
        folder = copy_of_project(self)
        bugs.mend(folder)
        self.assertEqual(repair.repair(folder, ["pricing"]).edits, [])


class TheSuite(unittest.TestCase):
    def test_a_test_that_ends_the_interpreter_gives_no_outcome(self):
        folder = copy_of_project(self)
        with open(os.path.join(folder, "pricing", "money.py"), "w", encoding="utf-8") as target:
            target.write("")
        with open(os.path.join(folder, "tests", "test_exit.py"), "w", encoding="utf-8") as target:
            target.write("import os, unittest\n\nclass T(unittest.TestCase):\n    def test(self):\n        os._exit(0)\n")
        self.assertIsNone(suite.run(folder))

    def test_a_change_of_the_same_size_in_the_same_second_is_seen(self):
        folder = copy_of_project(self)
        bugs.mend(folder)
        path = os.path.join(folder, "pricing", "discount.py")
        text = read(folder, "pricing/discount.py")
        times = os.stat(path).st_atime, os.stat(path).st_mtime
        self.assertEqual(suite.run(folder).failures, {})
        with open(path, "wb") as target:
            target.write(text.replace(b"PALLET_PERCENT = 12", b"PALLET_PERCENT = 13"))
        os.utime(path, times)
        self.assertTrue(suite.run(folder).failures)


class AChange(unittest.TestCase):
    def test_replaces_only_its_own_piece_and_counts_in_bytes(self):
        source = "def f(a, b):  # größer\n    return 'ü' if a < b else 'x'  # ä\n".encode()
        found = mutation.edits("f.py", source, mutation.Hints(set(), set(), set()))
        change = next(edit for edit in found if edit.before == "<" and edit.after == "<=")
        self.assertEqual(change.apply(source).decode(), source.decode().replace("a < b", "a <= b"))

    def test_every_change_replaces_exactly_what_it_says(self):
        hints = mutation.Hints.of(["AssertionError: 3 != 7"])
        for file, source in repair.read_sources(PROJECT, ["pricing"]).items():
            for edit in mutation.edits(file, source, hints):
                self.assertEqual(source[edit.start:edit.end].decode(), edit.before)
                self.assertNotEqual(edit.apply(source), source)

    def test_hints_are_the_numbers_and_texts_of_the_message(self):
        hints = mutation.Hints.of(["AssertionError: 12 != 15", "AssertionError: 'EUR' != 'USD'"])
        self.assertEqual(hints.numbers, {12, 15})
        self.assertEqual(hints.differences, {3, -3})
        self.assertEqual(hints.texts, {"EUR", "USD"})


class TheCommit(unittest.TestCase):
    def test_holds_the_source_alone_and_says_what_changed(self):
        folder = copy_of_project(self)
        environment = {
            **os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.example",
            "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.example",
        }

        def git(*arguments):
            done = subprocess.run(["git", "-C", folder, *arguments], env=environment, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout

        git("init", "-q", "-b", "main")
        git("add", "-A")
        git("commit", "-q", "-m", "Start")
        program = (
            "import sys, runpy; sys.dont_write_bytecode = True; sys.path.insert(0, 'tools/agent')\n"
            "import repair, guideline\n"
            "main = runpy.run_path('tools/agent/__main__.py', run_name='agent')\n"
            "rules = guideline.Guideline('g', ['pricing'], 'fix: ', 'Guideline: pricing 3', 4)\n"
            "main['commit']('.', repair.repair('.', rules.may_change), rules)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(git("diff", "--name-only", "HEAD~1").split(), ["pricing/basket.py", "pricing/discount.py"])
        words = git("log", "-1", "--format=%B")
        self.assertTrue(words.startswith("fix: correct total and bulk_percent\n"), words)
        self.assertIn("`>` becomes `>=`", words)
        self.assertEqual(git("log", "-1", "--format=%(trailers:key=Guideline,valueonly)").strip(), "pricing 3")
        self.assertEqual(git("status", "--porcelain"), "")


class TheGuideline(unittest.TestCase):
    GOOD = '{"name": "n", "may_change": ["pricing"], "subject_prefix": "fix: ", "trailer": "T: 1", "most_edits": 2}'

    def test_is_read(self):
        self.assertEqual(guideline.parse(self.GOOD.encode()).may_change, ["pricing"])

    def test_cannot_name_a_path_or_hold_a_second_line(self):
        for before, after in [('"pricing"', '"../x"'), ('"pricing"', '"/"'), ('"T: 1"', '"a\\nb"'), ("2}", "900}")]:
            with self.subTest(after), self.assertRaises(guideline.Refused):
                guideline.parse(self.GOOD.replace(before, after).encode())

    def test_a_token_is_never_printed(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "demo-token"), "w", encoding="ascii") as file:
                file.write("demo_secret\n")
            os.environ["CREDENTIALS_DIRECTORY"] = folder
            self.addCleanup(os.environ.pop, "CREDENTIALS_DIRECTORY")
            output = io.StringIO()
            with contextlib.redirect_stdout(output), self.assertRaises(guideline.Refused) as caught:
                guideline.fetch("http://127.0.0.1:9/", guideline.credential("demo-token"))
            self.assertNotIn("demo_secret", output.getvalue() + str(caught.exception))


if __name__ == "__main__":
    unittest.main()
