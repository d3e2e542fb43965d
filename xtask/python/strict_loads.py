"""A module loads what went through every form with `load_state_dict(strict=True)`, in any torch."""

import torch
from torch import nn

import interop

# Each a way of names and flags, from the file that this torch saved to one that it loads.
ROUTES = {
    "whole": [("whole.pt", "--all")],
    "weights": [("weights.pt",)],
    "lightning": [("weights.ckpt",)],
    "safetensors": [("one.safetensors",), ("from_one.pt",)],
    "shards": [("shards", "--max-shard-size", "300"), ("from_shards.pt",)],
    "copies": [("copies.safetensors", "--aliases", "copy"), ("from_copies.pt",)],
    "no pickle": [("kept", "--all"), ("from_kept.pt", "--all")],
    "ranks": [("ranks", "--to", "distcp", "--ranks", "3"), ("from_ranks.pt",)],
    "mesh": [("mesh", "--to", "distcp", "--mesh", "2x2", "--all"), ("from_mesh.pt", "--all")],
    "lightning and back": [("again.ckpt",), ("from_again.pt",)],
}


class Net(nn.Module):
    """Tied weights, a norm whose state dict has a version, buffers of which one is not saved."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 6)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.LayerNorm(6))
        self.head = nn.Linear(6, 12, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.rand(6))
        self.register_buffer("scratch", torch.rand(6), persistent=False)

    def forward(self, tokens):
        return self.head(self.body(self.embed(tokens)) * self.scale)


def judge(library):
    torch.manual_seed(0)
    trained = Net()
    tokens = torch.arange(12)
    trained(tokens)  # the norm counts its batches
    expected = trained.eval()(tokens)
    source = interop.SCRATCH / "strict.pt"
    torch.save(trained.state_dict(), source)
    for name, steps in ROUTES.items():
        at = source
        for to, *flags in steps:
            at = interop.convert(at, f"strict_{to}", *flags)
        state = torch.load(str(at), map_location="cpu", weights_only=True)
        fresh = Net()
        try:
            fresh.load_state_dict(state.get("state_dict", state), strict=True)
        except RuntimeError as error:
            interop.wrong(f"strict {name}", error)
        if not torch.equal(fresh.eval()(tokens), expected):
            interop.wrong(f"strict {name}", "the module gives other outputs")
        interop.judged(f"{library} (load_state_dict)")
