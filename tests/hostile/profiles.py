"""Settings of the property-based tests: a few seconds each by default, as many examples as TUNEOFF_EXAMPLES in a soak."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("TUNEOFF_EXAMPLES", "40"))

# no database: every run of the tests draws the same examples, a soak others
quick = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 100,
    suppress_health_check=list(HealthCheck),
)
