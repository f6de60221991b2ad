"""Image pairs for the tests of TV-L1."""

import cv2
import numpy as np
import pytest
import torch

from tests.han_core.flow.tvl1.flow_pairs import textured_pair


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def pairs():
    """Three synthetic pairs (3, 60, 84) uint8 twice, of different motion."""
    made = [textured_pair(60, 84, shift, seed) for seed, shift in enumerate([(1.3, -0.7), (-2.4, 1.1), (0.2, 3.0)])]
    return np.stack([a for a, _ in made]), np.stack([b for _, b in made])
