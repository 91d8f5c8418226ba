import unittest

from pricing.discount import bulk_percent, loyalty_percent, reduce


class BulkPercent(unittest.TestCase):
    def test_few_pieces_cost_the_full_price(self):
        self.assertEqual(bulk_percent(1), 0)
        self.assertEqual(bulk_percent(9), 0)

    def test_ten_pieces_are_five_percent_off(self):
        self.assertEqual(bulk_percent(10), 5)
        self.assertEqual(bulk_percent(99), 5)

    def test_a_pallet_is_twelve_percent_off(self):
        self.assertEqual(bulk_percent(100), 12)
        self.assertEqual(bulk_percent(5000), 12)


class LoyaltyPercent(unittest.TestCase):
    def test_a_new_customer_gets_nothing(self):
        self.assertEqual(loyalty_percent(0), 0)

    def test_each_year_counts_one(self):
        self.assertEqual(loyalty_percent(1), 1)
        self.assertEqual(loyalty_percent(4), 4)

    def test_five_percent_is_the_most(self):
        self.assertEqual(loyalty_percent(5), 5)
        self.assertEqual(loyalty_percent(20), 5)


class Reduce(unittest.TestCase):
    def test_nothing_off(self):
        self.assertEqual(reduce(1999, 0), 1999)

    def test_a_fraction_of_a_cent_is_dropped(self):
        self.assertEqual(reduce(999, 5), 949)
        self.assertEqual(reduce(10000, 12), 8800)


if __name__ == "__main__":
    unittest.main()
