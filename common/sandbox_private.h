/* What the files of the sandbox share: sandbox_rules.c tells what every process may do, sandbox_filter.c
 * makes a seccomp filter of rules, sandbox_landlock.c does the rest. */
#ifndef KEYLESS_COMMON_SANDBOX_PRIVATE_H
#define KEYLESS_COMMON_SANDBOX_PRIVATE_H

#include "common/sandbox.h"

#ifdef __has_feature
#define SANDBOX_HAS_FEATURE(feature) __has_feature(feature)
#else
#define SANDBOX_HAS_FEATURE(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || SANDBOX_HAS_FEATURE(address_sanitizer)
#define SANDBOX_STRICT 0
#else
#define SANDBOX_STRICT 1
#endif

/* What every process of ours does, whatever its kind. */
extern const struct sandbox_rule SANDBOX_COMMON_RULES[];
extern const size_t SANDBOX_COMMON_RULE_COUNT;

#endif
