"""Nets fine-tuned on a CPU: the shortened schedule, and what they got right by themselves.

200 iterations, the lower layers frozen.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from han_core.clips import read_clips
from han_core.predictions import LEFT_OUT, read_predictions

SHORT = {
    "fc_size": 256,
    "frozen": "conv4_3",
    "rates": {"conv": 0.1},
    "precision": "auto",
    "iterations": 200,
    "batch": 16,
    "micro_batch": 8,
    "learning_rate": 0.003,
    "steps": [160],
    "warmup": 10,
    "dropout": [0.5, 0.5],
}
"""fc6 to fc8 start from nothing, because the weights at hand end at conv5_3; what lies below follows them slowly. Size,
rate and number of iterations were chosen on sequences 4 to 10 of UT-Interaction alone, by fc layers trained on the
features of the un-tuned net."""
WHOLE_FRAMES = {"corner_crops": False, "scales": [1.0], "flip": True}
"""For clips that are cropped to the people already."""


def right_of_nets(data: Path, group: Callable[[str], str] = lambda clip: "") -> dict[str, Counter[str]]:
    """Row (``spatial_net``, ``temporal_net``, ``two_stream``, ``two_stream_svm``) -> clips that it classified
    correctly, over all splits, by groups of them.

    Args:
        data: ``data/<dataset>`` after stage ``two_stream``.
        group: of a clip, by its name.
    """
    classes = read_clips(data / "clips.csv").classes
    found: dict[str, Counter[str]] = {}
    for path in sorted(data.glob("predictions/two_stream-*/*.csv")):
        if path.name == LEFT_OUT:
            continue
        row = found.setdefault(path.stem, Counter())
        for key, probabilities in read_predictions(path, classes).items():
            class_name, _, clip = key.rpartition("/")
            row[group(clip)] += classes[probabilities.argmax()] == class_name
    return found
