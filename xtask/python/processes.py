"""Runs a function on several ranks of a gloo group, one process each."""

import multiprocessing
import os
import tempfile
import traceback

PRELOAD = ["torch.distributed.checkpoint", "torch.distributed.tensor", "torch.distributed.fsdp"]


def run_ranks(world, function, *args):
    """`function(rank, *args)` on each rank; the first failure ends the program."""
    context = multiprocessing.get_context("forkserver")  # torch is imported once
    context.set_forkserver_preload(PRELOAD)
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            context.Process(target=one_rank, args=(rank, world, folder, function, args))
            for rank in range(world)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit(f"{function.__name__} failed on {world} ranks")


def one_rank(rank, world, folder, function, args):
    import torch
    import torch.distributed as dist

    from fixture import seed

    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    store = dist.FileStore(f"{folder}/store", world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world)
    try:
        seed()
        function(rank, *args)
        dist.barrier()
    except Exception:
        traceback.print_exc()
        os._exit(1)
    dist.destroy_process_group()


def pattern(tensor, start):
    """Fills a DTensor, ShardedTensor or plain tensor with numbers that depend on the global place."""
    if not tensor.dtype.is_floating_point:
        return
    from fixture import numbers

    full = numbers(*tensor.shape, dtype=tensor.dtype, start=start)
    if hasattr(tensor, "_local_tensor"):
        from torch.distributed.tensor import distribute_tensor

        whole = distribute_tensor(full, tensor.device_mesh, tensor.placements)
        tensor._local_tensor.copy_(whole._local_tensor)
    elif hasattr(tensor, "local_shards"):  # a ShardedTensor
        for shard in tensor.local_shards():
            box = zip(shard.metadata.shard_offsets, shard.metadata.shard_sizes, strict=True)
            shard.tensor.copy_(full[tuple(slice(at, at + size) for at, size in box)])
    else:
        tensor.copy_(full)
