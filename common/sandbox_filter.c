#include "common/sandbox_private.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef KEYLESS_HAVE_SECCOMP

#include <linux/seccomp.h>
#include <seccomp.h>

#include <sys/syscall.h>

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1 /* si_code of a call that a filter has stopped */
#endif

/* ---- How a forbidden call ends the process. */

static sandbox_culprit *culprit_place;

/*
 * A filter that killed by itself would not say why. With the handler gone (SA_RESETHAND), the next forbidden
 * call ends the process by the same signal; that one is forbidden in all profiles. Whoever has taken the
 * process over may have changed what is kept here, but not have the call done.
 */
static void on_forbidden(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    if (info->si_code == SYS_SECCOMP && culprit_place != NULL)
        atomic_store_explicit(culprit_place, (uint32_t)info->si_syscall + 1, memory_order_relaxed);
    (void)syscall(SYS_execve, NULL, NULL, NULL);
    _exit(128 + SIGSYS); /* sent by somebody before there was a filter */
}

static enum result catch_forbidden(sandbox_culprit *culprit, struct failure *why)
{
    struct sigaction action = {.sa_sigaction = on_forbidden,
                               .sa_flags = (int)(SA_SIGINFO | SA_RESETHAND | SA_NODEFER)};
    culprit_place = culprit;
    (void)sigemptyset(&action.sa_mask);
    return sigaction(SIGSYS, &action, NULL) == 0 ? RESULT_OK : failure_set_errno(why, "cannot catch SIGSYS");
}

/* ---- Making the filter. */

static enum result filter_failed(const char *what, int error, struct failure *why)
{
    return failure_set(why, RESULT_SYSTEM, "cannot make the filter of system calls: %s: %s", what,
                       strerror(-error));
}

static unsigned comparisons(const struct sandbox_rule *rule, struct scmp_arg_cmp *to)
{
    unsigned count = 0;
    for (size_t i = 0; i < SANDBOX_TESTS && rule->tests[i].mask != 0; i++)
        to[count++] = SCMP_CMP64(rule->tests[i].argument, SCMP_CMP_MASKED_EQ, rule->tests[i].mask,
                                 rule->tests[i].value);
    if (rule->own_process)
        to[count++] = SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, UINT32_MAX, (scmp_datum_t)getpid());
    return count;
}

static enum result add_rule(scmp_filter_ctx filter, const struct sandbox_rule *rule, struct failure *why)
{
    struct scmp_arg_cmp tests[SANDBOX_TESTS + 1];
    int call = seccomp_syscall_resolve_name(rule->call);
    if (call == __NR_SCMP_ERROR)
        return RESULT_OK; /* newer than this libseccomp */
    uint32_t action = rule->error == 0 ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO((uint32_t)rule->error);
    int error = seccomp_rule_add_array(filter, action, call, comparisons(rule, tests), tests);
    return error == 0 ? RESULT_OK : filter_failed(rule->call, error, why);
}

static enum result add_rules(scmp_filter_ctx filter, const struct sandbox_rule *rules, size_t count,
                             struct failure *why)
{
    enum result result = RESULT_OK;
    for (size_t i = 0; i < count && result == RESULT_OK; i++)
        result = add_rule(filter, &rules[i], why);
    return result;
}

static enum result set_attributes(scmp_filter_ctx filter, struct failure *why)
{
    const struct {
        enum scmp_filter_attr name;
        uint32_t value;
        const char *what;
    } ATTRIBUTES[] = {
        {SCMP_FLTATR_CTL_TSYNC, 1, "all threads"},
        /* A call by the numbers of another architecture is none of ours. */
        {SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS, "architectures"},
        {SCMP_FLTATR_CTL_OPTIMIZE, 2, "order"}, /* a tree: a look-up is a few comparisons */
    };
    for (size_t i = 0; i < sizeof ATTRIBUTES / sizeof *ATTRIBUTES; i++) {
        int error = seccomp_attr_set(filter, ATTRIBUTES[i].name, ATTRIBUTES[i].value);
        if (error != 0)
            return filter_failed(ATTRIBUTES[i].what, error, why);
    }
    return RESULT_OK;
}

static enum result load_filter(scmp_filter_ctx filter, const struct sandbox_profile *profile,
                               struct failure *why)
{
    enum result result = set_attributes(filter, why);
    if (result == RESULT_OK)
        result = add_rules(filter, SANDBOX_COMMON_RULES, SANDBOX_COMMON_RULE_COUNT, why);
    if (result == RESULT_OK)
        result = add_rules(filter, profile->rules, profile->rule_count, why);
    if (result != RESULT_OK)
        return result;
    int error = seccomp_load(filter);
    return error == 0 ? RESULT_OK : filter_failed("loading", error, why);
}

/* From 4.14 on, if it was built so; and unless an outer sandbox keeps us from it. */
static bool kernel_has_filters(void)
{
    const uint32_t action = SECCOMP_RET_KILL_PROCESS;
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

enum result sandbox_filter_calls(const struct sandbox_profile *profile, sandbox_culprit *culprit,
                                 struct sandbox_state *state, struct failure *why)
{
    state->filter = false;
    if (!kernel_has_filters())
        return RESULT_OK;
    enum result result = catch_forbidden(culprit, why);
    if (result != RESULT_OK)
        return result;
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
    if (filter == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the filter of system calls");
    result = load_filter(filter, profile, why);
    seccomp_release(filter);
    state->filter = result == RESULT_OK;
    return result;
}

const char *sandbox_filter_lack(const struct sandbox_state *state)
{
    return state->filter ? NULL : "this kernel has no seccomp filters";
}

static char *name_of_call(uint32_t call)
{
    return seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, (int)call);
}

#else

enum result sandbox_filter_calls(const struct sandbox_profile *profile, sandbox_culprit *culprit,
                                 struct sandbox_state *state, struct failure *why)
{
    (void)profile;
    (void)culprit;
    (void)why;
    state->filter = false;
    return RESULT_OK;
}

const char *sandbox_filter_lack(const struct sandbox_state *state)
{
    return state->filter ? NULL : "built without libseccomp";
}

static char *name_of_call(uint32_t call)
{
    (void)call;
    return NULL;
}

#endif

void sandbox_culprit_format(uint32_t culprit, char text[static SANDBOX_CALL_SIZE])
{
    text[0] = '\0';
    if (culprit == 0)
        return;
    char *name = name_of_call(culprit - 1);
    if (name != NULL)
        (void)snprintf(text, SANDBOX_CALL_SIZE, "%u (%s)", culprit - 1, name);
    else
        (void)snprintf(text, SANDBOX_CALL_SIZE, "%u", culprit - 1);
    free(name);
}
