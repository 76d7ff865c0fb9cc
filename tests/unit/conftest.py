"""One thread for torch, as in an attempt: several have nothing to do at these sizes but wait."""

import torch

torch.set_num_threads(1)
