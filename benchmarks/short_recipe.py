"""The shortened schedule by which benchmarks fine-tune nets on a CPU: 200 iterations, the lower layers frozen."""

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
