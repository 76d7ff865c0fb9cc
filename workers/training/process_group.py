"""The process group of one training's ranks. Knows torch, not Ray.

torch's own rendezvous listens on all interfaces; this one on the address of the first rank's node
alone, which is loopback where Ray is.
"""

from __future__ import annotations

import socket
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from workers.training.ranks import Ranks

TIMEOUT = timedelta(minutes=30)
"""Of one collective: the first rank may be scoring or saving while the others wait."""

_listening: list[socket.socket] = []
"""The first rank's socket, from `meet` to `join`."""


def meet(ip: str) -> tuple[str, int]:
    """Listen for the other ranks, in the first one's process: the address to join at."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    server = socket.create_server((ip, 0), family=family)
    _listening.append(server)
    return ip, server.getsockname()[1]


def join(rank: int, size: int, address: tuple[str, int], device: torch.device) -> None:
    """Wait for all ranks; NCCL between GPUs, else gloo. Raises torch's DistError when one does not
    come within TIMEOUT."""
    listening = _listening.pop().detach() if rank == 0 else None
    store = TCPStore(*address, size, rank == 0, TIMEOUT, master_listen_fd=listening)
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
        device_id=device if on_gpu else None,
    )


def ranks(device: torch.device) -> Ranks:
    """This process among those that have joined. For the thread that trains: torch's own choice of
    a GPU is a thread's."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return Ranks(dist.get_rank(), dist.get_world_size(), device)
