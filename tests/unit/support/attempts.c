#include "tests/unit/support/attempts.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

#include "common/clock.h"
#include "common/socket.h"
#include "tests/unit/check.h"

#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#define SYS_IO_URING_SETUP 425
#define SYS_PIDFD_OPEN     434

/* The outcome of a call that returns -1 with errno when it fails. */
static int outcome(long returned)
{
    return returned >= 0 ? 0 : errno;
}

#define ATTEMPT(name, call)                                                                                  \
    static int attempt_##name(const struct attempt_world *world)                                             \
    {                                                                                                        \
        (void)world;                                                                                         \
        return outcome(call);                                                                                \
    }

/* ---- What nobody may. */

ATTEMPT(open, open("/etc/passwd", O_RDONLY | O_CLOEXEC))
ATTEMPT(open_device, open("/dev/urandom", O_RDONLY | O_CLOEXEC))
ATTEMPT(open_to_write, open("/tmp/keyless-attempt", O_WRONLY | O_CREAT | O_CLOEXEC, 0600))
ATTEMPT(stat, access("/etc/passwd", F_OK))
ATTEMPT(unlink, unlink("/tmp/keyless-attempt"))
ATTEMPT(mkdir, mkdir("/tmp/keyless-attempt", 0700))
ATTEMPT(chdir, chdir("/"))
ATTEMPT(execve, execl("/bin/true", "true", (char *)NULL))
ATTEMPT(execveat, syscall(SYS_execveat, AT_FDCWD, "/bin/true", NULL, NULL, 0))
ATTEMPT(fork, syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0)) /* the library's blocks SIGSYS meanwhile */
ATTEMPT(vfork, syscall(SYS_vfork))
ATTEMPT(clone3, syscall(SYS_clone3, NULL, 0))
ATTEMPT(ptrace, ptrace(PTRACE_ATTACH, world->other, NULL, NULL))
ATTEMPT(process_vm_readv, syscall(SYS_process_vm_readv, world->other, NULL, 0, NULL, 0, 0))
ATTEMPT(pidfd_open, syscall(SYS_PIDFD_OPEN, world->other, 0))
ATTEMPT(kill, kill(world->other, 0))
ATTEMPT(kill_itself, kill(world->pid, SIGTERM))
ATTEMPT(abort_other, syscall(SYS_tgkill, world->other, world->other, SIGABRT))
ATTEMPT(bind, bind(world->stream, (struct sockaddr *)&(struct sockaddr_in){.sin_family = AF_INET},
                   sizeof(struct sockaddr_in)))
