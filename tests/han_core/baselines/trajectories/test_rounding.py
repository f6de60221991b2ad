"""What storing histograms as bytes does to a clip's Fisher vector: next to nothing."""

import cv2
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

from han_core.baselines.trajectories import extract as module
from han_core.baselines.trajectories.extract import extract
from han_core.baselines.trajectories.params import TrajectoryParams
from han_core.baselines.trajectories.trajectories import HISTOGRAMS
from tests.han_core.baselines.trajectories.scenes import wobbling

GAUSSIANS = 4


def fisher_vector(mixture: GaussianMixture, values: np.ndarray) -> np.ndarray:
    """Derivatives by means and variances in float64, signed roots, length 1."""
    q = mixture.predict_proba(values)
    away = (values[:, None] - mixture.means_) / np.sqrt(mixture.covariances_)
    u = (q[..., None] * away).mean(0) / np.sqrt(mixture.weights_)[:, None]
    v = (q[..., None] * (away**2 - 1)).mean(0) / np.sqrt(2 * mixture.weights_)[:, None]
    vector = np.concatenate([u, v]).ravel()
    vector = np.sign(vector) * np.sqrt(np.abs(vector))
    return vector / np.linalg.norm(vector)


def exactly(described):
    parts = np.split(described * np.float32(255), [32, 68, 100], axis=2)
    return [part.reshape(len(part), 3 * part.shape[2]) for part in parts]


def clip(seed: int) -> tuple[list, list]:
    """Lines and boxes of all directions and contrasts, under a camera that pans."""
    random = np.random.default_rng(seed)
    picture = np.full((160, 240), 128, np.uint8)
    for _ in range(120):
        one, other = random.integers(0, [240, 160], (2, 2)).tolist()
        draw = cv2.line if random.random() < 0.5 else cv2.rectangle
        draw(picture, one, other, int(random.integers(0, 256)), int(random.integers(1, 4)))
    fields = [field * np.float32(1 + seed / 2) for field in wobbling(24, 160, 190, seed=seed)[1]]
    return [picture[:, 2 * t : 2 * t + 190].copy() for t in range(24)], fields


@pytest.fixture(scope="module")
def found():
    """One clip as it is stored and exactly, and another one as it is stored."""
    params = TrajectoryParams(most=0)
    stored, another = extract(*clip(0), params), extract(*clip(1), params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "quantized", exactly)
        return stored, extract(*clip(0), params), another


@pytest.mark.parametrize("channel", HISTOGRAMS)
def test_fisher_vectors_hardly_change(found, channel):
    stored, exact, another = (trajectories.channel(channel).astype(np.float64) for trajectories in found)
    assert len(stored) == len(exact) > 400
    assert 0 < np.abs(stored - exact).max() < 0.02
    # The codebook is of both clips, and of half of the principal directions: the others hold little but rounding.
    sample = np.concatenate([stored, another])
    half = PCA(sample.shape[1] // 2, svd_solver="full").fit(sample)
    mixture = GaussianMixture(GAUSSIANS, covariance_type="diag", random_state=0).fit(half.transform(sample))
    one, same, other = (fisher_vector(mixture, half.transform(values)) for values in (stored, exact, another))
    assert one @ same > 0.99
    assert one @ other < 0.9  # so the measure does tell things apart
