"""Profiles of hypothesis: for mutation testing and for long runs."""

from hypothesis import HealthCheck, settings

# Mutation testing runs each test hundreds of times: fewer examples, and the same ones each time.
settings.register_profile(
    "mutants", max_examples=50, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)

# Long runs of the models find faults that the few sequences of a normal test run do not show.
settings.register_profile(
    "nightly", max_examples=5000, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
