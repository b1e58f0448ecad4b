"""Profiles of hypothesis: for mutation testing and for long runs."""

from hypothesis import HealthCheck, settings

# The same tests run some hundred times: fewer examples, the same each time.
settings.register_profile(
    "mutants", max_examples=50, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)

# The models of the exchange and of the session look for what the few histories of each test run do not show.
settings.register_profile(
    "nightly", max_examples=5000, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
