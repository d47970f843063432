/*
 * The responders that are asked, so that one that does not answer has one question at a time and leaves the
 * rest of the places to others. Plain values, all zero at the beginning.
 */
#ifndef KEYLESS_PROXY_OCSP_HOSTS_H
#define KEYLESS_PROXY_OCSP_HOSTS_H

#include <stdbool.h>
#include <stddef.h>

#include "proxy/ocsp_url.h"

/* Further ones share the last place. */
#define OCSP_HOSTS_MAX 64

struct ocsp_hosts {
    struct ocsp_host {
        char name[OCSP_HOST_MAX + 1];
        unsigned running, failures; /* in a row */
    } hosts[OCSP_HOSTS_MAX];
    size_t count;
};

/* Its number. */
size_t ocsp_hosts_find(struct ocsp_hosts *hosts, const struct ocsp_url *url);
/* Whether another question may be put to it now. */
bool ocsp_hosts_may_ask(const struct ocsp_hosts *hosts, size_t host);
void ocsp_hosts_asked(struct ocsp_hosts *hosts, size_t host);
/* It has answered something, whatever it was worth; or nothing. */
void ocsp_hosts_ended(struct ocsp_hosts *hosts, size_t host, bool answered);

#endif
