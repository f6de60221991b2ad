"""Errors that are reported to a person in plain words instead of a traceback."""

REPAIR = "`han cache verify --remove`, then `dvc repro`"
"""What to run where a file is damaged: ``dvc repro`` alone takes one whose bits flipped on the disk for unchanged."""


class HanError(Exception):
    """Base of all errors whose message is meant for a person: what is wrong, where, and what to do."""


class ClipError(HanError):
    """One clip cannot be processed; the message is the reason, as it appears in the failure ledger.

    The message must be the same on every run and every machine: no temporary names, process ids or addresses.
    """
