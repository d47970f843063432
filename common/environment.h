/* What a service manager tells a program in its environment: numbers, and whether this process is meant. */
#ifndef KEYLESS_COMMON_ENVIRONMENT_H
#define KEYLESS_COMMON_ENVIRONMENT_H

#include <stdbool.h>
#include <stdint.h>

/* The variable is a number in decimal digits and nothing else. */
bool environment_number(const char *name, uint64_t *number);

/* The variable is the number of this process. Another's stands there when what we were started by has not
 * tidied up. */
bool environment_means_us(const char *name);

#endif