ATTEMPT(listen, listen(world->stream, 1))
ATTEMPT(socket_netlink, socket(AF_NETLINK, SOCK_RAW, 0))
ATTEMPT(socket_udp, socket(AF_INET, SOCK_DGRAM, 0))
ATTEMPT(socket_mptcp, socket(AF_INET, SOCK_STREAM, 262))
ATTEMPT(socket_packet, socket(AF_PACKET, SOCK_RAW, 0))
ATTEMPT(ip_option, setsockopt(world->stream, IPPROTO_IP, IP_TTL, &(int){1}, sizeof(int)))
ATTEMPT(executable_memory, (long)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
ATTEMPT(executable_page, mprotect(world->page, 4096, PROT_READ | PROT_EXEC))
ATTEMPT(setuid, setuid(0))
ATTEMPT(unshare, unshare(CLONE_NEWUSER))
ATTEMPT(io_uring, syscall(SYS_IO_URING_SETUP, 1, NULL))
ATTEMPT(bpf, syscall(SYS_bpf, 0, NULL, 0))
ATTEMPT(set_limit, setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}))
ATTEMPT(dumpable, prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
ATTEMPT(own_signals, fcntl(world->pair[0], F_SETOWN, world->other))
ATTEMPT(type_for_terminal, ioctl(world->pair[0], TIOCSTI, ""))
ATTEMPT(catch_again, sigaction(SIGSYS, &(struct sigaction){.sa_handler = SIG_IGN}, NULL))

/* TCP's fast open (RFC 7413) sends and connects in one. */
static int connect_by_sendto(const struct attempt_world *world)
{
    const struct sockaddr *to = (const struct sockaddr *)&world->address;
    return sendto(world->stream, "x", 1, MSG_FASTOPEN, to, sizeof world->address) < 0 ? errno : 0;
}

static int connect_by_sendmsg(const struct attempt_world *world)
{
    struct sockaddr_in to = world->address;
    struct iovec octet = {.iov_base = "x", .iov_len = 1};
    const struct msghdr message = {
        .msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &octet, .msg_iovlen = 1};
    return sendmsg(world->stream, &message, MSG_FASTOPEN) < 0 ? errno : 0;
}

static const struct attempt FORBIDDEN[] = {
    {"connect by fast open, sendto", connect_by_sendto, ATTEMPT_KILLED, false},
    {"connect by fast open, sendmsg", connect_by_sendmsg, ATTEMPT_KILLED, false},
    {"open a file", attempt_open, EACCES, true},
    {"open a device", attempt_open_device, EACCES, true},
    {"make a file", attempt_open_to_write, EACCES, false},
    {"look at a file", attempt_stat, EACCES, true},
    {"remove a file", attempt_unlink, ATTEMPT_KILLED, false},
    {"make a directory", attempt_mkdir, ATTEMPT_KILLED, false},
    {"change directory", attempt_chdir, ATTEMPT_KILLED, false},
    {"execute a program", attempt_execve, ATTEMPT_KILLED, false},
    {"execute a program otherwise", attempt_execveat, ATTEMPT_KILLED, false},
    {"fork", attempt_fork, ATTEMPT_KILLED, true},
    {"vfork", attempt_vfork, ATTEMPT_KILLED, false},
    {"clone3", attempt_clone3, ENOSYS, true},
    {"trace another process", attempt_ptrace, ATTEMPT_KILLED, true},
    {"read another process", attempt_process_vm_readv, ATTEMPT_KILLED, true},
    {"open another process", attempt_pidfd_open, ATTEMPT_KILLED, false},
    {"signal another process", attempt_kill, ATTEMPT_KILLED, false},
    {"signal itself", attempt_kill_itself, ATTEMPT_KILLED, false},
    {"abort another process", attempt_abort_other, ATTEMPT_KILLED, false},
    {"bind", attempt_bind, ATTEMPT_KILLED, false},
    {"listen", attempt_listen, ATTEMPT_KILLED, false},
    {"netlink", attempt_socket_netlink, ATTEMPT_KILLED, false},
    {"UDP", attempt_socket_udp, ATTEMPT_KILLED, false},
    {"multipath TCP", attempt_socket_mptcp, ATTEMPT_KILLED, false},
    {"packets", attempt_socket_packet, ATTEMPT_KILLED, false},
    {"options of IP", attempt_ip_option, ATTEMPT_KILLED, false},
    {"map executable memory", attempt_executable_memory, ATTEMPT_KILLED, false},
    {"make memory executable", attempt_executable_page, ATTEMPT_KILLED, false},
    {"become root", attempt_setuid, ATTEMPT_KILLED, false},
    {"new namespaces", attempt_unshare, ATTEMPT_KILLED, false},
    {"io_uring", attempt_io_uring, ATTEMPT_KILLED, false},
    {"bpf", attempt_bpf, ATTEMPT_KILLED, false},
    {"set a limit", attempt_set_limit, ATTEMPT_KILLED, false},
    {"become dumpable", attempt_dumpable, EPERM, true},
    {"signals for what arrives", attempt_own_signals, ATTEMPT_KILLED, false},
    {"type for a terminal", attempt_type_for_terminal, ATTEMPT_KILLED, false},
    {"ignore the end", attempt_catch_again, ATTEMPT_KILLED, false},
};

/* ---- What everybody must be able to. */

static int attempt_memory(const struct attempt_world *world)
{
    (void)world;
    for (size_t size = 1; size < (size_t)64 << 20; size *= 4) {
        char *memory = malloc(size);
        char *more = memory != NULL ? realloc(memory, 2 * size) : NULL;
        if (more == NULL)
            return ENOMEM;
        memset(more, 1, 2 * size);
        free(more);
    }
    return 0;
}

static int attempt_time(const struct attempt_world *world)
{
    (void)world;
    time_t now = time(NULL);
    struct tm utc, local;
    struct timespec precise;
    bool told = clock_now() > 0 && clock_gettime(CLOCK_REALTIME, &precise) == 0 &&
                gmtime_r(&now, &utc) != NULL && localtime_r(&now, &local) != NULL;
    return told ? 0 : EINVAL;
}

static int attempt_libcrypto(const struct attempt_world *world)
{
    (void)world;
    unsigned char random[32], digest[EVP_MAX_MD_SIZE];
    unsigned size;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    bool made = key != NULL && RAND_bytes(random, sizeof random) == 1 &&
                EVP_Digest(random, sizeof random, digest, &size, EVP_sha384(), NULL) == 1;
    EVP_PKEY_free(key);
    return made ? 0 : EIO;
}

static int attempt_pass_descriptor(const struct attempt_world *world)
{
    struct failure why;
    char octet;
    if (socket_send_message(world->pair[0], "x", 1, world->pair[0], &why) != RESULT_OK)
        return errno;
    return outcome(read(world->pair[1], &octet, 1));
}

ATTEMPT(write, write(world->pair[0], "x", 1))
ATTEMPT(tcp_option, setsockopt(world->stream, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int)))
ATTEMPT(duplicate, fcntl(world->pair[0], F_DUPFD_CLOEXEC, 0))
ATTEMPT(print_error, dprintf(world->pair[0], "%s", strerror(EACCES)))
ATTEMPT(get_limit, getrlimit(RLIMIT_NOFILE, &(struct rlimit){0, 0}))
ATTEMPT(fstat, fstat(world->pair[0], &(struct stat){0}))

