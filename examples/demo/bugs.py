#!/usr/bin/env python3
"""Mistakes that can be planted in the demo's project, to see that the agent finds its repair and does not know it.

    bugs.py list              the names
    bugs.py plant NAME DIR    mend the project in DIR, then plant this mistake instead
"""

import os
import sys

# The two mistakes with which the project ships, as (file, text, text without the mistake).
SHIPPED = [
    ("pricing/discount.py", "quantity > BULK_QUANTITY", "quantity >= BULK_QUANTITY"),
    ("pricing/basket.py", "tax(goods)", "tax(reduced)"),
]

# By name: pieces of the mended project, and what stands there instead.
BUGS = {
    "boundary": [("pricing/discount.py", "quantity >= BULK_QUANTITY", "quantity > BULK_QUANTITY")],
    "wrong-name": [("pricing/basket.py", "tax(reduced)", "tax(goods)")],
    "wrong-constant": [("pricing/discount.py", "PALLET_PERCENT = 12", "PALLET_PERCENT = 17")],
    "wrong-sign": [("pricing/discount.py", "(100 - percent)", "(100 + percent)")],
    "off-by-one": [("pricing/shipping.py", "max(kilograms - 1, 0)", "max(kilograms, 0)")],
    "wrong-function": [("pricing/discount.py", "min(years, 5)", "max(years, 5)")],
    "wrong-attribute": [("pricing/basket.py", "key=lambda line: line.price", "key=lambda line: line.quantity")],
    "negated-condition": [("pricing/basket.py", "if not lines:", "if lines:")],
    "lost-sum": [("pricing/basket.py", "total += reduce", "total = reduce")],
    "swapped-arguments": [("pricing/basket.py", "shipping(reduced, grams)", "shipping(grams, reduced)")],
    "wrong-rounding": [("pricing/shipping.py", "-(-grams // 1000)", "(grams // 1000)")],
    "endless-loop": [
        (
            "pricing/discount.py",
            "    return min(years, 5)",
            "    percent = 0\n    while percent != 5 or percent < years:\n        percent += 1\n    return percent",
        )
    ],
    "three-at-once": [
        ("pricing/discount.py", "if years < 1:", "if years <= 1:"),
        ("pricing/shipping.py", "subtotal >= FREE_FROM", "subtotal > FREE_FROM"),
        ("pricing/basket.py", "return min(lines", "return max(lines"),
    ],
}


def change(folder, pieces):
    """Replaces each piece, which has to be there exactly once."""
    for file, before, after in pieces:
        path = os.path.join(folder, file)
        with open(path, encoding="utf-8") as source:
            text = source.read()
        if text.count(before) != 1:
            raise SystemExit(f"bugs.py: `{before}` is not exactly once in {path}")
        with open(path, "w", encoding="utf-8") as target:
            target.write(text.replace(before, after))


def mend(folder):
    """Takes the shipped mistakes out."""
    change(folder, SHIPPED)


def plant(folder, name):
    """Mends the project and plants one mistake."""
    mend(folder)
    change(folder, BUGS[name])


def main(arguments):
    """The command line."""
    if arguments == ["list"]:
        print("\n".join(BUGS))
    elif len(arguments) == 3 and arguments[0] == "plant" and arguments[1] in BUGS:
        plant(arguments[2], arguments[1])
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
