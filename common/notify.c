#include "common/process_private.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/socket.h>
#include <sys/un.h>

#include "common/clock.h"
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

void process_notify(const char *state)
{
    struct sockaddr_un address;
    socklen_t size;
    if (!notify_address(&address, &size))
        return;
    int fd CLEANUP(socket_close) = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    /* RELOADING=1 wants the time beside it, so that the manager can tell it from an older READY=1. */
    char text[128];
    int length =
        snprintf(text, sizeof text, "%s\nMONOTONIC_USEC=%llu\n", state, (unsigned long long)clock_now());
    if (length > 0 && (size_t)length < sizeof text)
        (void)sendto(fd, text, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT, (const struct sockaddr *)&address,
                     size);
}