#ifdef __SANITIZE_ADDRESS__
/* Stops all threads by a process that traces them; one that was in its way would kill them. */
static int attempt_find_leaks(const struct attempt_world *world)
{
    (void)world;
    return __lsan_do_recoverable_leak_check() == 0 ? 0 : EIO;
}
#endif

static const struct attempt ALLOWED[] = {
#ifdef __SANITIZE_ADDRESS__
    {"find leaks", attempt_find_leaks, ATTEMPT_DONE, false},
#endif
    {"memory", attempt_memory, ATTEMPT_DONE, false},
    {"time", attempt_time, ATTEMPT_DONE, false},
    {"libcrypto", attempt_libcrypto, ATTEMPT_DONE, false},
    {"pass a descriptor", attempt_pass_descriptor, ATTEMPT_DONE, false},
    {"write", attempt_write, ATTEMPT_DONE, false},
    {"options of TCP", attempt_tcp_option, ATTEMPT_DONE, false},
    {"duplicate", attempt_duplicate, ATTEMPT_DONE, false},
    {"the text of an error", attempt_print_error, ATTEMPT_DONE, false},
    {"see a limit", attempt_get_limit, ATTEMPT_DONE, false},
    {"look at a descriptor", attempt_fstat, ATTEMPT_DONE, false},
};

/* ---- What some may. */

