/*
 * The master looks after the files of `certificates`: a file that has changed, or come, is read again. What
 * tells that there is something to look at is inotify, on every directory on the way to a file: where a
 * symbolic link lies (also one for a whole directory, as Kubernetes and certbot have it) and where it leads;
 * and a look once a minute finds the rest. A file that is being written is left alone until it rests.
 */
#ifndef KEYLESS_PROXY_CERTIFICATE_WATCH_H
#define KEYLESS_PROXY_CERTIFICATE_WATCH_H

#include "common/log.h"
#include "proxy/certificates.h"
#include "proxy/config.h"

struct certificate_watch;

struct certificate_watch_handler {
    /* Another chain than the one with this index (SIZE_MAX: one more), taken over. True: it is served from
     * now on, and *index is set. */
    bool (*changed)(struct certificate *certificate, size_t *index, void *owner);
    /* A file whose chain goes on being served as it was. */
    void (*failed)(const char *path, const struct failure *why, void *owner);
    void *owner;
};

/* config and certificates, which was read from it, are borrowed. NULL: no memory. */
struct certificate_watch *certificate_watch_new(const struct proxy_config *config,
                                                struct certificates *certificates,
                                                const struct certificate_watch_handler *handler,
                                                struct log *log);
void certificate_watch_free(struct certificate_watch *watch);

/* In a child, which inherits it: closes what it has open. */
void certificate_watch_forget(struct certificate_watch *watch);

/* To be called ten times a second or so; calls the handler. */
void certificate_watch_tick(struct certificate_watch *watch);

#endif
