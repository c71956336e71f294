"""The search as a guest in someone's process: stdout, imports, threads, Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys

PREAMBLE = """
import sys
from anyblock.search import Budget, Group, Option, Problem, solve
def tangled(groups, options, costs):
    import random
    dice = random.Random(1)
    made = []
    for index in range(groups):
        rows = [[dice.random() for _ in range(costs)] for _ in range(options)]
        made.append(Group(f"g{index}", tuple(
            Option(f"o{n}", 2.718 ** -sum(row) * dice.uniform(0.8, 1.2), {str(k): v for k, v in enumerate(row)})
            for n, row in enumerate(rows))))
    return Problem(tuple(made), tuple(Budget(str(k), upper=0.5 * groups) for k in range(costs)))
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + code], capture_output=True, text=True, check=True, timeout=120
    )


def test_nothing_but_the_answer_is_written() -> None:
    code = """
import anyblock.search.proof.engine as engine
engine._PROOF_WIDTHS = ()
solution = solve(tangled(20, 8, 3), gap=1e-4, node_limit=200)
print(solution.nodes > 0, solution.status)
"""
    done = python(code)
    assert done.stdout.split()[0] == "True"
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_importing_loads_nothing_heavy() -> None:
    code = "print([name for name in ('torch', 'transformers', 'numpy', 'highspy', 'pydantic') if name in sys.modules])"
    assert python(code).stdout == "[]\n"


def test_solving_loads_no_torch() -> None:
    code = "solve(tangled(3, 3, 1)); print([name for name in ('torch', 'transformers') if name in sys.modules])"
    assert python(code).stdout == "[]\n"


def test_another_use_of_highs_with_other_threads_is_no_hindrance() -> None:
    code = """
import highspy, numpy
def other():
    solver = highspy.Highs()
    solver.silent()
    solver.setOptionValue("threads", 2)
    solver.addCol(-1.0, 0.0, 1.0, 0, numpy.array([], dtype=numpy.int32), numpy.array([]))
    return solver.run().name
print(other(), solve(tangled(6, 4, 2)).status, other())
"""
    assert python(code).stdout.splitlines()[-1] == "kOk proven kOk"


def test_searches_in_several_threads_do_not_disturb_one_another() -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
problems = [tangled(groups, 5, 2) for groups in (4, 5, 6, 7)]
alone = [solve(problem).choices for problem in problems]
with ThreadPoolExecutor(4) as pool:
    print([solution.choices for solution in pool.map(solve, problems)] == alone)
"""
    assert python(code).stdout == "True\n"


def test_ctrl_c_ends_a_long_search() -> None:
    # A process in the background of a shell ignores SIGINT, and so do its children.
    code = """
import signal, threading, time
import anyblock.search.proof.engine as engine
signal.signal(signal.SIGINT, signal.default_int_handler)
engine._PROOF_WIDTHS = ()
problem = tangled(80, 40, 4)
def tell():  # not before it has worked for a while
    begin = time.process_time()
    while time.process_time() < begin + 2:
        time.sleep(0.02)
    print("ready", flush=True)
try:
    threading.Thread(target=tell, daemon=True).start()
    solve(problem, time_limit=1000)
except KeyboardInterrupt:
    print("interrupted")
"""
    with subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert out == "interrupted\n"
    assert err == ""
    assert process.returncode == 0
