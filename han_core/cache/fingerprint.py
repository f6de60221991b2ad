"""The identity of a file before it is made."""

import hashlib
import json
from collections.abc import Mapping


def fingerprint(stage: str, version: int, parameters: Mapping, inputs: Mapping[str, str]) -> str:
    """Identity of what a stage makes, before it is made.

    Args:
        stage: its name.
        version: raised by hand whenever the bytes that the stage writes change for equal inputs.
        parameters: those that matter to the result and no others; anything JSON can hold.
        inputs: name of each input -> hash of its content (or its own fingerprint).

    Returns:
        64 hexadecimal digits: SHA-256 of the canonical JSON (sorted keys; 20 and 20.0 count as equal).
    """
    identity = {"stage": stage, "version": version, "parameters": dict(parameters), "inputs": dict(inputs)}
    text = json.dumps(_canonical(identity), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _canonical(value: object) -> object:
    """JSON values in one spelling: mappings with text keys, lists, and whole floats as integers."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
