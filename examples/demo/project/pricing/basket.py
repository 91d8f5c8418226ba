"""A basket, and what it costs in the end."""

from dataclasses import dataclass

from pricing.discount import bulk_percent, loyalty_percent, reduce
from pricing.shipping import shipping

TAX_PERCENT = 20


@dataclass(frozen=True)
class Line:
    """Some pieces of one article."""

    article: str
    quantity: int
    price: int
    grams: int = 0


def subtotal(lines):
    """The lines' prices after the discount for buying much."""
    total = 0
    for line in lines:
        total += reduce(line.price * line.quantity, bulk_percent(line.quantity))
    return total


def tax(amount):
    """The tax on an amount in cents, rounded to the nearest cent."""
    return (amount * TAX_PERCENT + 50) // 100


def total(lines, years=0):
    """Everything: lines, loyalty, shipping and tax."""
    goods = subtotal(lines)
    reduced = reduce(goods, loyalty_percent(years))
    grams = sum(line.grams * line.quantity for line in lines)
    net = reduced + shipping(reduced, grams)
    return net + tax(goods)


def cheapest(lines):
    """The line with the lowest price for a piece, or None for an empty basket."""
    if not lines:
        return None
    return min(lines, key=lambda line: line.price)
