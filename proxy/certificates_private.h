/*
 * What the files of the table of chains share:
 *
 *   certificates.c         the table: names to chains, and a chain in another's place
 *   certificate_reading.c  filling it from the files that the configuration names
 *   certificate_verdicts.c which of its chains the key server signs for
 */
#ifndef KEYLESS_PROXY_CERTIFICATES_PRIVATE_H
#define KEYLESS_PROXY_CERTIFICATES_PRIVATE_H

#include <sys/stat.h>

#include "proxy/arena.h"
#include "proxy/certificates.h"
#include "proxy/chain_parser.h"
#include "proxy/text_index.h"

/* What is served for a name; without chains: nothing, since one was renewed for other names. */
struct name_entry {
    size_t count;
    const struct certificate *chains[CERTIFICATES_PER_NAME];
};

/* By what a file is known to be another than before. */
struct file_mark {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified, changed;
};

/* A chain file that was looked at. */
struct file_state {
    struct file_mark mark;
    size_t chain;  /* the index of its chain; SIZE_MAX: it has none */
    unsigned scan; /* when it was last seen (certificate_watch.c) */
    bool is_other; /* the file holds something else, which is not served */
    bool is_gone;
};

/* By path and site: two of them may name one file. NULL: there is none, or no memory; a new one has no chain.
 */
struct file_state *file_state_find(const struct certificates *certificates, const struct proxy_site *site,
                                   const char *path);
struct file_state *file_state_add(struct certificates *certificates, const struct proxy_site *site,
                                  const char *path);
/* The path in a key of `files`. */
struct bytes file_state_path(const char *key);

struct file_mark file_mark_of(const struct stat *status);
bool file_mark_equal(const struct file_mark *a, const struct file_mark *b);
/* Whether nobody has written to the file for a moment: what is half-written is not read. */
bool file_mark_rests(const struct file_mark *mark);
#define FILE_MARK_RESTING 300000 /* that moment, in microseconds */

/* A chain that is not served yet, since its key server may not know it; another one of its file is. */
struct pending_chain {
    struct certificate *certificate;
    struct file_state *file;
    uint32_t number; /* by which processes speak of it */
    bool passed;     /* its key server signs for it: only its OCSP response is missing */
    bool told;
};

struct certificates {
    struct certificate **list; /* each of its own, so that pointers stay good while the list grows */
    size_t count, capacity;
    uint8_t *verdicts;                 /* enum certificate_verdict, of those in `list` */
    size_t tried;                      /* all before it were */
    const struct proxy_config *config; /* borrowed */
    struct text_index names;           /* struct name_entry */
    struct text_index site_names; /* the same for the chains of `sites`: an entry's are all of one site */
    struct text_index files;      /* struct file_state; the master's */
    bool shadowed; /* one chain is not served for a name, as a better one of its type is there */
    const struct name_entry *fallback; /* what an unknown or absent SNI gets; NULL: there is none */
    struct pending_chain *pending;
    size_t pending_count, pending_capacity;
    uint32_t last_number;
    struct chain_parser *parser; /* shared by the tables of all generations */
    struct arena arena;          /* of what was read at the start */
};

/* Takes certificate over, which is what the file holds now, in place of another of the same file. False: no
 * memory. */
MUST_CHECK bool certificates_hold_back(struct certificates *certificates, struct certificate *certificate,
                                       struct file_state *file);
/* The file holds again what is served. False: nothing was held back. */
bool certificates_forget_held(struct certificates *certificates, const struct file_state *file);
/* NULL: there is none with this number. */
struct pending_chain *certificates_pending(const struct certificates *certificates, uint32_t number);
/* It is served from now on; NULL: there is none with this number. */
const struct certificate *certificates_promote(struct certificates *certificates, uint32_t number,
                                               enum certificate_verdict verdict);
/* A chain has come to this index. */
void certificates_verdict_begin(struct certificates *certificates, size_t index);

/* Told when a name has two chains of one type. */
struct certificates_rivals {
    void (*found)(const char *name, const struct certificate *served, const struct certificate *unused,
                  void *owner);
    void *owner;
};

/* Takes certificate over, in any case, behind the others. */
MUST_CHECK bool certificates_add(struct certificates *certificates, struct certificate *certificate,
                                 const struct certificates_rivals *rivals);
/* False: there is none for tls.default. With sites' own chains alone there may be none without it, either:
 * those serve no other names. */
bool certificates_choose_fallback(struct certificates *certificates);
/* Whether the chain is for one of its site's names. */
bool certificates_would_serve(struct certificates *certificates, const struct certificate *certificate);
/* Whether there is a chain for a name, which may be a wildcard, of a site. */
bool certificates_have_name(const struct certificates *certificates, const struct proxy_site *site,
                            const char *name);

/* Every chain file that the configuration names, in order, and what else lies in its directories.
 * RESULT_CONFIG or what the visitor returned: told with the place in the configuration. */
struct certificate_visitor {
    enum result (*chain)(const char *path, const struct proxy_site *site, void *owner, struct failure *why);
    enum result (*other)(const char *path, void *owner, struct failure *why); /* NULL: passed over */
    void *owner;
};
MUST_CHECK enum result certificate_sources_visit(const struct proxy_config *config,
                                                 const struct certificate_visitor *visitor,
                                                 struct failure *why);

/* Reads one file again: a chain that is in no table yet, outside the arena. */
MUST_CHECK enum result certificates_read_file(struct certificates *certificates, const char *path,
                                              const struct proxy_site *site, struct certificate **certificate,
                                              struct failure *why);

#endif
