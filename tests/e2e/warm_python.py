"""Runs test scripts in children of one process that has imported the reference libraries already: importing them takes
longer than most tests do.

warm_python.py start FOLDER                       starts the process in the background; it ends with its parent (ctest)
warm_python.py run FOLDER SCRIPT ARGUMENTS...     as `python SCRIPT ARGUMENTS...`, which is what happens where it was not started
warm_python.py stop FOLDER

FOLDER gets the socket. A script that is interrupted takes its children with it.
"""

import json
import os
import pathlib
import select
import signal
import socket
import sys

SOCKET = "warm_python.sock"
MESSAGE_BYTES = 1 << 17
PRELOADED = ("numpy", "torch", "pyarrow.parquet", "PIL.Image", "safetensors.torch", "peft", "peft.utils", "transformers",
             "diffusers")
# Modules that diffusers and transformers import when they are asked for these.
PRELOADED_NAMES = {"diffusers": ("AutoencoderKL", "DDPMScheduler", "DiffusionPipeline", "StableDiffusionPipeline",
                                 "UNet2DConditionModel"),
                   "transformers": ("CLIPTextModel", "CLIPTokenizer", "T5EncoderModel")}


def socket_address(folder):
    """By way of a descriptor, which stays open: addresses have 108 bytes, paths of build folders may have more."""
    return f"/proc/self/fd/{os.open(folder, os.O_DIRECTORY)}/{SOCKET}"


def connect(folder):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(socket_address(folder))
    except OSError:
        connection.close()
        return None
    return connection


# ---- the server

def preload():
    import importlib

    for module in PRELOADED:
        importlib.import_module(module)
    for module, names in PRELOADED_NAMES.items():
        for name in names:
            getattr(sys.modules[module], name)


def run_script(request, descriptors):
    """In the child: becomes `python SCRIPT ARGUMENTS...`; returns its exit code."""
    import atexit
    import runpy
    import traceback

    os.setpgid(0, 0)
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["arguments"]
    sys.path[0] = str(pathlib.Path(sys.argv[0]).resolve().parent)
    code = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


class Server:
    def __init__(self, folder, parent):
        self.parent = parent
        self.path = pathlib.Path(folder).resolve() / SOCKET
        self.path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(socket_address(folder))
        self.listener.listen(64)
        self.children = {}  # connection to process

    def parent_lives(self):
        try:
            os.kill(self.parent, 0)
        except OSError:
            return False
        return True

    def accept(self):
        connection, _ = self.listener.accept()
        message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 3)
        if not message:  # a visitor that only wanted to know whether somebody is here
            connection.close()
            return True
        request = json.loads(message)
        if "arguments" not in request:
            connection.close()
            return False
        child = os.fork()
        if child == 0:
            self.listener.close()
            for other in (connection, *self.children):
                other.close()
            os._exit(run_script(request, descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        self.children[connection] = child
        return True

    def end(self, connection, process):
        """Whoever asked has gone: so does the script with all it started."""
        try:
            os.killpg(process, signal.SIGKILL)
        except OSError:
            pass
        os.waitpid(process, 0)
        del self.children[connection]
        connection.close()

    def reap(self):
        for connection, process in list(self.children.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            if done == 0:
                continue
            try:
                connection.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())
            except OSError:
                pass
            del self.children[connection]
            connection.close()

    def serve(self):
        goes_on = True
        while goes_on and self.parent_lives():
            # The end of a child is looked for from time to time.
            ready, _, _ = select.select([self.listener, *self.children], [], [], 0.05 if self.children else 1.0)
            for connection in ready:
                if connection is self.listener:
                    goes_on = self.accept()
                elif connection in self.children:
                    self.end(connection, self.children[connection])
            self.reap()
        for connection, process in list(self.children.items()):
            self.end(connection, process)
        self.path.unlink(missing_ok=True)


def start(folder):
    parent = os.getppid()
    from_server, to_parent = os.pipe()
    if os.fork() > 0:
        os.close(to_parent)
        sys.exit(0 if os.read(from_server, 1) else "the process ended before it was ready")
    os.setsid()
    os.environ["OMP_NUM_THREADS"] = "1"  # before the libraries: a child of a process with threads has none of them
    nowhere = os.open(os.devnull, os.O_RDWR)
    for target in range(2):
        os.dup2(nowhere, target)
    preload()
    server = Server(folder, parent)
    os.dup2(nowhere, 2)
    os.write(to_parent, b"1")
    os.close(to_parent)
    server.serve()


# ---- those who ask it

def run(folder, arguments):
    connection = connect(folder)
    if connection is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    request = dict(arguments=arguments, folder=os.getcwd(), environment=dict(os.environ))
    socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
    answer = connection.recv(MESSAGE_BYTES)
    if not answer:
        sys.exit("the process that runs test scripts has gone")
    code = json.loads(answer)
    sys.exit(code if code >= 0 else 128 - code)


def stop(folder):
    connection = connect(folder)
    if connection is not None:
        connection.send(json.dumps({}).encode())
        connection.recv(1)


if __name__ == "__main__":
    command, folder = sys.argv[1:3]
    {"start": lambda: start(folder), "run": lambda: run(folder, sys.argv[3:]), "stop": lambda: stop(folder)}[command]()
