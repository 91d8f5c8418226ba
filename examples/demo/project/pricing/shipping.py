"""What it costs to send a basket."""

BASE = 490
PER_KILOGRAM = 120
FREE_FROM = 10000


def shipping(subtotal, grams):
    """Cents for the parcel: free from 100.00 on, else a base price and each started kilogram after the first."""
    if subtotal >= FREE_FROM:
        return 0
    kilograms = -(-grams // 1000)
    return BASE + PER_KILOGRAM * max(kilograms - 1, 0)
