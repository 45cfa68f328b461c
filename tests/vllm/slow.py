"""A logits processor that makes tokens as slow as those of a large model, without using the CPU."""

import time

import torch
from vllm.v1.sample.logits_processor import LogitsProcessor

# Before the first matrix multiplication: it asks the kernel for permission to use the tile registers of CPUs that have
# them, without which the engine ends with SIGILL.
torch.cpu._init_amx()


class Slow(LogitsProcessor):
    """Waits once per step of the engine, which generates one token of each running request.

    The time in seconds is `seconds_per_token` of `--additional-config`, by default 0.05.
    """

    def __init__(self, vllm_config, device, is_pin_memory) -> None:
        self.seconds = vllm_config.additional_config.get("seconds_per_token", 0.05)

    @classmethod
    def validate_params(cls, sampling_params) -> None:
        pass

    def is_argmax_invariant(self) -> bool:
        # Otherwise greedy sampling skips it.
        return False

    def update_state(self, batch_update) -> None:
        pass

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return logits
