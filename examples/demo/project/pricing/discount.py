"""Discounts for buying much, and for coming back."""

BULK_QUANTITY = 10
BULK_PERCENT = 5
PALLET_QUANTITY = 100
PALLET_PERCENT = 12


def bulk_percent(quantity):
    """Percent off for this many pieces of one article."""
    if quantity >= PALLET_QUANTITY:
        return PALLET_PERCENT
    if quantity > BULK_QUANTITY:
        return BULK_PERCENT
    return 0


def loyalty_percent(years):
    """Percent off for a customer of this many years: one a year, five at most."""
    if years < 1:
        return 0
    return min(years, 5)


def reduce(amount, percent):
    """The amount in cents with that many percent taken off, rounded down to the cent."""
    return amount * (100 - percent) // 100
