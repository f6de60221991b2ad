"""Whether Triton's kernels can be used: there must be a GPU, Triton, and what Triton needs to compile."""

import logging
from functools import cache

import torch

log = logging.getLogger(__name__)


def by_kernels(device: torch.device) -> bool:
    """Whether tensors on this device are worked on by Triton's kernels."""
    return device.type == "cuda" and triton_works()


@cache
def triton_works() -> bool:
    """Whether Triton can compile a kernel and start it on the GPU of this process. Besides itself it needs a C compiler
    and Python's headers for that. Where it cannot, the reason is logged once."""
    try:
        from han_core.cubes.sparse_cuda import try_out

        try_out()
    except Exception as error:  # whatever it is: a library that is missing, a compiler that fails, a card too old
        log.warning(
            "Triton cannot start a kernel here (%s: %s), so training on the GPU goes the slower way of torch's own "
            "operations. Triton needs a C compiler (gcc) and Python's headers (python3-dev).",
            type(error).__name__,
            str(error).strip().splitlines()[-1] if str(error).strip() else "no reason given",
        )
        return False
    return True
