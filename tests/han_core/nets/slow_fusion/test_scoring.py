"""The scores of a clip are means over windows and their mirror images, whatever is computed at once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from han_core.nets.slow_fusion.inputs import ClipWindows
from han_core.nets.slow_fusion.scoring import WindowScorer
from tests.small_slow_fusion import SmallSlowFusion


def windows(count=5, seed=0):
    """Five windows asked for, of which the last two are the same."""
    starts = np.array([0, 2, 4, 6, 6], np.int32)[:count]
    distinct, order = np.unique(starts, return_inverse=True)
    random = np.random.default_rng(seed)
    frames = torch.from_numpy(random.normal(0, 60, (16, 3, 170, 170)).astype(np.float32))
    return ClipWindows(starts, order, distinct[:, None] + np.arange(10), frames)


@torch.no_grad()
def expected(net, clip, flip):
    """One window after the other, by hand."""
    rows = []
    for start in clip.starts:
        window = clip.frames[start : start + 10].transpose(0, 1)[None]
        views = [window, torch.flip(window, [4])] if flip else [window]
        rows.append(np.mean([net(view).softmax(1)[0].numpy() for view in views], axis=0))
    return np.array(rows)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("batch", [1, 3, 10])
def test_probabilities_are_means_over_the_window_and_its_mirror_image(flip, batch):
    net, clip = SmallSlowFusion().eval(), windows()
    with WindowScorer(SmallSlowFusion(), flip=flip, batch=batch) as scorer:
        found = scorer.probabilities(clip)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(net, clip, flip), rtol=1e-5, atol=1e-7)
    assert np.array_equal(found[3], found[4])
    assert abs(found[0] - found[1]).max() > 1e-4
    other = expected(net, clip, not flip)
    assert abs(other - found).max() > 1e-4  # the mirror image counts


@pytest.mark.parametrize("beside", [False, True], ids=["as on a CPU", "by way of pinned memory"])
def test_any_number_of_threads_may_ask(beside):
    clips = [windows(seed=seed) for seed in range(4)]
    with WindowScorer(SmallSlowFusion(), flip=True) as scorer, ThreadPoolExecutor(4) as pool:
        alone = [scorer.probabilities(clip) for clip in clips]
        scorer._beside = beside
        together = list(pool.map(scorer.probabilities, clips * 3))
    assert all(np.array_equal(one, other) for one, other in zip(alone * 3, together, strict=True))


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives_and_the_same_bytes_again(gpu):
    """Within 1e-4: the order of sums."""
    found = []
    for device in ("cpu", gpu, gpu):
        with WindowScorer(SmallSlowFusion(), flip=True, batch=3, device=device) as scorer:
            found.append(scorer.probabilities(windows()))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-3, atol=1e-4)
    assert np.array_equal(found[1], found[2])


def test_dropout_is_off_and_bfloat16_gives_nearly_the_same():
    with WindowScorer(SmallSlowFusion(dropout=(0.9, 0.9)).train(), flip=False) as scorer:
        exact = scorer.probabilities(windows())
    with WindowScorer(SmallSlowFusion(), flip=False, precision="bfloat16") as scorer:
        rounded = scorer.probabilities(windows())
    np.testing.assert_allclose(rounded, exact, atol=0.02)
    assert not np.array_equal(rounded, exact)
