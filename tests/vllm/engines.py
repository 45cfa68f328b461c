"""Runs vLLM engines on command, as a container runtime does.

    python engines.py [--exec]

Reads one JSON object per line from standard input:

    {"start": NAME, "arguments": [...], "log": FILE}  starts vLLM's API server with these arguments
    {"stop": NAME, "grace": SECONDS}                  sends SIGTERM, and SIGKILL after the grace period

Writes {"ended": NAME, "code": CODE} to standard output when an engine has ended; a negative code is a signal. At the
end of standard input it kills all engines and ends.

An engine is a fork of this process, which has already imported vLLM. With --exec it is a new interpreter and takes as
long to start as in vLLM's container image.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
API_SERVER = "vllm.entrypoints.openai.api_server"
PR_SET_PDEATHSIG = 1

# Nothing is downloaded or reported. One thread per engine, because all engines share the cores of one machine.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # The logits processor.
    "PYTHONPATH": str(HERE),
}


class Engines:
    """Running engines by name."""

    def __init__(self, executes: bool) -> None:
        self.executes = executes
        self.pids: dict[str, int] = {}
        # Times of SIGKILL by name.
        self.deadlines: dict[str, float] = {}

    def start(self, name: str, arguments: list[str], log: str) -> None:
        pid = os.fork()
        if pid == 0:
            # A process group of its own, which SIGKILL ends as a whole.
            os.setsid()
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            if self.executes:
                os.execv(sys.executable, [sys.executable, "-m", API_SERVER, *arguments])
            serve(arguments)
        self.pids[name] = pid

    def stop(self, name: str, grace: float) -> None:
        if name in self.pids:
            os.kill(self.pids[name], signal.SIGTERM)
            self.deadlines[name] = time.monotonic() + grace

    def kill_overdue(self) -> None:
        for name in [name for name, deadline in self.deadlines.items() if time.monotonic() >= deadline]:
            os.killpg(self.pids[name], signal.SIGKILL)
            del self.deadlines[name]

    def report_ended(self) -> None:
        for name, pid in list(self.pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self.pids[name]
                self.deadlines.pop(name, None)
                print(json.dumps({"ended": name, "code": os.waitstatus_to_exitcode(status)}), flush=True)

    def kill_all(self) -> None:
        for pid in self.pids.values():
            os.killpg(pid, signal.SIGKILL)


def serve(arguments: list[str]) -> None:
    """Runs vLLM's API server in this process until it ends, and never returns."""
    code = 1
    try:
        from vllm.entrypoints.launchers.api_server.entry import main

        sys.argv = [API_SERVER, *arguments]
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # Without the exit handlers of the parent process.
        os._exit(code)


def preload() -> None:
    """Imports what an engine imports, without starting a thread."""
    import slow  # noqa: F401
    import uvloop  # noqa: F401
    import vllm.entrypoints.launchers.api_server.entry  # noqa: F401
    import vllm.entrypoints.launchers.app  # noqa: F401
    import vllm.model_executor.models.llama  # noqa: F401
    import vllm.v1.engine.async_llm  # noqa: F401
    import vllm.v1.worker.cpu_worker  # noqa: F401


def main() -> None:
    executes = "--exec" in sys.argv[1:]
    os.environ.update(ENVIRONMENT)
    if not executes:
        sys.path.insert(0, str(HERE))
        # Standard output is for events only.
        events = os.dup(1)
        os.dup2(2, 1)
        preload()
        os.dup2(events, 1)
    print(json.dumps({"ready": True}), flush=True)
    engines = Engines(executes)
    pending = b""
    while True:
        readable, _, _ = select.select([0], [], [], 0.1)
        if readable:
            received = os.read(0, 65536)
            if not received:
                engines.kill_all()
                return
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                command = json.loads(line)
                if "start" in command:
                    engines.start(command["start"], command["arguments"], command["log"])
                else:
                    engines.stop(command["stop"], command["grace"])
        engines.kill_overdue()
        engines.report_ended()


if __name__ == "__main__":
    main()
