"""`tests/e2e/test_volumes.py` on a hosted endpoint, by both ways in."""

from tests.e2e.test_volumes import *  # noqa: F403
from tests.hosted.ways import BY_EACH_WAY as pytestmark  # noqa: F401
