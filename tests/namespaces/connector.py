"""A Connector and its agents, for the scripts in this folder: `iofog-connector` of PATH in a network of its own."""

import http.client
import json
import os
import pathlib
import signal
import ssl
import subprocess
import time
import urllib.parse

# What anything may take that should take no time at all: the machine may be busy.
PATIENCE = 20


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def wait_until(what, holds, within=PATIENCE):
    deadline = time.monotonic() + within
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {within} s in vain until {what}")
        time.sleep(0.05)


class Process:
    """One that is measured by what /proc says."""

    def __init__(self, log, words, namespace=None):
        self.log = pathlib.Path(log)
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        with open(log, "ab") as output:
            self.child = subprocess.Popen(inside + words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.proc = pathlib.Path(f"/proc/{self.child.pid}")

    def kill(self, number=signal.SIGKILL):
        self.child.send_signal(number)

    def end(self):
        self.kill(signal.SIGTERM)
        status = self.child.wait(PATIENCE)
        text = self.log.read_text()
        if status != 0 or "panic" in text:
            raise RuntimeError(f"status {status}: {text[-2000:]}")

    def resident_kib(self):
        return int((self.proc / "statm").read_text().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024)

    def descriptors(self):
        return len(os.listdir(self.proc / "fd"))

    def cpu_seconds(self):
        fields = (self.proc / "stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Daemon(Process):
    """`iofog-connector start` in a folder and at an address of its own."""

    def __init__(self, folder, address, tls, namespace=None, **settings):
        self.folder, self.address, self.tls = pathlib.Path(folder), address, tls
        self.folder.mkdir(parents=True)
        self.settings = self.folder / "connector.conf"
        self.metrics_port = 9100
        whole = {"ports": ["20000-20999"], "address": address, "listen": address, "apiport": 6002, "dev": not tls}
        whole |= {"metricslisten": f"{address}:{self.metrics_port}"} | settings
        self.settings.write_text(json.dumps(whole))
        self.ca = self.folder / "server-cert.pem"
        self.context = None
        if tls:
            run("iofog-connector", "cert", "--config", str(self.settings), "--address", address)
            self.context = ssl.create_default_context(cafile=self.ca)
        words = ["iofog-connector", "start", "--config", str(self.settings), "--log-file", str(self.folder / "log")]
        super().__init__(self.folder / "output", words, namespace)
        wait_until("the API answers", self._answers)

    def _answers(self):
        try:
            return self.status()["status"] == "running"
        except OSError:
            return False

    def post(self, path, **form):
        if self.tls:
            api = http.client.HTTPSConnection(self.address, 6002, timeout=PATIENCE, context=self.context)
        else:
            api = http.client.HTTPConnection(self.address, 6002, timeout=PATIENCE)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            api.request("POST", f"/api/v2/{path}", urllib.parse.urlencode(form), headers)
            answer = api.getresponse()
            text = answer.read().decode()
        finally:
            api.close()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {text}")
        return json.loads(text)

    def status(self, mapping="all"):
        return self.post("status", mappingid=mapping)

    def add(self, private=False, connections=60, absence=0, **options):
        if private:
            names = ["maxconnectionsport1", "maxconnectionsport2"]
            absences = ["heartbeatabsencethresholdport1", "heartbeatabsencethresholdport2"]
        else:
            names, absences = ["maxconnections"], ["heartbeatabsencethreshold"]
        form = {"type": "private" if private else "public"} | dict.fromkeys(names, connections)
        form |= dict.fromkeys(absences, absence) | options
        return self.post("mapping/add", mapping=json.dumps(form))

    def metrics(self):
        api = http.client.HTTPConnection(self.address, self.metrics_port, timeout=PATIENCE)
        try:
            api.request("GET", "/metrics")
            lines = api.getresponse().read().decode().splitlines()
        finally:
            api.close()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name.removeprefix("iofog_connector_"): float(value) for name, value in pairs}


class Agent(Process):
    """`iofog-connector agent` with a list of services."""

    def __init__(self, daemon, name, services, namespace=None, **shared):
        self.daemon, self.shared = daemon, shared
        self.settings = daemon.folder / f"{name}.conf"
        self._write(services)
        words = ["iofog-connector", "agent", "--config", str(self.settings)]
        super().__init__(daemon.folder / f"{name}.log", words, namespace)

    def _write(self, services):
        whole = {"connector": self.daemon.address, "services": services} | self.shared
        whole |= {"ca": str(self.daemon.ca)} if self.daemon.tls else {"dev": True}
        new = self.settings.with_suffix(".new")
        new.write_text(json.dumps(whole))
        new.rename(self.settings)

    def serve(self, services):
        """From now on these."""
        self._write(services)
        self.kill(signal.SIGHUP)


def service(name, port, passcode, **end):
    """A line of an agent's list; `end` is `to` or `listen`."""
    return {"name": name, "port": port, "passcode": passcode} | end


def namespace(name):
    """A further network namespace. `ip netns` keeps its files in /run, which must be a folder of one's own."""
    run("ip", "netns", "add", name)
    run("ip", "-n", name, "link", "set", "lo", "up")


def private_run_folder():
    run("mount", "-t", "tmpfs", "none", "/run")
    os.mkdir("/run/netns")
