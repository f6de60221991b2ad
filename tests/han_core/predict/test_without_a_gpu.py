"""Labelling a video on fake CUDA tensors: the model and what it is given are on the GPU, whatever it computes with."""

from pathlib import Path

import numpy as np
import pytest
import torch

from han_core.cubes import sparse_cuda
from han_core.han import step_kernels
from han_core.han.config import HANConfig
from han_core.han.model import HAN
from han_core.han.model_file import TrainedHAN
from han_core.predict.models import Recogniser
from han_core.predict.windows import _look
from tests.fake_cuda import fake_cuda
from tests.stubbed_kernels import stubbed

STREAMS = ("spatial", "temporal")


@pytest.mark.parametrize("attention", ["location", "content", "uniform"])
def test_a_window_is_looked_at_on_the_gpu(attention):
    model = HAN(
        HANConfig(STREAMS, 3, 8, 1 if attention == "uniform" else 196, attention=attention, lstm_size=16)
    ).eval()
    cubes = {stream: np.zeros((6, 8, 14, 14), np.float16) for stream in STREAMS}
    with stubbed(sparse_cuda, step_kernels), fake_cuda():
        trained = TrainedHAN(model.to("cuda"), "han", ("a", "b", "c"), "cubes", None)
        recogniser = Recogniser(Path("none"), trained, {}, torch.device("cuda"))
        with pytest.raises(RuntimeError, match=r"numpy\(\) is not supported for tensor subclasses"):
            _look(recogniser, np.arange(6), cubes)  # all was computed: fake tensors have no values
