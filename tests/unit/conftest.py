"""Settings for all unit tests."""

from hypothesis import settings

settings.register_profile("pcocc", deadline=None)  # a busy machine is no fault of what is tested
settings.load_profile("pcocc")
