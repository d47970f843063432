"""System calls made in another process's place, by ptrace: what somebody can do who has taken it over. Linux on x86-64."""

import contextlib
import ctypes
import errno
import os
import pathlib
import platform
import re
import signal

from harness import wait_until

SUPPORTED = platform.machine() == "x86_64" and os.geteuid() == 0
REASON = "needs root and x86-64"

CALLS = {"openat": 257, "socket": 41, "connect": 42, "execve": 59, "fork": 57, "kill": 62, "mkdir": 83, "ptrace": 101}

_ATTACH, _DETACH, _SYSCALL, _GETREGS, _SETREGS, _SETOPTIONS = 16, 17, 24, 12, 13, 0x4200
_SYSGOOD, _WALL = 1, 0x40000000
_SYSCALL_INSTRUCTION = b"\x0f\x05"
_NAMES = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base "
          "ds es fs gs").split()


class _Registers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in _NAMES]


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request, pid, data=0):
    if _libc.ptrace(request, pid, 0, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def try_to_attach(pid):
    """0, or the errno of an attempt to trace the process."""
    try:
        _ptrace(_ATTACH, pid)
    except OSError as error:
        return error.errno
    os.waitpid(pid, _WALL)
    _ptrace(_DETACH, pid)
    return 0


def _registers(pid):
    found = _Registers()
    _ptrace(_GETREGS, pid, ctypes.addressof(found))
    return found


def _set(pid, registers):
    _ptrace(_SETREGS, pid, ctypes.addressof(registers))


def _in_a_call(pid, registers):
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        memory.seek(registers.rip - 2)
        return memory.read(2) == _SYSCALL_INSTRUCTION


def _pending(pid, number):
    (mask,) = re.findall(r"^SigPnd:\s+([0-9a-f]+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(mask, 16) >> (number - 1) & 1


def _run(pid):
    """Lets the call be made. Its result; None: it is answered with SIGSYS, which is on its way then."""
    stops = 0
    while stops < 2:  # the call's entry and its exit; it has both even when it is not made
        _ptrace(_SYSCALL, pid)
        _, status = os.waitpid(pid, _WALL)
        assert os.WIFSTOPPED(status), "the process has ended before its time"
        stops += os.WSTOPSIG(status) == signal.SIGTRAP | 0x80
    return None if _pending(pid, signal.SIGSYS) else ctypes.c_longlong(_registers(pid).rax).value


def _attach(pid):
    """Attaches while the process waits in a system call; its registers."""
    def attached():
        _ptrace(_ATTACH, pid)
        os.waitpid(pid, _WALL)
        registers = _registers(pid)
        if _in_a_call(pid, registers):
            return registers
        _ptrace(_DETACH, pid)
        return None

    return wait_until(attached, f"{pid} to wait in a system call")


def call_in(process, name, *arguments):
    """Has the process make the system call: its result (-errno); None: it is being killed for it."""
    pid = process.pid
    before = _attach(pid)
    _ptrace(_SETOPTIONS, pid, _SYSGOOD)
    changed = _Registers.from_buffer_copy(before)
    changed.rip -= 2
    changed.rax = CALLS[name]
    changed.orig_rax = ctypes.c_ulonglong(-1).value
    for register, value in zip(("rdi", "rsi", "rdx", "r10"), [*arguments, 0, 0, 0, 0]):
        setattr(changed, register, ctypes.c_ulonglong(value).value)
    _set(pid, changed)
    result = _run(pid)
    if result is None:
        _ptrace(_DETACH, pid)
        return None
    before.rax = ctypes.c_ulonglong(-errno.EINTR).value  # of the call that it was in
    before.orig_rax = ctypes.c_ulonglong(-1).value
    _set(pid, before)
    _ptrace(_DETACH, pid)
    return result


def threads_status(process):
    """/proc/PID/task/*/status of all threads, each as a dict."""
    found = []
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            lines = (task / "status").read_text().splitlines()
            found.append({key: value.strip() for key, _, value in (line.partition(":") for line in lines)})
    return found
