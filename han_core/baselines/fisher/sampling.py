"""Which descriptors of which training clips a codebook is fitted to.

A clip's share is in proportion to how many descriptors it has, and which of them are taken is drawn from its name and
the seed: neither the order of the clips nor how they are spread over processes matters.
"""

from collections.abc import Callable, Mapping

import numpy as np


def shares(counts: Mapping[str, int], samples: int) -> dict[str, int]:
    """How many descriptors each clip gives: ``samples`` in all, or all there are.

    What proportion leaves over goes to the largest remainders, of equal ones to the name that comes first.

    Args:
        counts: descriptors of each clip, by its name.

    Returns:
        In the order of the names.
    """
    total = sum(counts.values())
    if total <= samples:
        return {name: counts[name] for name in sorted(counts)}
    parts = {name: divmod(counts[name] * samples, total) for name in sorted(counts)}
    left = samples - sum(whole for whole, _ in parts.values())
    first = set(sorted(parts, key=lambda name: -parts[name][1])[:left])  # stable: equal ones stay in order
    return {name: whole + (name in first) for name, (whole, _) in parts.items()}


def drawn(name: str, count: int, take: int, seed: int) -> np.ndarray:
    """Which ``take`` of a clip's ``count`` descriptors are taken: (take,) int64, ascending.

    Raises:
        ValueError: more are wanted than there are.
    """
    if take > count:
        raise ValueError(f"{name}: {take} of {count} descriptors cannot be drawn")
    if take == count:
        return np.arange(count)
    random = np.random.default_rng([seed, *name.encode()])
    return np.sort(random.choice(count, take, replace=False, shuffle=False))


def collect(
    counts: Mapping[str, int],
    samples: int,
    read: Callable[[str, np.ndarray], Mapping[str, np.ndarray]],
    *,
    seed: int,
) -> dict[str, np.ndarray]:
    """The sample of each channel that a codebook is fitted to, from these clips and no others.

    Args:
        counts: descriptors of each training clip, by its name.
        read: (clip, indices) -> {channel: (len(indices), D)} those descriptors of a clip, in the same channels always.
            Clips that give none are not read.

    Returns:
        {channel: (n, D)}, clips in the order of their names; empty where no clip has a descriptor.
    """
    parts: dict[str, list[np.ndarray]] = {}
    for name, take in shares(counts, samples).items():
        if take:
            for channel, values in read(name, drawn(name, counts[name], take, seed)).items():
                parts.setdefault(channel, []).append(values)
    return {channel: np.concatenate(values) for channel, values in parts.items()}
