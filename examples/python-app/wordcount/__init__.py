"""Counts words."""

from collections import Counter
from typing import Iterable


def count(lines: Iterable[str]) -> Counter:
    """Returns how often each word is in the lines, whatever its case."""
    return Counter(word.lower() for line in lines for word in line.split())
