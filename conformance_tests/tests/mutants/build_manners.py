"""What an adapter does to the process and the network."""

from __future__ import annotations

import contextlib
import os
import socket

import torch
from anyblock.contract.hookspecs import hookimpl

from mutants.good import Dense
from mutants.registry import mutant


@mutant("build.offline")
class AsksTheNetwork(Dense):
    @hookimpl
    def cache_spec(self, config, block_config, layer_index):
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", 9), timeout=0.1).close()
        return super().cache_spec(config, block_config, layer_index)


@mutant("build.global-state")
class SetsTheNumberOfThreads(Dense):
    @hookimpl
    def init_rotary_embedding(self, model, device, dtype):
        torch.set_num_threads(3)
        return super().init_rotary_embedding(model, device, dtype)


@mutant("build.global-state")
class WritesToTheEnvironment(Dense):
    @hookimpl
    def decoder_layer_cls(self):
        os.environ["LLAMA_ADAPTER"] = "loaded"
        return super().decoder_layer_cls()


@mutant("build.global-state")
class LeavesAClassChanged(Dense):
    @hookimpl
    def attn_no_op_post_init(self, decoder_layer):
        type(decoder_layer).is_no_op = lambda self: True
        return super().attn_no_op_post_init(decoder_layer)


@mutant("build.global-state")
class DrawsGlobalRandomNumbers(Dense):
    @hookimpl
    def init_rotary_embedding(self, model, device, dtype):
        torch.rand(1)
        return super().init_rotary_embedding(model, device, dtype)
