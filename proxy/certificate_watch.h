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
struct file_state;

struct certificate_watch_handler {
    /* The file holds another chain than the one that is served, if there is one; it is taken over. */
    void (*changed)(struct certificate *certificate, struct file_state *file, void *owner);
    /* It holds the same chain, again or still. */
    void (*unchanged)(const struct file_state *file, void *owner);
    /* A file whose chain goes on being served as it was. */
    void (*failed)(const char *path, const struct failure *why, void *owner);
    /* All files were looked at: for what lies beside them. True: again, soon. */
    bool (*looked)(void *owner);
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
