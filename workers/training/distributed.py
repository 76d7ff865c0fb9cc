"""Ray Train: the same function on every rank, with a process group between them.

The only file of the training that imports Ray, and only when there is more than one worker: with
one, a process group and Ray's worker processes would cost 15 s and give nothing. It imports no
torch: that takes over a second in each of two processes that only watch, one after the other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from shared.settings import settings

if TYPE_CHECKING:
    from workers.training.ranks import Ranks

RankMain = Callable[["Ranks", dict[str, Any]], None]


class AttemptTrainer(DataParallelTrainer):
    """Ray's TorchTrainer, but it leaves no process behind, and its process group is ours.

    Ray Train starts a detached cleaner of placement groups, for the case that its controller dies.
    An attempt is a Ray job of its own, whose end removes its groups; and the cleaner of a dead
    controller stays for ever in 2.60 (it calls exit_actor in a thread), 120 MB each.
    """

    def _create_default_callbacks(self) -> list[Any]:
        return [
            callback
            for callback in super()._create_default_callbacks()
            if not isinstance(callback, PlacementGroupCleanerCallback)
        ]


class ProcessGroup(BackendConfig):
    """Asks Ray Train for the process group of workers/training/process_group.py."""

    @property
    def backend_cls(self) -> type[Backend]:
        return ProcessGroupBackend


class ProcessGroupBackend(Backend):
    """Joins the workers before their function is called. Runs in Ray Train's controller."""

    share_cuda_visible_devices = True
    """A worker sees the GPUs of all on its node, as NCCL wants it."""

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Raises what a worker raised."""
        del backend_config
        address = worker_group.execute_single(0, _meet)
        size = len(worker_group)
        ray.get(
            [worker_group.execute_single_async(rank, _join, rank, size, address)
             for rank in range(size)]
        )  # fmt: skip


def launch(rank_main: RankMain, arguments: dict[str, Any], *, workers: int) -> None:
    """Run `rank_main(ranks, arguments)` on `workers` ranks and wait for all of them.

    Gloo on CPU, NCCL where the cluster has GPUs, or may get them. A failed rank fails all: trying
    again is the queue's matter, from the newest checkpoint.
    """
    ray.init(address="auto", log_to_driver=True)
    # As the dispatcher has reckoned (admission.demand): an autoscaler may have no GPU yet.
    gpus = max(ray.cluster_resources().get("GPU", 0), settings().ray_max_gpus)
    use_gpu = gpus >= workers
    trainer = AttemptTrainer(
        _on_rank,
        train_loop_config={"rank_main": rank_main, "arguments": arguments},
        backend_config=ProcessGroup(),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=use_gpu, resources_per_worker={} if use_gpu else {"CPU": 1}
        ),
        run_config=RunConfig(
            storage_path=tempfile.mkdtemp(prefix="elmyr-train-"),
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),
        ),
    )
    trainer.fit()


def _meet() -> tuple[str, int]:
    from workers.training import process_group

    return process_group.meet(ray.util.get_node_ip_address())


def _join(rank: int, size: int, address: tuple[str, int]) -> None:
    from workers.training import process_group

    process_group.join(rank, size, address, _device())


def _on_rank(config: dict[str, Any]) -> None:
    from workers.training import process_group

    config["rank_main"](process_group.ranks(_device()), config["arguments"])


def _device() -> Any:
    """This worker's: the GPU that Ray gave it, else the CPU."""
    import torch

    if not ray.get_gpu_ids():
        return torch.device("cpu")
    from ray.train.torch import get_device

    return get_device()
