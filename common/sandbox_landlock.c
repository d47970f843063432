#include "common/sandbox_private.h"

#include <errno.h>
#include <unistd.h>

#include <sys/syscall.h>

/* Of Linux's interface, which the headers of many systems do not have, or not all of. */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#endif
#ifndef SYS_landlock_restrict_self
#define SYS_landlock_restrict_self 446
#endif
#define ASK_VERSION 1u /* LANDLOCK_CREATE_RULESET_VERSION */

/* LANDLOCK_ACCESS_FS_*: all the bits that a version knows; the kernel refuses those that it does not. */
enum {
    FILES_READ_FILE = 1 << 2,
    FILES_READ_DIR = 1 << 3,
    FILES_1 = (1 << 13) - 1,
    FILES_2 = FILES_1 | 1 << 13, /* to another directory */
    FILES_3 = FILES_2 | 1 << 14, /* truncating */
    FILES_5 = FILES_3 | 1 << 15, /* ioctl of devices */
};
/* LANDLOCK_ACCESS_NET_* and LANDLOCK_SCOPE_* */
enum { NET_BIND_TCP = 1 << 0, NET_CONNECT_TCP = 1 << 1 };
enum { SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0, SCOPE_SIGNAL = 1 << 1 };

#define VERSION_MAX 6 /* later ones have nothing that we would use */

/* struct landlock_ruleset_attr. What is handled and not allowed by a rule is forbidden; there are no rules.
 */
struct ruleset {
    uint64_t files, net, scope;
};

static unsigned version(void)
{
    long found = syscall(SYS_landlock_create_ruleset, NULL, 0, ASK_VERSION);
    if (found <= 0)
        return 0;
    return found < VERSION_MAX ? (unsigned)found : VERSION_MAX;
}

static struct ruleset ruleset_of(unsigned version, const struct sandbox_profile *profile)
{
    static const uint64_t FILES[VERSION_MAX + 1] = {0, FILES_1, FILES_2, FILES_3, FILES_3, FILES_5, FILES_5};
    struct ruleset rules = {.files = FILES[version]};
    if (!sandbox_is_strict())
        rules.files &= ~(uint64_t)(FILES_READ_FILE | FILES_READ_DIR);
    if (version >= 4)
        rules.net = profile->connects ? NET_BIND_TCP : NET_BIND_TCP | NET_CONNECT_TCP;
    if (version >= 6)
        rules.scope = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL;
    return rules;
}

enum result sandbox_restrict_files(const struct sandbox_profile *profile, struct sandbox_state *state,
                                   struct failure *why)
{
    state->landlock = 0;
    unsigned found = version();
    if (found == 0)
        return RESULT_OK;
    const struct ruleset rules = ruleset_of(found, profile);
    /* A kernel that knows less takes the longer structure as long as what it does not know is zero. */
    long fd = syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
    if (fd < 0)
        return failure_set_errno(why, "cannot make Landlock rules");
    long error = syscall(SYS_landlock_restrict_self, (int)fd, 0);
    int saved = errno;
    (void)close((int)fd);
    errno = saved;
    if (error != 0)
        return failure_set_errno(why, "cannot apply Landlock rules");
    state->landlock = found;
    return RESULT_OK;
}

const char *sandbox_landlock_lack(const struct sandbox_state *state)
{
    return state->landlock > 0 ? NULL : "this kernel has no Landlock";
}

/* ---- The state as a number. */

uint32_t sandbox_state_pack(const struct sandbox_state *state)
{
    return state->landlock << 1 | (state->filter ? 1u : 0u);
}

struct sandbox_state sandbox_state_unpack(uint32_t packed)
{
    return (struct sandbox_state){.filter = (packed & 1) != 0, .landlock = packed >> 1};
}
