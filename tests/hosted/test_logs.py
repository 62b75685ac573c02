"""`tests/e2e/test_logs.py` on a hosted endpoint, by both ways in."""

from tests.e2e.test_logs import *  # noqa: F403
from tests.hosted.ways import BY_EACH_WAY as pytestmark  # noqa: F401
