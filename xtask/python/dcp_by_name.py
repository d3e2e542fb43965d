"""An optimizer that goes on from states by name, as it does in the process that saved it by number."""

import json

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_state_dict,
)

from dcp_loads import check, each, plain, poison

STEPS = 3


def optimizers(module):
    """AdamW with decay for matrices only, and SGD over everything."""
    parameters = list(module.parameters())
    many, few = ([p for p in parameters if (p.dim() > 1) is which] for which in (True, False))
    groups = [{"params": many, "weight_decay": 0.1}, {"params": few, "weight_decay": 0.0}]
    return {
        "adamw": lambda: torch.optim.AdamW(groups, lr=0.02, amsgrad=True),
        "sgd": lambda: torch.optim.SGD(parameters, lr=0.02, momentum=0.9),
    }


def steps(module, optimizer):
    """The losses of a few steps, on data that is the same everywhere."""
    x = (torch.arange(12) * 7 % 11).reshape(4, 3)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = (module(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def save(rank, make, folder):
    """Trains; saves as scripts do; writes what torch itself would name, and the losses of what comes next."""
    for name in optimizers(make()):
        torch.manual_seed(5)
        module = make()
        optimizer = optimizers(module)[name]()
        steps(module, optimizer)
        saved = {"epoch": 1, "model": module.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(saved, f"{folder}/{name}.pt")
        torch.save(get_optimizer_state_dict(module, optimizer), f"{folder}/{name}.named")
        with open(f"{folder}/{name}.losses", "w") as file:
            json.dump(steps(module, optimizer), file)


def go_on(rank, shape, make, shard, folder, directories):
    """`dcp.load` into a new module and its optimizer, plain or under FSDP2, and the next steps."""
    from torch.distributed.device_mesh import init_device_mesh

    for directory in directories:
        name = directory.name.split(".")[0]
        torch.manual_seed(6)  # other weights than those that are loaded
        module = make()
        if shard:
            module = shard(module, init_device_mesh("cpu", shape))
        optimizer = optimizers(module)[name]()
        model, optim = get_state_dict(module, optimizer)
        state = {"model": each(model, poison), "optimizer": each(optim, poison)}
        dcp.load(state, checkpoint_id=directory)
        set_state_dict(module, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"],
                       options=StateDictOptions(strict=True))  # fmt: skip
        if not shard:
            expected = torch.load(f"{folder}/{name}.named", weights_only=False)
            check(plain(directory)["optimizer"], expected, f"{directory.name}: ")
            check(get_optimizer_state_dict(module, optimizer), expected, f"{directory.name}, loaded: ")
        with open(f"{folder}/{name}.losses") as file:
            check(steps(module, optimizer), json.load(file), f"{directory.name} on rank {rank} of {shape}")


def go_on_from_file(make, folder, name, path):
    """`load_state_dict` of a new module and its optimizer, and the next steps."""
    saved = torch.load(path, weights_only=True)
    torch.manual_seed(6)
    module = make()
    module.load_state_dict(saved["model"])
    optimizer = optimizers(module)[name]()
    optimizer.load_state_dict(saved["optimizer"])
    with open(f"{folder}/{name}.losses") as file:
        check(steps(module, optimizer), json.load(file), f"{path}: ")
