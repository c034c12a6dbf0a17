"""Tests of the counting."""

import unittest

from wordcount import count


class Count(unittest.TestCase):
    def test_words_count_whatever_their_case(self):
        self.assertEqual(count(["a B", "b"]), {"a": 1, "b": 2})

    def test_nothing_has_no_words(self):
        self.assertEqual(count([]), {})


if __name__ == "__main__":
    unittest.main()
