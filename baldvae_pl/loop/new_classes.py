"""Classes that are made while people label: the network gets an output for each."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_info

from baldvae_pl.data.batches import to_floats
from baldvae_pl.errors import SettingError
from baldvae_pl.loop import trial
from baldvae_pl.loop.processes import pool_data
from baldvae_pl.posterior import eval_mode
from baldvae_pl.seeding import Purpose, derive_seed


def learn_new_classes(trainer: Trainer, pl_module: LightningModule) -> None:
    """Make a network for all classes that there are now, if some are new; it keeps what fits.

    Raises:
        SettingError: If the module cannot.
    """
    data = pool_data(trainer)
    module: Any = pl_module
    if data.classes == data.all_classes:
        return
    new = [name for name in data.all_classes if name not in data.classes]
    rank_zero_info(f"New classes: {', '.join(new)}")
    data.classes = data.all_classes
    if not hasattr(module, "adapt"):
        raise SettingError(
            f"{type(module).__name__} lacks adapt, by which it would learn of new classes. "
            "Declare all by --data.source.classes."
        )
    before = module.network.state_dict()
    torch.manual_seed(derive_seed(data.seed, trainer.current_epoch, Purpose.WEIGHTS))
    module.adapt(data.pool.image_shape, len(data.classes))
    after = module.network.state_dict()
    kept = {k: w for k, w in before.items() if w.shape == after[k].shape}
    module.network.load_state_dict(after | kept)  # for a warm start
    module.to(trainer.strategy.root_device)
    with eval_mode(module.network), torch.no_grad():
        outputs = module.network(to_floats(data.train.images[:1]).to(module.device))
    trial.check_outputs(module.network, outputs.shape[-1], data)
    if isinstance(trainer.strategy, DDPStrategy):  # which has wrapped the weights of before
        trainer.strategy.model = module
        trainer.strategy.configure_ddp()
    trainer.strategy.setup_optimizers(trainer)
