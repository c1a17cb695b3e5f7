"""`make_shards`: from a source of images to shards with a manifest."""

from __future__ import annotations

import os
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import batched if sys.version_info >= (3, 12) else islice
