"""What Lightning does on several ranks: `ModelParallelStrategy`, whose modules are FSDP2's.

Each function runs processes of its own. Losses are those of the next steps after resuming.
"""

import json
import logging
import warnings

from processes import run_ranks


def modules():
    """Adam and SGD, groups around a frozen layer, names that are recorded or given, ties, two optimizers."""
    import fixture_lightning as fixtures

    class Two(fixtures.TwoOptimizers):
        """Tells the loss after its steps."""

        def training_step(self, batch, index):
            super().training_step(batch, index)
            return {"loss": self.critic(self.generator(batch[0])).mean().detach()}

    return {
        "adam": fixtures.Plain,
        "groups": fixtures.Frozen,
        "names": lambda **parts: of(fixtures.Named, **parts)(width=4),
        "sgd": fixtures.Momentum,
        "tied": fixtures.Tied,
        "twin": lambda **parts: of(fixtures.Frozen, **parts)(width=4),
        "two": Two,
    }


def of(module, **parts):
    return type(module.__name__, (module,), parts) if parts else module


def make(name, **parts):
    """A new module, with these methods in place of its own."""
    module = modules()[name]
    return of(module, **parts)() if isinstance(module, type) else module(**parts)


def configure_model(self):
    from torch.distributed.fsdp import fully_shard

    for child in self.children():
        if any(True for _ in child.parameters()):
            fully_shard(child, mesh=self.device_mesh["data_parallel"])


def fit(rank, name, checkpoint, epochs, save, to):
    """Trains up to `epochs`, from a checkpoint where there is one; saves one, and the losses."""
    import lightning.pytorch as pl
    import torch.distributed as dist
    from lightning.pytorch.strategies import ModelParallelStrategy

    from fixture_lightning import Varied

    warnings.filterwarnings("ignore")
    for logger in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    losses, states = [], []

    class Losses(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            states.extend(len(optimizer.state) for optimizer in trainer.optimizers)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            losses.append(outputs["loss"].item())

    ranks = dist.get_world_size()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=ModelParallelStrategy(data_parallel_size=ranks, tensor_parallel_size=1),
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,  # every rank sees all, as one process does
        callbacks=[Losses()],
    )
    module = make(name, configure_model=configure_model)
    module.patterned = False
    trainer.fit(module, datamodule=Varied(), ckpt_path=checkpoint, weights_only=False)
    if not losses or any(loss != loss for loss in losses) or len(set(losses)) < 2:
        raise AssertionError(f"{checkpoint}: no training to compare: {losses}")
    if checkpoint is not None and not all(states):
        raise AssertionError(f"{checkpoint}: an optimizer starts without its states: {states}")
    if save is not None:
        trainer.save_checkpoint(save)
    if rank == 0:
        to.write_text(json.dumps(losses))


def resumed(ranks, name, checkpoint, epochs, folder):
    """The losses up to `epochs`, after resuming."""
    to = folder / "losses.json"
    to.unlink(missing_ok=True)
    run_ranks(ranks, fit, name, str(checkpoint), epochs, None, to)
    return json.loads(to.read_text())


def saved(ranks, name, checkpoint, epochs):
    """Trains, and has Lightning save a sharded checkpoint."""
    run_ranks(ranks, fit, name, None, epochs, str(checkpoint), checkpoint.parent / "losses.json")
    return checkpoint
