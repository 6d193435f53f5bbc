"""Servers under measurement, started in a network of their own and ended with it.

`enter_namespace` starts the script again in a network namespace with one cable, because Janus offers no address of
loopback; the namespace and every process in it are gone when the script ends, however it ends. `Janus`
runs Debian's Janus with a configuration made for VideoRooms of sound alone; `Sfu` runs our media node. Both tell what
the kernel has charged to them in /proc.

Nothing here measures: that is done by loadgen and by the scripts beside this file.
"""

import contextlib
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ADDRESS = "10.77.0.1"
STARTED_WITHIN_SECONDS = 60
ENDED_WITHIN_SECONDS = 15
INSIDE = "CARILLON_LOAD_INSIDE"


def enter_namespace():
    """Returns inside of the namespace; `False` where namespaces are refused."""
    if os.environ.get(INSIDE) != "1":
        enter = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if subprocess.run([*enter, "true"], stderr=subprocess.DEVNULL).returncode != 0:
            return False
        os.execvpe(enter[0], [*enter, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    ip("link", "set", "lo", "up")
    ip("link", "add", "cable", "type", "veth", "peer", "name", "far")
    ip("address", "add", f"{ADDRESS}/24", "dev", "cable")
    ip("link", "set", "cable", "up")
    ip("link", "set", "far", "up")
    return True


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


class Server(contextlib.AbstractContextManager):
    """A process of its own folder, ended by its id."""

    def __init__(self, name, command, environment=None):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=f"carillon-{name}-"))
        self.log = self.folder / "log"
        try:
            self.prepare()
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    command(self.folder), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env={**os.environ, **(environment or {})})
        except BaseException:
            shutil.rmtree(self.folder)
            raise
        self.pid = self.process.pid

    def prepare(self):
        pass

    def wait_for_port(self, port, address="127.0.0.1"):
        until = time.monotonic() + STARTED_WITHIN_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
                return
            time.sleep(0.05)
        text = self.log.read_text(errors="replace")
        self.stop()
        sys.exit(f"{type(self).__name__} has not started. Its last lines:\n" + "\n".join(text.splitlines()[-20:]))

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(ENDED_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __exit__(self, *_):
        self.stop()


JANUS_CONFIG = """\
general: {{
    configs_folder = "{folder}"
    plugins_folder = "{modules}/plugins"
    transports_folder = "{modules}/transports"
    events_folder = "{modules}/events"
    loggers_folder = "{modules}/loggers"
    debug_level = 3
    debug_colors = false
    session_timeout = 60
    event_loops = {loops}
    hide_dependencies = true
}}
media: {{
    ipv6 = false
    rtp_port_range = "20000-40000"
}}
nat: {{
    ice_lite = true
    ice_enforce_list = "{address}"
    ignore_mdns = true
}}
plugins: {{
    disable = "{plugins}"
}}
transports: {{
    disable = "{transports}"
}}
events: {{
    broadcast = false
}}
"""

JANUS_WEBSOCKETS = """\
general: {{
    json = "compact"
    ws = true
    ws_ip = "{address}"
    ws_port = {port}
    wss = false
}}
admin: {{
    admin_ws = false
    admin_wss = false
}}
"""


class Janus(Server):
    """Janus with the WebSocket transport and the VideoRoom plugin alone. Rooms are made by who comes."""

    def __init__(self, loops, port=18188):
        modules = next(pathlib.Path("/usr/lib").glob("*/janus"), None)
        if modules is None or shutil.which("janus") is None:
            sys.exit("Janus is missing here: deploy/prepare packages janus")
        # Complete peers take the address from which they reach this one, and Janus answers none of loopback.
        self.url = f"ws://{ADDRESS}:{port}"
        self.settings = {
            "loops": loops,
            "address": ADDRESS,
            "modules": modules,
            "plugins": others(modules / "plugins", "videoroom"),
            "transports": others(modules / "transports", "websockets"),
        }
        self.port = port
        super().__init__("janus", lambda folder: ["janus", "-C", folder / "janus.jcfg", "-F", folder])
        self.wait_for_port(port, ADDRESS)

    def prepare(self):
        write = {
            "janus.jcfg": JANUS_CONFIG.format(folder=self.folder, **self.settings),
            "janus.transport.websockets.jcfg": JANUS_WEBSOCKETS.format(address=ADDRESS, port=self.port),
            "janus.plugin.videoroom.jcfg": "general: {\n    events = false\n}\n",
        }
        for name, text in write.items():
            (self.folder / name).write_text(text)


class Sfu(Server):
    """Our media node with its defaults, commanded over the control link."""

    def __init__(self, binary, *arguments, control=7100, admin=7101):
        self.token = secrets.token_hex(16)
        self.url = f"ws://127.0.0.1:{control}"
        flags = ["--listen", "0.0.0.0", "--advertise", ADDRESS, "--control", f"127.0.0.1:{control}",
                 "--admin", f"127.0.0.1:{admin}", *arguments]
        super().__init__("sfu", lambda _: [binary, *flags], {"SFU_CONTROL_TOKEN": self.token})
        self.wait_for_port(control)


def others(folder, kept):
    """The modules of this folder but one, as Janus's `disable` wants them."""
    return ",".join(sorted(path.name for path in folder.glob("*.so") if kept not in path.name))


def cpu_seconds(pid):
    """User and system time that the kernel has charged to a process with all its threads."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
