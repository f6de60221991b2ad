"""In place of CUDA graphs, without a GPU (:class:`han_core.han.captured.CudaGraphs`)."""


class Graphs:
    """Notes what is asked of it. Capturing does nothing, as on a GPU; replaying does the work again, with whatever
    then stands in the tensors that it was captured with."""

    def __init__(self, able=True):
        self.able, self.seen = able, []

    def prepare(self, work):
        self.seen.append("prepare")
        work()

    def captured(self, work):
        self.seen.append("capture")
        if not self.able:
            raise RuntimeError("operation not permitted when stream is capturing")

        def replay():
            self.seen.append("replay")
            work()

        return replay
