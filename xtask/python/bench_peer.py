"""What users run today, one conversion a process: `bench_peer.py PEER SOURCE OUTPUT`."""

import sys


def torch_load_save_file(source, output, **options):
    import torch
    from safetensors.torch import save_file

    save_file(torch.load(source, **options)["state_dict"], output)


def torch_load_mmap_save_file(source, output):
    torch_load_save_file(source, output, mmap=True)


def torch_load_cast_save_file(source, output):
    import torch
    from safetensors.torch import save_file

    state = torch.load(source, mmap=True)["state_dict"]
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in state.items()}, output)


def load_file_torch_save(source, output):
    import torch
    from safetensors.torch import load_file

    torch.save({"state_dict": load_file(source)}, output)


def load_file_save_file(source, output):
    from safetensors.torch import load_file, save_file

    save_file({f"model.{name}": tensor for name, tensor in load_file(source).items()}, output)


def torch_save_to_dcp(source, output):
    from torch.distributed.checkpoint.format_utils import torch_save_to_dcp

    torch_save_to_dcp(source, output)


def dcp_to_torch_save(source, output):
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(source, output)


def dcp_load_save_file(source, output):
    import torch
    import torch.distributed.checkpoint as dcp
    from safetensors.torch import save_file

    known = dcp.FileSystemReader(source).read_metadata().state_dict_metadata
    state = {name: torch.empty(t.size, dtype=t.properties.dtype) for name, t in known.items()}
    dcp.load(state, checkpoint_id=source, no_dist=True)
    save_file({name.removeprefix("model."): tensor for name, tensor in state.items()}, output)


def consolidate_safetensors_files(source, output):
    import glob
    import os

    from safetensors import safe_open
    from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files

    names = set()
    for file in glob.glob(f"{source}/*.safetensors"):
        with safe_open(file, "pt") as shard:
            names.update(shard.keys())
    os.mkdir(output)
    consolidate_safetensors_files(source, output, dict.fromkeys(names, 1), num_threads=2)


def lightning_consolidate(source, output):
    import runpy

    sys.argv = ["consolidate_checkpoint", source, "--output_file", output]
    runpy.run_module("lightning.pytorch.utilities.consolidate_checkpoint", run_name="__main__")


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2], sys.argv[3])
