#include "common/sandbox_private.h"

#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define NOT_EXECUTABLE(number) SANDBOX_BITS(number, PROT_EXEC, 0)
#define NO_LIMIT_SET           SANDBOX_BITS(2, UINT64_MAX, 0)

const struct sandbox_rule SANDBOX_COMMON_RULES[] = {
    /* Descriptors that there are. */
    SANDBOX_ALLOW("read"),
    SANDBOX_ALLOW("readv"),
    SANDBOX_ALLOW("write"),
    SANDBOX_ALLOW("writev"),
    SANDBOX_ALLOW("pwritev2"), /* the log's, which must not wait */
    SANDBOX_ALLOW("close"),
    SANDBOX_ALLOW("lseek"), /* stdio's */
    SANDBOX_ALLOW("fstat"),
    {"newfstatat",
     0,
     {SANDBOX_BITS(3, AT_EMPTY_PATH, AT_EMPTY_PATH)},
     false}, /* fstat of glibc before 2.39 */
    {"fcntl", 0, {SANDBOX_ARGUMENT(1, F_GETFD)}, false},
    {"fcntl", 0, {SANDBOX_ARGUMENT(1, F_SETFD)}, false},
    {"fcntl", 0, {SANDBOX_ARGUMENT(1, F_GETFL)}, false},
    {"fcntl", 0, {SANDBOX_ARGUMENT(1, F_SETFL)}, false},
    {"fcntl", 0, {SANDBOX_ARGUMENT(1, F_DUPFD_CLOEXEC)}, false},
    {"ioctl", 0, {SANDBOX_ARGUMENT(1, FIONREAD)}, false},
    {"ioctl", 0, {SANDBOX_ARGUMENT(1, FIONBIO)}, false},
    {"ioctl", 0, {SANDBOX_ARGUMENT(1, TCGETS)}, false}, /* isatty */

    /* Sockets that there are. */
    SANDBOX_ALLOW("recvfrom"),
    SANDBOX_ALLOW("recvmsg"),
    /* Without fast open, which connects as connect would. */
    {"sendto", 0, {SANDBOX_BITS(3, MSG_FASTOPEN, 0)}, false},
    {"sendmsg", 0, {SANDBOX_BITS(2, MSG_FASTOPEN, 0)}, false},
    SANDBOX_ALLOW("shutdown"),
    SANDBOX_ALLOW("getsockopt"),
    {"setsockopt", 0, {SANDBOX_ARGUMENT(1, SOL_SOCKET)}, false},
    {"setsockopt", 0, {SANDBOX_ARGUMENT(1, IPPROTO_TCP)}, false},

    /* The event loop. */
    SANDBOX_ALLOW("epoll_wait"),
    SANDBOX_ALLOW("epoll_pwait"),
    SANDBOX_ALLOW("epoll_pwait2"),
    SANDBOX_ALLOW("epoll_ctl"),
    SANDBOX_ALLOW("poll"),
    SANDBOX_ALLOW("ppoll"),
    SANDBOX_ALLOW("timerfd_settime"),
    SANDBOX_ALLOW("clock_gettime"),
    SANDBOX_ALLOW("gettimeofday"),
    SANDBOX_ALLOW("time"),
    SANDBOX_ALLOW("restart_syscall"),

    /* Memory. */
    SANDBOX_ALLOW("brk"),
    {"mmap", 0, {NOT_EXECUTABLE(2)}, false},
    {"mmap2", 0, {NOT_EXECUTABLE(2)}, false},
    {"mprotect", 0, {NOT_EXECUTABLE(2)}, false},
    SANDBOX_ALLOW("mremap"),
    SANDBOX_ALLOW("munmap"),
    SANDBOX_ALLOW("madvise"),

    /* Threads that there are, and the process itself. */
    SANDBOX_ALLOW("futex"),
    SANDBOX_ALLOW("set_robust_list"),
    SANDBOX_ALLOW("rseq"),
    SANDBOX_ALLOW("sched_getaffinity"), /* malloc */
    SANDBOX_ALLOW("sched_yield"),
    SANDBOX_ALLOW("getrandom"),
    SANDBOX_ALLOW("getpid"),
    SANDBOX_ALLOW("gettid"),
    SANDBOX_ALLOW("exit"),
    SANDBOX_ALLOW("exit_group"),
    {"prlimit64", 0, {SANDBOX_ARGUMENT(0, 0), NO_LIMIT_SET}, false},
    SANDBOX_ALLOW("getrlimit"),

    /* Signals: an event loop that ends, and abort. Never SIGSYS, so that a call that ends the process does.
     */
    {"rt_sigaction", 0, {SANDBOX_ARGUMENT(0, SIGTERM)}, false},
    {"rt_sigaction", 0, {SANDBOX_ARGUMENT(0, SIGABRT)}, false},
    SANDBOX_ALLOW("rt_sigprocmask"),
    SANDBOX_ALLOW("rt_sigreturn"),
    {"tgkill", 0, {SANDBOX_ARGUMENT(2, SIGABRT)}, true},

#if SANDBOX_STRICT
    /* What libraries try, and can do without: malloc asks /proc how to give memory back, the first look at
     * the time would read /etc/localtime. */
    SANDBOX_REFUSE("open", EACCES),
    SANDBOX_REFUSE("openat", EACCES),
    SANDBOX_REFUSE("openat2", EACCES),
    SANDBOX_REFUSE("creat", EACCES),
    SANDBOX_REFUSE("access", EACCES),
    SANDBOX_REFUSE("faccessat", EACCES),
    SANDBOX_REFUSE("faccessat2", EACCES),
    SANDBOX_REFUSE("stat", EACCES),
    SANDBOX_REFUSE("lstat", EACCES),
    SANDBOX_REFUSE("statx", EACCES),
    {"newfstatat", EACCES, {SANDBOX_BITS(3, AT_EMPTY_PATH, 0)}, false},
    SANDBOX_REFUSE("readlink", EACCES),
    SANDBOX_REFUSE("readlinkat", EACCES),
    SANDBOX_REFUSE("prctl", EPERM), /* names for memory */
    SANDBOX_REFUSE("clone3", ENOSYS),
#else
    /* What the sanitizers do: read maps and programs for a report, and, to find leaks, stop all threads by a
     * process that traces them. */
    SANDBOX_ALLOW("open"),
    SANDBOX_ALLOW("openat"),
    SANDBOX_ALLOW("access"),
    SANDBOX_ALLOW("stat"),
    SANDBOX_ALLOW("lstat"),
    SANDBOX_ALLOW("pread64"),
    SANDBOX_ALLOW("readlink"),
    SANDBOX_ALLOW("readlinkat"),
    SANDBOX_ALLOW("getdents"),
    SANDBOX_ALLOW("getdents64"),
    {"newfstatat", 0, {SANDBOX_BITS(3, AT_EMPTY_PATH, 0)}, false},
    SANDBOX_ALLOW("getcwd"),
    SANDBOX_ALLOW("uname"),
    SANDBOX_ALLOW("prctl"),
    SANDBOX_ALLOW("sigaltstack"),
    SANDBOX_ALLOW("rt_sigsuspend"),
    SANDBOX_ALLOW("clone"),
    SANDBOX_ALLOW("wait4"),
    SANDBOX_ALLOW("ptrace"),
    SANDBOX_ALLOW("process_vm_readv"),
    SANDBOX_ALLOW("tkill"),
    SANDBOX_ALLOW("getppid"),
    SANDBOX_ALLOW("arch_prctl"),
    SANDBOX_ALLOW("pipe"),
    SANDBOX_ALLOW("pipe2"),
    SANDBOX_ALLOW("mincore"),
    SANDBOX_ALLOW("getrusage"),
    SANDBOX_ALLOW("geteuid"),
    SANDBOX_ALLOW("getuid"),
    SANDBOX_ALLOW("sysinfo"),
    SANDBOX_ALLOW("clock_nanosleep"),
    SANDBOX_ALLOW("nanosleep"),
    {"rt_sigaction", 0, {SANDBOX_ARGUMENT(0, SIGSEGV)}, false},
    {"rt_sigaction", 0, {SANDBOX_ARGUMENT(0, SIGBUS)}, false},
    {"rt_sigaction", 0, {SANDBOX_ARGUMENT(0, SIGFPE)}, false},
    {"rt_sigaction", 0, {SANDBOX_ARGUMENT(0, SIGILL)}, false},
    {"rt_sigaction", 0, {SANDBOX_ARGUMENT(0, SIGTRAP)}, false},
    {"rt_sigaction", 0, {SANDBOX_ARGUMENT(0, SIGXCPU)}, false},
    {"rt_sigaction", 0, {SANDBOX_ARGUMENT(0, SIGXFSZ)}, false},
#endif
};

const size_t SANDBOX_COMMON_RULE_COUNT = sizeof SANDBOX_COMMON_RULES / sizeof *SANDBOX_COMMON_RULES;

bool sandbox_is_strict(void)
{
    return SANDBOX_STRICT != 0;
}
