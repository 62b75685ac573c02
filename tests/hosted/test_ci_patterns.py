"""`tests/e2e/test_ci_patterns.py` on a hosted endpoint, by both ways in."""

from tests.e2e.test_ci_patterns import *  # noqa: F403
from tests.hosted.ways import BY_EACH_WAY as pytestmark  # noqa: F401
