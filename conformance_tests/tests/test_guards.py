"""The guards that checks use: network, global state, memory."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path

import pytest
import torch
from anyblock_conformance.memory import peak_growth
from anyblock_conformance.network import no_network
from anyblock_conformance.state import changes, class_state, preserved, process_state


def test_connections_and_look_ups_fail_and_are_recorded_also_when_they_are_caught():
    with no_network() as tried:
        with pytest.raises(OSError, match="no network"):
            socket.create_connection(("huggingface.co", 443), timeout=1)
        with pytest.raises(OSError, match="no network"):
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        plain = socket.socket()
        with pytest.raises(OSError, match="no network"):
            plain.connect(("192.0.2.1", 80))
        with pytest.raises(OSError, match="no network"):
            plain.connect_ex(("192.0.2.1", 80))
        plain.close()
    assert len(tried) == 4
    assert "huggingface.co" in tried[0]


def test_other_threads_and_local_sockets_are_left_alone_and_everything_is_put_back():
    before = (socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex)
    server = socket.create_server(("127.0.0.1", 0))
    reached = []

    def other():
        with socket.create_connection(server.getsockname(), timeout=120):
            reached.append(True)

    with no_network() as tried:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        one, two = socket.socketpair(socket.AF_UNIX)
        one.close()
        two.close()
    server.close()
    assert reached == [True]
    assert tried == []
    assert (socket.getaddrinfo, socket.socket.connect, socket.socket.connect_ex) == before


CHANGES = {
    "torch.get_default_dtype()": lambda: torch.set_default_dtype(torch.float64),
    "torch.get_num_threads()": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch.is_grad_enabled()": lambda: torch.set_grad_enabled(False),
    "torch.get_rng_state()": lambda: torch.rand(1),
    "os.environ['ANYBLOCK_X']": lambda: os.environ.update(ANYBLOCK_X="1"),
    "sys.path": lambda: sys.path.append("/nowhere"),
    "Path.cwd()": lambda: os.chdir("/"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_global_state_is_seen_and_put_back(name):
    before = process_state()
    with preserved():
        CHANGES[name]()
        found = changes(before, process_state())
    assert len(found) == 1, found
    assert found[0].startswith(name)
    assert changes(before, process_state()) == []


def test_global_state_is_put_back_after_a_failure():
    before = process_state()

    def fails():
        torch.set_default_dtype(torch.float16)
        os.environ.pop("PATH")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), preserved():
        fails()
    assert changes(before, process_state()) == []


def test_a_patched_class_is_seen(monkeypatch):
    from transformers.models.llama import modeling_llama as module

    before = class_state([module.LlamaDecoderLayer])
    monkeypatch.setattr(module.LlamaMLP, "forward", lambda self, x: x)
    assert changes(before, class_state([module.LlamaDecoderLayer])) == ["LlamaMLP.forward was changed"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells")
def test_memory_is_measured_at_its_peak_also_when_it_is_given_back():
    def work():
        torch.ones(48 << 20, dtype=torch.uint8)

    assert 40 << 20 <= peak_growth(work) <= 80 << 20
    assert peak_growth(lambda: None) < 8 << 20
