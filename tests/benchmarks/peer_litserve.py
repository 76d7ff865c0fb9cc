"""The peer of bench_serving.py: LitServe with the same network, as its documentation has it.

    python peer_litserve.py PORT MAX_BATCH

Runs where `litserve` can be imported; of Elmyr it needs shared/ only.
"""

from __future__ import annotations

import secrets
import sys

import litserve
import torch
from fastapi import Response

from shared.images import Pixels, encode
from shared.networks.sampling import latents, to_uint8
from tests.forgers import bench_forger

MAX_SEED = 2**32


class Forger(litserve.LitAPI):
    """One picture a request: latent drawn, network run, PNG made, as Elmyr does it."""

    def setup(self, device: str) -> None:
        torch.set_num_threads(1)
        self.network = bench_forger()
        self.batched = self.max_batch_size > 1

    def decode_request(self, request: dict[str, int]) -> int:
        return request.get("seed") or secrets.randbelow(MAX_SEED)

    def batch(self, inputs: list[int]) -> list[int]:
        return inputs

    def unbatch(self, output: list[Pixels]) -> list[Pixels]:
        return output

    @torch.inference_mode()
    def predict(self, x: list[int] | int) -> list[Pixels] | Pixels:
        seeds = x if isinstance(x, list) else [x]
        config = self.network.config
        z = torch.cat([latents(seed, [0], config.z_dim) for seed in seeds])
        c = torch.tensor([seed % config.num_classes for seed in seeds])
        pixels = list(to_uint8(self.network(z, c)))
        return pixels if self.batched else pixels[0]

    def encode_response(self, output: Pixels) -> Response:
        return Response(encode(output), media_type="image/png")


if __name__ == "__main__":
    port, max_batch = (int(word) for word in sys.argv[1:])
    server = litserve.LitServer(
        Forger(max_batch_size=max_batch, batch_timeout=0.0), accelerator="cpu", workers_per_device=1
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning")
