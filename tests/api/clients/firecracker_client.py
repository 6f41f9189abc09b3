"""Drives coracle through firecracker-python, a published client of Firecracker's API, as it is.

Arguments: a link named `firecracker` to the program, and a guest that halts. The package's class
of whole machines wants a Docker daemon; what is tried here is its client of the API.
"""

import json
import os
import subprocess
import sys
import tempfile

from firecracker.api import Api
from firecracker.exceptions import APIError


class Monitor:
    """A monitor and a client of it."""

    def __init__(self, program):
        self.folder = tempfile.TemporaryDirectory()
        self.socket = self.path("api.sock")
        arguments = [program, "--api-sock", self.socket, "--id", "python"]
        self.process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        while not os.path.exists(self.socket):
            if self.process.poll() is not None:
                raise RuntimeError("the monitor has ended")
        self.api = Api(self.socket)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def end(self):
        self.api.close()
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


def describe(monitor, kernel):
    """A machine in the package's own order of requests, and its start."""
    api = monitor.api
    with open(monitor.path("disk"), "wb") as disk:
        disk.truncate(1 << 20)
    arguments = "console=ttyS0 reboot=k pci=off panic=1"
    api.boot.put(kernel_image_path=kernel, boot_args=arguments)
    api.drive.put(
        drive_id="rootfs",
        path_on_host=monitor.path("disk"),
        is_root_device=True,
        is_read_only=False,
    )
    api.machine_config.put(vcpu_count=1, mem_size_mib=128)
    api.vsock.put(guest_cid=3, uds_path=monitor.path("v.sock"), vsock_id="vsock0")
    config = api.vm_config.get().json()
    assert config["drives"][0]["drive_id"] == "rootfs", config
    assert config["boot-source"]["boot_args"] == arguments, config
    api.actions.put(action_type="InstanceStart")
    assert monitor.process.stdout.read(1) == b"H"


def case_describes_itself(monitor, kernel):
    info = monitor.api.describe.get().json()
    assert (info["id"], info["state"]) == ("python", "Not started"), info
    version = monitor.api.version.get().json()
    assert version["firecracker_version"] == info["vmm_version"], version


def case_starts_a_machine(monitor, kernel):
    describe(monitor, kernel)
    info = monitor.api.describe.get().json()
    assert info["state"] == "Running", info


def case_tells_what_is_wrong(monitor, kernel):
    wrong = [
        lambda: monitor.api.boot.put(kernel_image_path="/no/such"),
        lambda: monitor.api.machine_config.put(vcpu_count=0, mem_size_mib=128),
        lambda: monitor.api.drive.put(drive_id="d", nope=1),
        lambda: monitor.api.actions.put(action_type="Nope"),
        lambda: monitor.api.actions.put(action_type="InstanceStart"),
    ]
    for request in wrong:
        try:
            request()
        except APIError as error:
            assert "API fault" in str(error), error
        else:
            raise AssertionError("it was not refused")


def case_changes_a_drive(monitor, kernel):
    describe(monitor, kernel)
    with open(monitor.path("other"), "wb") as disk:
        disk.truncate(2 << 20)
    monitor.api.drive.patch(drive_id="rootfs", path_on_host=monitor.path("other"))
    drives = monitor.api.vm_config.get().json()["drives"]
    assert drives[0]["path_on_host"] == monitor.path("other"), drives


def case_pauses_and_resumes(monitor, kernel):
    describe(monitor, kernel)
    for state, word in [("Paused", "Paused"), ("Resumed", "Running")] * 3:
        monitor.api.vm.patch(state=state)
        info = monitor.api.describe.get().json()
        assert info["state"] == word, info


def case_keeps_metadata(monitor, kernel):
    value = {"latest": {"meta-data": {"ami-id": "x"}}}
    monitor.api.mmds.put(**value)
    assert monitor.api.mmds.get().json() == value
    monitor.api.mmds.patch(latest={"user": "y"})
    merged = monitor.api.mmds.get().json()
    assert merged == {"latest": {"meta-data": {"ami-id": "x"}, "user": "y"}}, json.dumps(merged)


def main():
    program, kernel = sys.argv[1:]
    passed, failed = 0, 0
    for name, case in list(globals().items()):
        if not name.startswith("case_"):
            continue
        title = "firecracker-python " + name.removeprefix("case_").replace("_", " ")
        monitor = Monitor(program)
        try:
            case(monitor, kernel)
            print(f"ok: {title}")
            passed += 1
        except Exception as error:
            print(f"FAILED: {title}: {type(error).__name__}: {error}")
            failed += 1
        finally:
            monitor.end()
    word = "FAILED" if failed else "ok"
    print(f"test result: {word}. {passed} passed; {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
