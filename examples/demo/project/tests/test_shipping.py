import unittest

from pricing.shipping import shipping


class Shipping(unittest.TestCase):
    def test_the_first_kilogram_is_in_the_base_price(self):
        self.assertEqual(shipping(500, 200), 490)
        self.assertEqual(shipping(500, 1000), 490)

    def test_a_letter_costs_the_base_price(self):
        self.assertEqual(shipping(500, 0), 490)

    def test_every_started_kilogram_costs(self):
        self.assertEqual(shipping(500, 1001), 610)
        self.assertEqual(shipping(500, 3500), 850)

    def test_a_large_order_is_free(self):
        self.assertEqual(shipping(10000, 3500), 0)
        self.assertEqual(shipping(25000, 100), 0)

    def test_an_order_just_below_the_limit_is_not_free(self):
        self.assertEqual(shipping(9999, 100), 490)


if __name__ == "__main__":
    unittest.main()
