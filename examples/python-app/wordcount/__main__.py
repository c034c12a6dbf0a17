"""Shows the words of standard input, the most frequent first."""

import sys

from . import count

for word, times in count(sys.stdin).most_common():
    print(times, word)
