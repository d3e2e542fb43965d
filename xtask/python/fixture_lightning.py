"""Lightning modules for the fixtures, named `fixture_lightning.X` where pickled."""

import tempfile

import lightning.pytorch as pl
import torch

from fixture import fill
from fixture_types import Net, TiedNet
from processes import pattern


def without_paths(value, base):
    """Replaces the run's own folder by `run` in strings and keys."""
    if isinstance(value, str):
        return value.replace(base, "run")
    if isinstance(value, dict):
        return type(value)((without_paths(k, base), without_paths(v, base)) for k, v in value.items())
    return value


class Data(pl.LightningDataModule):
    def __init__(self, batch=2, name="toy"):
        super().__init__()
        self.save_hyperparameters()
        self.seen = 4

    def samples(self):
        return torch.ones(4, 4)

    def loader(self):
        data = torch.utils.data.TensorDataset(self.samples())
        return torch.utils.data.DataLoader(data, batch_size=self.hparams.batch)

    train_dataloader = val_dataloader = loader

    def state_dict(self):
        return {"seen": self.seen}


class Varied(Data):
    """Samples that something can be learned from."""

    def samples(self):
        return (torch.arange(16) * 7 % 5).reshape(4, 4).float()


class Base(pl.LightningModule):
    """Trains a tiny net; saved numbers are a pattern, so every machine saves the same.

    Patterns are no moments to train on: what is to be resumed is saved without.
    """

    net_type = Net
    patterned = True

    def build(self):
        self.net = self.net_type()

    def loss(self, batch):
        return self.net(batch[0]).square().mean()

    def training_step(self, batch, _):
        return self.loss(batch)

    def validation_step(self, batch, _):
        self.log("val_loss", torch.tensor(1.0 / (self.current_epoch + 1)))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.001)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)]

    def on_save_checkpoint(self, checkpoint):
        if not self.patterned:
            return
        fill(checkpoint["state_dict"].values())
        for state in checkpoint.get("optimizer_states", []):
            for values in state["state"].values():
                fill(value for name, value in values.items() if name != "step")
        for name in ("callbacks", "datamodule"):
            if name in checkpoint:
                checkpoint[name] = without_paths(checkpoint[name], self.trainer.default_root_dir)


class Plain(Base):
    def __init__(self, hidden=3, rate=0.001, name="plain", layers=(1, 2), nothing=None):
        super().__init__()
        self.save_hyperparameters()
        self.build()


class WithConfig(Base):
    """Takes its hyper-parameters as one object, whatever that is."""

    def __init__(self, config):
        super().__init__()
        self.save_hyperparameters(config)
        self.build()


class WithObject(Base):
    def __init__(self, point, kind=None):
        super().__init__()
        self.save_hyperparameters()
        self.build()


class Everything(Base):
    """Takes hyper-parameters of any kind."""

    def __init__(self, **config):
        super().__init__()
        self.save_hyperparameters()
        self.build()

    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        checkpoint["extra"] = self.extra


class Momentum(Plain):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, nesterov=True)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=3)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"},
        }

    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        checkpoint["extra"] = {"seen": {1, 2}, "history": [(0, 0.5), (1, 0.25)]}


class Tied(Base):
    net_type = TiedNet

    def __init__(self):
        super().__init__()
        self.build()

    def loss(self, batch):
        return self.net(batch[0].long()).square().mean()


class Mixed(torch.nn.Module):
    """Norms with buffers, a tied head, and a layer that is to be frozen."""

    def __init__(self, width):
        super().__init__()
        self.embed = torch.nn.Embedding(6, 4)
        self.norm = torch.nn.LayerNorm(4)
        self.frozen = torch.nn.Linear(4, width)
        self.body = torch.nn.Linear(width, 4)
        self.batch_norm = torch.nn.BatchNorm1d(4)
        self.register_buffer("window", torch.ones(5))
        self.head = torch.nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        x = self.body(self.frozen(self.norm(self.embed(x).mean(1))))
        return self.head(self.batch_norm(x))


