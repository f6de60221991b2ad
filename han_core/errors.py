"""Errors that are reported to a person in plain words instead of a traceback."""


class HanError(Exception):
    """Base of all errors whose message is meant for a person: what is wrong, where, and what to do."""


class ClipError(HanError):
    """One clip cannot be processed; the message is the reason, as it appears in the failure ledger.

    The message must be the same on every run and every machine: no temporary names, process ids or addresses.
    """
