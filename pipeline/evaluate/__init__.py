"""Stage ``evaluate``."""
