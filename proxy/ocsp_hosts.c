#include "proxy/ocsp_hosts.h"

#include <string.h>
#include <strings.h>

/* So many failures in a row are no accident. */
#define DOUBTED_AFTER 2

size_t ocsp_hosts_find(struct ocsp_hosts *hosts, const struct ocsp_url *url)
{
    for (size_t i = 0; i < hosts->count; i++)
        if (strcasecmp(hosts->hosts[i].name, url->host) == 0)
            return i;
    if (hosts->count == OCSP_HOSTS_MAX)
        return OCSP_HOSTS_MAX - 1;
    memcpy(hosts->hosts[hosts->count].name, url->host, sizeof url->host);
    return hosts->count++;
}

bool ocsp_hosts_may_ask(const struct ocsp_hosts *hosts, size_t host)
{
    return hosts->hosts[host].failures < DOUBTED_AFTER || hosts->hosts[host].running == 0;
}

void ocsp_hosts_asked(struct ocsp_hosts *hosts, size_t host)
{
    hosts->hosts[host].running++;
}

void ocsp_hosts_ended(struct ocsp_hosts *hosts, size_t host, bool answered)
{
    hosts->hosts[host].running--;
    hosts->hosts[host].failures = answered ? 0 : hosts->hosts[host].failures + 1;
}
