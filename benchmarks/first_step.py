"""A callback that both ways to start have, and that imports nothing which either would not."""

import os

from lightning.pytorch import Callback
from typing_extensions import override


class EndAtFirstStep(Callback):
    """Ends the process when the first training step is done."""

    @override
    def on_train_batch_end(self, *_: object) -> None:
        os._exit(0)
