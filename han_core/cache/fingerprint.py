"""The identity of a file before it is made: ``<what it is made from>-<code that makes it>``.

The first part, 64 hexadecimal digits, also stands in the file. The second does not: code that gives the same bytes
gives the same file, and whoever has shown that it does (``han cache adopt``) may give the old file the new name.
"""

import hashlib
import json
from collections.abc import Mapping


def fingerprint(stage: str, code: str, parameters: Mapping, inputs: Mapping[str, str]) -> str:
    """Identity of what a stage makes, before it is made.

    Args:
        stage: its name.
        code: digest of the code that makes it (:func:`han_core.cache.code.code_digest`); hexadecimal.
        parameters: those that matter to the result and no others; anything JSON can hold.
        inputs: name of each input -> hash of its content.

    Returns:
        64 hexadecimal digits, SHA-256 of the canonical JSON (sorted keys; 20 and 20.0 count as equal) of all but the
        code, a hyphen, and the code.
    """
    identity = {"stage": stage, "parameters": dict(parameters), "inputs": dict(inputs)}
    text = json.dumps(_canonical(identity), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{hashlib.sha256(text.encode('utf-8')).hexdigest()}-{code}"


def without_code(fingerprint: str) -> str:
    """What a file is made from: the part that stands in the file, too."""
    return fingerprint.partition("-")[0]


def code_of(fingerprint: str) -> str:
    """The code that makes it; "" where none is named."""
    return fingerprint.partition("-")[2]


def _canonical(value: object) -> object:
    """JSON values in one spelling: mappings with text keys, lists, and whole floats as integers."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
