#include "common/environment.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

bool environment_number(const char *name, uint64_t *number)
{
    const char *text = getenv(name);
    char *end = NULL;
    if (text == NULL || text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    *number = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

bool environment_means_us(const char *name)
{
    uint64_t pid = 0;
    return environment_number(name, &pid) && pid == (uint64_t)getpid();
}
