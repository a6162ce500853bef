"""Lets the benchmarks run from a bare checkout: imported first, it makes the package findable."""

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent
ROOT = BENCHMARKS.parents[1]

# Last, so that an installed package is what gets measured where there is one.
sys.path.append(str(ROOT))
