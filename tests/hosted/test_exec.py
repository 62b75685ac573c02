"""`tests/e2e/test_exec.py` on a hosted endpoint, by both ways in."""

from tests.e2e.test_exec import *  # noqa: F403
from tests.hosted.ways import BY_EACH_WAY as pytestmark  # noqa: F401
