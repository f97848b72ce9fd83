"""Which system calls may a program not make? A filter for Linux's seccomp, written out as bytes.

A program under test computes: it needs memory, its pipe and the files of the standard library. The
filter answers EPERM to everything that starts processes, talks to others, changes what is visible,
or opens parts of the kernel with a history of holes. It is classic BPF as described in the kernel's
Documentation/userspace-api/seccomp_filter.rst; the call numbers are those of the two tables
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h. pyseccomp is not used:
it needs the C library libseccomp, which plain machines lack, for what is a list of numbers here.
"""

import platform
import struct

REFUSED = """
socket 41 198, socketpair 53 199, connect 42 203, bind 49 200, sendto 44 206, sendmsg 46 211,
fork 57 -, vfork 58 -, clone 56 220, clone3 435 435, execve 59 221, execveat 322 281,
kill 62 129, tkill 200 130, tgkill 234 131, rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240,
setpriority 141 140, ioprio_set 251 30, sched_setaffinity 203 122, sched_setscheduler 144 119,
sched_setparam 142 118, sched_setattr 314 274, migrate_pages 256 238, move_pages 279 239,
pidfd_open 434 434, pidfd_getfd 438 438, pidfd_send_signal 424 424,
ptrace 101 117, process_vm_readv 310 270, process_vm_writev 311 271, kcmp 312 272,
mount 165 40, umount2 166 39, pivot_root 155 41, chroot 161 51, unshare 272 97, setns 308 268,
open_tree 428 428, move_mount 429 429, fsopen 430 430, fsconfig 431 431,
fsmount 432 432, fspick 433 433, mount_setattr 442 442, mknod 133 -, mknodat 259 33,
add_key 248 217, request_key 249 218, keyctl 250 219, bpf 321 280, perf_event_open 298 241,
io_uring_setup 425 425, io_uring_enter 426 426, io_uring_register 427 427,
userfaultfd 323 282, memfd_create 319 279, name_to_handle_at 303 264, open_by_handle_at 304 265,
init_module 175 105, finit_module 313 273, delete_module 176 106, kexec_load 246 104,
kexec_file_load 320 294, modify_ldt 154 -, iopl 172 -, ioperm 173 -, syslog 103 116,
io_setup 206 0, vmsplice 278 75, process_madvise 440 440, process_mrelease 448 448,
settimeofday 164 170, clock_settime 227 112, clock_adjtime 305 266, adjtimex 159 171,
sethostname 170 161, setdomainname 171 162, reboot 169 142, swapon 167 224, swapoff 168 225,
acct 163 89, quotactl 179 60, personality 135 92, shmget 29 194, msgget 68 186, semget 64 190,
mq_open 240 180, inotify_init1 294 26, fanotify_init 300 262, setuid 105 146, setgid 106 144,
prlimit64 302 261
"""
"""Name, number on x86-64, number on arm64 (`-`: there is no such call)."""

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""Machine -> its AUDIT_ARCH_* constant, and which number of an entry of REFUSED is its own."""

LOAD_WORD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
"""BPF_LD | BPF_W | BPF_ABS, then BPF_JMP | BPF_JEQ, BPF_JMP | BPF_JGE, BPF_RET, each | BPF_K."""

ALLOW, KILL_PROCESS, REFUSE = 0x7FFF0000, 0x80000000, 0x00050001
"""SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO | EPERM."""

NUMBER_OFFSET, ARCHITECTURE_OFFSET = 0, 4  # bytes into struct seccomp_data
X32_BIT = 0x40000000  # marks the second set of numbers that x86-64 answers to


def refused_calls(machine: str) -> dict[str, int]:
    """Return name -> number of the refused calls on this kind of machine; {} if it is unknown."""
    if machine not in ARCHITECTURES:
        return {}
    column = ARCHITECTURES[machine][1]
    entries = (entry.split() for entry in REFUSED.split(","))
    return {name: int(numbers[column]) for name, *numbers in entries if numbers[column] != "-"}


def filter_program(machine: str = "") -> bytes:
    """Return the filter as BPF code, 8 bytes an instruction; b"" if the machine is unknown.

    Args:
        machine: a key of ARCHITECTURES; "" = the machine that this runs on.

    A call under another architecture's numbers ends the process, for they would mean other calls.
    """
    machine = machine or platform.machine()
    numbers = sorted(set(refused_calls(machine).values()))
    if not numbers:
        return b""
    tests = [(JUMP_EQUAL, number) for number in numbers]
    if machine == "x86_64":
        tests.insert(0, (JUMP_AT_LEAST, X32_BIT))
    # Each instruction: operation, instructions to skip if a test holds and if not, operand.
    instructions = [
        (LOAD_WORD, 0, 0, ARCHITECTURE_OFFSET),
        (JUMP_EQUAL, 1, 0, ARCHITECTURES[machine][0]),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD_WORD, 0, 0, NUMBER_OFFSET),
    ]
    for index, (operation, operand) in enumerate(tests):
        to_the_last_instruction = len(tests) - index
        instructions.append((operation, to_the_last_instruction, 0, operand))
    instructions += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)
