"""Torchrun that ends, and ends its processes, when the stage that started it is gone: ``python -m`` this file."""

import signal

from han_core.runs.parent import end_with_parent


def main() -> None:
    end_with_parent(signal.SIGTERM)
    from torch.distributed.run import main as torchrun  # takes seconds to import

    torchrun()


if __name__ == "__main__":
    main()
