"""A Slurm cluster of two nodes, n1 and n2, on this machine: loopback only, a core each, no systemd, all files in one folder. Needs root and
Debian's slurm-wlm and munge."""
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "scontrol", "sinfo", "squeue", "sbatch", "taskset")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
# Waits are cut from minutes to seconds: with the defaults a node that is down is seen after three minutes.
CONFIG = """ClusterName=attntest
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={port}
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.log
SelectType=select/linear
MpiDefault=none
SwitchType=switch/none
ReturnToService=1
SlurmdTimeout=10
MessageTimeout=5
TCPTimeout=1
KillWait=2
MinJobAge=16
PropagateResourceLimits=NONE
MailProg=/bin/true
DebugFlags=NO_CONF_HASH
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
NodeName=n1 NodeHostname=h1 NodeAddr=127.0.0.1 Port={port1} CPUs=1 RealMemory=500 State=UNKNOWN
NodeName=n2 NodeHostname=h2 NodeAddr=127.0.0.1 Port={port2} CPUs=1 RealMemory=500 State=UNKNOWN
PartitionName=p Nodes=n1,n2 Default=YES MaxTime=INFINITE OverSubscribe=EXCLUSIVE State=UP
"""


def missing():
    """A program that is not here, or '' ."""
    return next((name for name in PROGRAMS if not shutil.which(name, path=PATH)), "")


def answers(port):
    with socket.socket() as door:
        return door.connect_ex(("127.0.0.1", port)) == 0


def free_ports():
    """The first of three in a row on which nobody listens."""
    while True:
        first = random.randrange(20000, 30000)
        if not any(answers(first + i) for i in range(3)):
            return first


class Cluster:
    def __init__(self, folder):
        self.folder = Path(folder)
        self.daemons = {}
        self.folder.chmod(0o711)  # munged wants its socket's folder searchable by all
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        self.environment.update(SLURM_CONF=f"{self.folder}/slurm.conf", PATH=PATH, LC_ALL="C")

    def call(self, *words, check=True):
        done = subprocess.run(words, capture_output=True, text=True, env=self.environment, timeout=60)
        if check and done.returncode != 0:
            raise AssertionError(f"{words}: {done.stderr}")
        return done.stdout.strip()

    def daemon(self, name, *words):
        log = open(self.folder / f"{name}.out", "w")  # noqa: SIM115 - the daemon's
        self.daemons[name] = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)
        log.close()

    def start(self):
        for name in ("state", "spool.n1", "spool.n2"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # no file of a cgroup is touched with linuxproc and task/none
        self.call("munged", *(f"--{flag}={self.folder}/munge.{flag.split('-')[0]}" for flag in ("key-file", "socket", "pid-file", "log-file", "seed-file")),
                  "--origin=127.0.0.1", "--num-threads=2")
        for _ in range(3):  # again, if somebody was faster to take the ports
            port = free_ports()
            (self.folder / "slurm.conf").write_text(CONFIG.format(folder=self.folder, host=socket.gethostname().partition(".")[0], port=port, port1=port + 1,
                                                                  port2=port + 2))
            self.daemon("slurmctld", "slurmctld", "-D", "-c", "-i")
            if self.until(lambda: self.daemons["slurmctld"].poll() is not None or "is UP" in self.call("scontrol", "ping", check=False), 20) \
                    and self.daemons["slurmctld"].poll() is None:
                break
        cores = sorted(os.sched_getaffinity(0))
        for node, core in (("n1", cores[0]), ("n2", cores[-1])):
            self.daemon(node, "taskset", "-c", str(core), "slurmd", "-D", "-N", node)
        if not self.until(lambda: self.call("sinfo", "-h", "-N", "-o", "%T", check=False).split() == ["idle", "idle"], 30):
            raise AssertionError("the two nodes are not idle:\n" + self.logs())

    @staticmethod
    def until(holds, seconds):
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def logs(self):
        files = [path for path in sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out")) if path.stat().st_size]
        return "".join(f"---- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-8:]) + "\n" for path in files)

    def ours(self):
        """Processes that were started with this cluster's configuration, and steps whose title names it."""
        found = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if f"SLURM_CONF={self.folder}/slurm.conf".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
            except OSError:
                pass
        return found - {os.getpid()}

    def stop(self):
        self.call("scancel", "--quiet", "--state=PENDING,RUNNING", "--user=root", check=False)
        self.until(lambda: not self.call("squeue", "-h", check=False), 15)
        for name in ("n1", "n2", "slurmctld"):  # the controller last: a step without it retries its report for minutes
            daemon = self.daemons.get(name)
            if daemon is not None and daemon.poll() is None:
                daemon.terminate()
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()
        self.call("munged", "--stop", f"--socket={self.folder}/munge.socket", check=False)
        for pid in self.ours():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