class Frozen(Base):
    """Two groups by weight decay; a frozen layer is in none. With `width` 4 it is shaped as `body` is."""

    def __init__(self, width=3):
        super().__init__()
        self.net = Mixed(width)
        self.net.frozen.requires_grad_(False)

    def loss(self, batch):
        return self.net(batch[0].long()).square().mean()

    def groups(self):
        named = [(name, p) for name, p in self.net.named_parameters() if p.requires_grad]
        decay, rest = ([pair for pair in named if (pair[1].ndim > 1) is many] for many in (True, False))
        return [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]

    def configure_optimizers(self):
        groups = [group | {"params": [p for _, p in group["params"]]} for group in self.groups()]
        return torch.optim.AdamW(groups, lr=0.001)


class Named(Frozen):
    """The optimizer knows the names of its parameters, as the net calls them."""

    def configure_optimizers(self):
        return torch.optim.AdamW(self.groups(), lr=0.001)


class Unused(Base):
    """One layer gets no gradient, so the optimizer has no state for it."""

    def __init__(self):
        super().__init__()
        self.save_hyperparameters()
        self.first, self.spare, self.last = (torch.nn.Linear(4, 4) for _ in range(3))

    def loss(self, batch):
        return self.last(self.first(batch[0])).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class TwoOptimizers(Base):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = torch.nn.Linear(4, 2)
        self.critic = torch.nn.Linear(2, 1)

    def training_step(self, batch, _):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward(self.critic(self.generator(batch[0])).mean())
            optimizer.step()

    def configure_optimizers(self):
        first = torch.optim.Adam(self.generator.parameters(), lr=0.01, amsgrad=True)
        second = torch.optim.RMSprop(self.critic.parameters(), lr=0.02)
        return [first, second], []


def train(module, path, epochs=2, weights_only=False, data=None, **options):
    with tempfile.TemporaryDirectory() as base:
        callbacks = options.pop("callbacks", lambda _: [])(base)
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=base,
            callbacks=callbacks,
            enable_checkpointing=any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
            **options,
        )
        trainer.fit(module, datamodule=data or Data())
        trainer.save_checkpoint(path, weights_only=weights_only)
        names = {id(p): name for name, p in module.named_parameters()}
        return [[names[id(p)] for group in o.param_groups for p in group["params"]] for o in trainer.optimizers]


class Parallel(Base):
    def __init__(self, rate=0.01):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Linear(4, 3)

    def configure_model(self):
        from torch.distributed.fsdp import fully_shard

        fully_shard(self.net, mesh=self.device_mesh["data_parallel"])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.rate)

    @torch.no_grad()
    def on_train_end(self):
        for start, (parameter, state) in enumerate(self.optimizers().state.items()):
            pattern(parameter, start)
            pattern(state["exp_avg"], start + 10)
            pattern(state["exp_avg_sq"], start + 20)

    def on_save_checkpoint(self, checkpoint):
        pass


def parallel_train(name):
    from lightning.pytorch.strategies import ModelParallelStrategy

    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        max_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    trainer.fit(Parallel(), datamodule=Data())
    trainer.save_checkpoint(name)


def fabric_save(name):
    """What a user of Fabric saves: a module, an optimizer, and whatever else they like."""
    from lightning.fabric import Fabric
    from lightning.fabric.strategies import ModelParallelStrategy
    from torch.distributed.fsdp import fully_shard

    def parallelize(net, mesh):
        fully_shard(net.first, mesh=mesh["data_parallel"])
        return fully_shard(net, mesh=mesh["data_parallel"])

    strategy = ModelParallelStrategy(parallelize, data_parallel_size=2, tensor_parallel_size=1)
    fabric = Fabric(accelerator="cpu", devices=2, strategy=strategy)
    fabric.launch()
    net = fabric.setup(Net())
    optimizer = fabric.setup_optimizers(torch.optim.AdamW(net.parameters(), lr=0.01))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    with torch.no_grad():
        for start, parameter in enumerate(net.parameters()):
            pattern(parameter, start)
            state = optimizer.state[parameter]
            pattern(state["exp_avg"], start + 10)
            pattern(state["exp_avg_sq"], start + 20)
    extra = {"step": 7, "options": {"lr": 0.01, "names": ["a"]}, "seen": torch.arange(3.0)}
    fabric.save(name, {"net": net, "optim": optimizer, **extra})
