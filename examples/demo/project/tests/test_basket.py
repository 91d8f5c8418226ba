import unittest

from pricing.basket import Line, cheapest, subtotal, tax, total

PEN = Line("pen", 20, 150, 10)
LAMP = Line("lamp", 1, 4900, 1800)
DESK = Line("desk", 1, 24900, 21000)


class Subtotal(unittest.TestCase):
    def test_an_empty_basket_costs_nothing(self):
        self.assertEqual(subtotal([]), 0)

    def test_many_pieces_are_cheaper(self):
        self.assertEqual(subtotal([PEN]), 2850)

    def test_lines_add_up(self):
        self.assertEqual(subtotal([PEN, LAMP]), 7750)


class Tax(unittest.TestCase):
    def test_a_fifth(self):
        self.assertEqual(tax(10000), 2000)

    def test_rounds_to_the_nearest_cent(self):
        self.assertEqual(tax(12), 2)
        self.assertEqual(tax(13), 3)


class Total(unittest.TestCase):
    def test_a_new_customer_pays_shipping_and_tax(self):
        self.assertEqual(total([LAMP]), 4900 + 610 + 980)

    def test_tax_is_taken_on_what_is_paid_for_the_goods(self):
        self.assertEqual(total([DESK], years=3), 24153 + 4831)

    def test_loyalty_can_bring_an_order_below_free_shipping(self):
        self.assertEqual(total([Line("chair", 1, 10200, 900)], years=5), 9690 + 490 + 1938)


class Cheapest(unittest.TestCase):
    def test_an_empty_basket_has_none(self):
        self.assertIsNone(cheapest([]))

    def test_the_price_of_a_piece_counts(self):
        self.assertEqual(cheapest([LAMP, PEN, DESK]), PEN)
        self.assertEqual(cheapest([LAMP, Line("stone", 1, 40, 50000)]).article, "stone")


if __name__ == "__main__":
    unittest.main()
