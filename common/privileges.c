#include "common/process_private.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#ifdef __has_feature
#define PRIVILEGES_HAS_FEATURE(feature) __has_feature(feature)
#else
#define PRIVILEGES_HAS_FEATURE(feature) 0
#endif

/* LeakSanitizer stops its own process by ptrace at exit, which needs a dumpable one; and a change of user ids
 * takes the flag away (suid_dumpable). So with the sanitizers it is on, otherwise off. */
#if defined(__SANITIZE_ADDRESS__) || PRIVILEGES_HAS_FEATURE(address_sanitizer)
#define PRIVILEGES_DUMPABLE 1
#else
#define PRIVILEGES_DUMPABLE 0
#endif

#define DEFAULT_USER "nobody"

static enum result find_user(const char *name, struct passwd **user, struct failure *why)
{
    errno = 0;
    *user = getpwnam(name);
    if (*user == NULL && errno != 0)
        return failure_set_errno(why, "cannot look up user %s", name);
    if (*user == NULL)
        return failure_set(why, RESULT_CONFIG, "user %s does not exist", name);
    if ((*user)->pw_uid == 0)
        return failure_set(why, RESULT_CONFIG, "user %s is root: name one without privileges", name);
    return RESULT_OK;
}

enum result process_check_user(const char *user, struct failure *why)
{
    struct passwd *entry;
    return geteuid() == 0 ? find_user(user != NULL ? user : DEFAULT_USER, &entry, why) : RESULT_OK;
}

bool process_changes_user(const char *user, uid_t *id)
{
    struct passwd *entry;
    if (geteuid() != 0 || find_user(user != NULL ? user : DEFAULT_USER, &entry, NULL) != RESULT_OK)
        return false;
    *id = entry->pw_uid;
    return true;
}

void process_tell_user(const char *user, bool *told, struct log *log)
{
    if (*told || user != NULL || geteuid() != 0)
        return;
    *told = true;
    log_warn(log, "no user is set", log_text("user", DEFAULT_USER),
             log_reason("started as root: children run as " DEFAULT_USER));
}

static bool can_become_root(void)
{
    return setuid(0) == 0 || seteuid(0) == 0;
}

/* Root's group among the groups would still open files; getgroups tells what initgroups really did. */
static bool has_group_root(gid_t own)
{
    gid_t groups[256];
    int count = getgroups((int)(sizeof groups / sizeof *groups), groups);
    for (int i = 0; i < count; i++)
        if (groups[i] == 0 && own != 0)
            return true;
    return count < 0 || getegid() != own || getgid() != own;
}

static enum result become(const struct passwd *user, struct failure *why)
{
    if (initgroups(user->pw_name, user->pw_gid) != 0)
        return failure_set_errno(why, "cannot take the groups of user %s", user->pw_name);
    if (setresgid(user->pw_gid, user->pw_gid, user->pw_gid) != 0 ||
        setresuid(user->pw_uid, user->pw_uid, user->pw_uid) != 0)
        return failure_set_errno(why, "cannot become user %s", user->pw_name);
    if (getuid() != user->pw_uid || geteuid() != user->pw_uid || has_group_root(user->pw_gid) ||
        can_become_root())
        return failure_set(why, RESULT_SYSTEM, "became user %s, but not for good", user->pw_name);
    return RESULT_OK;
}

static enum result drop_capabilities(struct failure *why)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];
    memset(none, 0, sizeof none);
    /* Ambient ones would come back with the next execve; kernels before 4.3 have none. */
    (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (syscall(SYS_capset, &header, none) != 0)
        return failure_set_errno(why, "cannot drop capabilities");
    return RESULT_OK;
}

enum result process_forbid_dumps(struct failure *why)
{
    struct rlimit none = {.rlim_cur = 0, .rlim_max = 0};
    if (setrlimit(RLIMIT_CORE, &none) != 0)
        return failure_set_errno(why, "cannot forbid core dumps");
    if (prctl(PR_SET_DUMPABLE, PRIVILEGES_DUMPABLE, 0, 0, 0) != 0)
        return failure_set_errno(why, "cannot forbid tracing");
    return RESULT_OK;
}

static enum result forbid_new_privileges(struct failure *why)
{
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? RESULT_OK
                                                       : failure_set_errno(why, "cannot set no_new_privs");
}

enum result process_guard_master(struct failure *why)
{
    enum result result = forbid_new_privileges(why);
    return result == RESULT_OK ? process_forbid_dumps(why) : result;
}

enum result process_drop_privileges(const char *user, struct failure *why)
{
    enum result result = RESULT_OK;
    if (geteuid() == 0) {
        struct passwd *entry;
        result = find_user(user != NULL ? user : DEFAULT_USER, &entry, why);
        if (result == RESULT_OK)
            result = become(entry, why);
    }
    if (result == RESULT_OK)
        result = drop_capabilities(why);
    if (result == RESULT_OK)
        result = forbid_new_privileges(why);
    return result == RESULT_OK ? process_forbid_dumps(why) : result;
}

void process_keep_standard_descriptors(void)
{
    int fd;
    do {
        fd = open("/dev/null",
                  O_RDWR); /* the lowest free number; not closed by exec, as those of others are not */
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd > STDERR_FILENO)
        (void)close(fd);
}

unsigned process_cores(void)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0 && CPU_COUNT(&allowed) > 0)
        return (unsigned)CPU_COUNT(&allowed);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
}

void process_raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}
