"""User classes whose instances lie in fixtures, named `fixture_types.X` there; names that fixtures share."""

import collections
import dataclasses
import enum

import torch


class Color(enum.Enum):
    RED = 1
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Outer:
    class Inner:
        def __init__(self):
            self.depth = 2

    class Kind(enum.Enum):
        A = 1
        B = "b"


class Word(str):
    pass


class Whole(int):
    pass


@dataclasses.dataclass
class Point:
    x: int = 1
    y: float = 0.5
    tags: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    rate: float


class Slots:
    __slots__ = ("left", "right", "__dict__")

    def __init__(self):
        self.left, self.right, self.extra = 1, "two", [3]


class Plain:
    def __init__(self):
        self.size = 4
        self.nested = {"a": [1, 2]}


class Stateful:
    """Pickled through __getstate__ with something that is not a dict."""

    def __init__(self, values):
        self.values = values

    def __getstate__(self):
        return list(self.values)

    def __setstate__(self, state):
        self.values = state


class Reduced:
    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return Reduced, self.args


class MyDict(dict):
    pass


class MyList(list):
    pass


Pair = collections.namedtuple("Pair", ["first", "second"])


class Tagged(torch.Tensor):
    """A tensor subclass, pickled through `_rebuild_from_type_v2`."""


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 3)
        self.norm = torch.nn.BatchNorm1d(3)
        self.stack = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), torch.nn.ReLU())
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.scale = torch.nn.Parameter(torch.ones(3))

    def forward(self, x):
        return self.stack(self.norm(self.first(x))) * self.scale


class TiedNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(5, 3)
        self.body = torch.nn.Linear(3, 3)
        self.head = torch.nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.body(self.embed(x)))


# In `distcp/megatron_objects*`, as Megatron-Core 0.16.1's `load_sharded_metadata` lists them.
OBJECTS = [
    "decoder.layers.mlp.linear_fc2._extra_state/shard_0_2",
    "decoder.layers.mlp.linear_fc2._extra_state/shard_1_2",
    "decoder.layers.self_attention.linear_qkv._extra_state/shard_0.0_2.1",
    "decoder.layers.self_attention.linear_qkv._extra_state/shard_1.0_2.1",
    "optimizer.distributed.dp_group_idx_0.param_state/shard_0_1",
    "rng_state/shard_0.0_1.2",
    "rng_state/shard_0.1_1.2",
]
