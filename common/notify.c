#include "common/process_private.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/socket.h>
#include <sys/un.h>

#include "common/clock.h"
#include "common/environment.h"
#include "common/socket.h"

/* sd_notify(3): datagrams of lines to the socket named by NOTIFY_SOCKET; '@' stands for the abstract
 * namespace. */
static bool notify_address(struct sockaddr_un *address, socklen_t *size)
{
    const char *path = getenv("NOTIFY_SOCKET");
    if (path == NULL || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof address->sun_path)
        return false;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path, path, strlen(path));
    *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (path[0] == '@')
        address->sun_path[0] = '\0';
    return true;
}

static void send_lines(const char *lines)
{
    struct sockaddr_un address;
    socklen_t size;
    if (!notify_address(&address, &size))
        return;
    int fd CLEANUP(socket_close) = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        (void)sendto(fd, lines, strlen(lines), MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&address,
                     size);
}

void process_notify(const char *state, const char *format, ...)
{
    char status[FAILURE_TEXT_SIZE + 64];
    char lines[sizeof status + 128];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(status, sizeof status, format, arguments);
    va_end(arguments);
    /* RELOADING=1 wants the time beside it, so that the manager can tell it from an older READY=1. */
    (void)snprintf(lines, sizeof lines, "%s\nMONOTONIC_USEC=%llu\nSTATUS=%s\n", state,
                   (unsigned long long)clock_now(), status);
    send_lines(lines);
}

void process_notify_alive(void)
{
    send_lines("WATCHDOG=1\n");
}

uint64_t process_watchdog(void)
{
    uint64_t interval = 0;
    if (getenv("WATCHDOG_PID") != NULL && !environment_means_us("WATCHDOG_PID"))
        return 0;
    return environment_number("WATCHDOG_USEC", &interval) ? interval : 0;
}
