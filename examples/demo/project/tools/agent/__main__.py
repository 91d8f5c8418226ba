"""The agent of the demo: a program that repairs the project that it is in until the project's own tests pass.

It is no model. It searches (see repair.py), so it finds small mistakes only, and any of them: plant another one and run
it again. What it shares with a model's agent is what it is lent: a credential, one host, a clone of the repository.
"""

import os
import subprocess
import sys
import time

import guideline
import repair

CREDENTIAL = "demo-token"


def say(text):
    """One line of progress."""
    print(f"agent: {text}", flush=True)


def commit(folder, mend, rules):
    """Writes the repair into the working tree, lets the real test command prove it, and commits."""
    for file, text in mend.sources.items():
        with open(os.path.join(folder, file), "wb") as target:
            target.write(text)
    # -B: a compiled file would be found fresh by time and size alone, and the change is seconds old.
    tests = [sys.executable, "-B", "-m", "unittest", "discover", "-s", "tests", "-t", "."]
    done = subprocess.run(tests, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise repair.GaveUp(f"the change does not hold in the real test command:\n{done.stderr[-2000:]}")
    git = ["git", "-C", folder]
    subprocess.run([*git, "add", "--", *sorted(mend.sources)], check=True, timeout=60)
    subprocess.run([*git, "commit", "--quiet", "--file=-"], input=message(mend, rules), text=True, check=True, timeout=60)
    head = subprocess.run([*git, "log", "-1", "--format=%h %s"], capture_output=True, text=True, check=True, timeout=60)
    return head.stdout.strip()


def message(mend, rules):
    """What was wrong, what changed and what showed it."""
    where = dict.fromkeys(edit.function or os.path.basename(edit.file) for edit in ordered(mend))
    lines = [f"{rules.subject_prefix}correct {' and '.join(where)}", ""]
    lines += [f"- {edit.describe()}" for edit in ordered(mend)]
    lines += ["", "Failed before, passes now:"]
    for test, words in sorted(mend.failures.items()):
        first = words.split("\n")[0][:120]
        lines.append(f"- {test.split('.', 1)[-1]}: {first}")
    lines += ["", f"{mend.runs} runs of the tests, {mend.seconds:.1f} s.", "", rules.trailer]
    return "\n".join(lines) + "\n"


def ordered(mend):
    """The changes in the order of the files."""
    return sorted(mend.edits, key=lambda edit: (edit.file, edit.line, edit.start))


def main():
    """Runs the whole job; the exit code says whether it was done."""
    folder = os.getcwd()
    allowed, closed = os.environ.get("GUIDELINE_URL"), os.environ.get("CLOSED_URL")
    if not allowed or not closed:
        raise guideline.Refused("GUIDELINE_URL and CLOSED_URL are not set")
    token = guideline.credential(CREDENTIAL)
    token_file = os.path.join(os.environ["CREDENTIALS_DIRECTORY"], CREDENTIAL)
    say(f"read the credential {token_file} ({len(token)} characters, not shown)")
    rules = guideline.fetch(allowed, token)
    say(f"fetched \"{rules.name}\" from {allowed}: may change {', '.join(rules.may_change)}/")
    say("trying what this sandbox must refuse:")
    for tried, answer in guideline.refusals(allowed, closed, token_file):
        say(f"  {tried}: {answer}")
    begin = time.monotonic()
    mend = repair.repair(folder, rules.may_change, repair.Budget(edits=rules.most_edits), lambda text: say(f"  {text}"))
    if not mend.edits:
        say("all tests pass already; nothing to do")
        return
    say(f"{len(mend.failures)} tests failed:")
    for test, words in sorted(mend.failures.items()):
        first = words.split("\n")[0][:120]
        say(f"  {test}: {first}")
    say(f"found a repair in {time.monotonic() - begin:.1f} s, after {mend.runs} runs of the tests:")
    for edit in ordered(mend):
        say(f"  {edit.describe()}")
    say(f"all tests pass; committed {commit(folder, mend, rules)}")


if __name__ == "__main__":
    try:
        main()
    except (guideline.Refused, guideline.Reached, repair.GaveUp, OSError, subprocess.SubprocessError) as error:
        print(f"agent: failed: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
