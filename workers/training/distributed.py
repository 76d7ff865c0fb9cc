"""Ray Train: the same function on every rank, with a process group between them.

The only file of the training that imports Ray, and only when there is more than one worker: with
one, a process group and Ray's worker processes would cost 15 s and give nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

from shared.settings import settings
from workers.training.ranks import Ranks


class AttemptTrainer(TorchTrainer):
    """A TorchTrainer that leaves no process behind.

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


RankMain = Callable[[Ranks, dict[str, Any]], None]


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
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=use_gpu, resources_per_worker={} if use_gpu else {"CPU": 1}
        ),
        torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
        run_config=RunConfig(
            storage_path=tempfile.mkdtemp(prefix="elmyr-train-"),
            failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),
        ),
    )
    trainer.fit()


def _on_rank(config: dict[str, Any]) -> None:
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), torch.device(get_device()))
    config["rank_main"](ranks, config["arguments"])
