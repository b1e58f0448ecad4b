"""A profile for mutation testing, where the same tests run some hundred times: fewer examples, the same each time."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "mutants", max_examples=50, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)