int attempt_socket_inet(const struct attempt_world *world)
{
    (void)world;
    return outcome(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

/* A kernel without IPv6 says so, which it does only where the filter lets it. */
int attempt_socket_inet6(const struct attempt_world *world)
{
    (void)world;
    int error = outcome(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    return error == EAFNOSUPPORT ? 0 : error;
}

int attempt_socket_unix(const struct attempt_world *world)
{
    (void)world;
    return outcome(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

int attempt_socketpair(const struct attempt_world *world)
{
    (void)world;
    int ends[2];
    return outcome(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends));
}

int attempt_connect(const struct attempt_world *world)
{
    return outcome(connect(world->stream, (const struct sockaddr *)&world->address, sizeof world->address));
}

int attempt_accept(const struct attempt_world *world)
{
    return outcome(accept4(world->listener, NULL, NULL, SOCK_CLOEXEC));
}

int attempt_getsockname(const struct attempt_world *world)
{
    struct sockaddr_in name;
    socklen_t size = sizeof name;
    return outcome(getsockname(world->listener, (struct sockaddr *)&name, &size));
}

int attempt_getppid(const struct attempt_world *world)
{
    (void)world;
    return outcome(getppid());
}

/* ---- Running them. */

enum { NO_WORLD = 200, NOT_CONFINED, NO_FILTER };

static bool make_world(struct attempt_world *world)
{
    struct sockaddr *name = (struct sockaddr *)&world->address;
    socklen_t size = sizeof world->address;
    world->address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    world->pid = getpid();
    world->other = getppid();
    world->stream = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    world->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    world->page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return world->page != MAP_FAILED && socket_pair(SOCK_STREAM, world->pair, NULL) == RESULT_OK &&
           bind(world->listener, name, size) == 0 && listen(world->listener, 1) == 0 &&
           getsockname(world->listener, name, &size) == 0;
}

/* In the process that tries: its exit status. */
static int confined(const struct sandbox_profile *profile, sandbox_culprit *culprit,
                    const struct attempt *row)
{
    struct attempt_world world;
    struct sandbox_state state = {0};
    struct failure why;
    if (!make_world(&world) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return NO_WORLD;
    if (sandbox_restrict_files(profile, &state, &why) != RESULT_OK ||
        sandbox_filter_calls(profile, culprit, &state, &why) != RESULT_OK)
        return NOT_CONFINED;
    return state.filter ? row->attempt(&world) : NO_FILTER;
}

static int run(const struct sandbox_profile *profile, sandbox_culprit *culprit, const struct attempt *row)
{
    int status;
    atomic_store(culprit, 0);
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(confined(profile, culprit, row));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        return ATTEMPT_KILLED;
    if (!WIFEXITED(status))
        fail_msg("%s: killed by signal %d after call %u", row->name, WTERMSIG(status), atomic_load(culprit));
    return WEXITSTATUS(status);
}

static void check(const struct sandbox_profile *profile, const struct attempt *row)
{
    sandbox_culprit *culprit =
        mmap(NULL, sizeof *culprit, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(culprit, MAP_FAILED);
    int found = run(profile, culprit, row);
    bool told = atomic_load(culprit) != 0;
    (void)munmap(culprit, sizeof *culprit);
    if (found != row->outcome)
        fail_msg("%s: the outcome is %d, not %d", row->name, found, row->outcome);
    CHECK(row->name, told == (found == ATTEMPT_KILLED));
}

void attempts_need_filter(void)
{
    const char *lack = sandbox_filter_lack(&(const struct sandbox_state){.filter = false});
    if (access("/proc/sys/kernel/seccomp/actions_avail", F_OK) == 0 && strstr(lack, "libseccomp") == NULL)
        return;
    print_message("skipped: %s\n", lack);
    skip();
}

void attempts_check(const struct sandbox_profile *profile, const struct attempt *attempts, size_t count)
{
    attempts_need_filter();
    for (size_t i = 0; i < count; i++)
        if (!attempts[i].strict || sandbox_is_strict())
            check(profile, &attempts[i]);
}

void attempts_check_common(const struct sandbox_profile *profile)
{
    attempts_check(profile, FORBIDDEN, COUNT_OF(FORBIDDEN));
    attempts_check(profile, ALLOWED, COUNT_OF(ALLOWED));
}
