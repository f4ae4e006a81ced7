"""How long hypothesis looks: long enough to find something, short enough to run before every commit."""

from hypothesis import HealthCheck, settings

settings.register_profile("short", max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("short")
