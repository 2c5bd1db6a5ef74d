"""The article's programs say the same in Python and in C++."""

import unittest

from examples.article import compare


class ArticleTest(unittest.TestCase):

    def test_both_say_the_same(self):
        self.assertEqual(compare.main(), 0)


if __name__ == "__main__":
    unittest.main()
