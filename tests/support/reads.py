"""Reads until it has seen thirty rotations and read sixty thousand times; a value is its number, forty times over."""

import time

begun = time.monotonic()
reads, failed, seen = 0, 0, set()
while reads < 60000 or len(seen) < 31:
    try:
        words = open('/run/secrets/token').read().split()
        whole = len(words) == 40 and len(set(words)) == 1
        failed += not whole
        seen.add(words[0])
    except Exception:
        failed += 1
    reads += 1
print(reads, failed, len(seen), int(reads / (time.monotonic() - begun)))
