#include "proxy/certificates_private.h"

#include <stdlib.h>
#include <string.h>

#include "common/certificate_names.h"

/* ---- One chain. */

const struct certificate *certificate_hold(const struct certificate *certificate)
{
    struct certificate *held = (struct certificate *)certificate;
    if (!held->in_arena)
        held->users++;
    return certificate;
}

void certificate_drop(const struct certificate *certificate)
{
    struct certificate *dropped = (struct certificate *)certificate;
    if (dropped != NULL && !dropped->in_arena && --dropped->users == 0)
        free(dropped);
}

bool certificate_same_chain(const struct certificate *a, const struct certificate *b)
{
    if (!bytes_equal(a->leaf, b->leaf) || a->issuer_count != b->issuer_count)
        return false;
    for (size_t i = 0; i < a->issuer_count; i++)
        if (a->issuers[i] != b->issuers[i]) /* each is kept once */
            return false;
    return true;
}

bool certificate_is_valid(const struct certificate *certificate, time_t now)
{
    return certificate->not_before <= now && now <= certificate->not_after;
}

/* Of two chains of one type for one name, one that is valid now is served, and then the one that lasts
 * longer: one made for next month must not take the place of this month's. */
static bool is_better(const struct certificate *certificate, const struct certificate *than, time_t now)
{
    bool is_early = certificate->not_before > now, other_is_early = than->not_before > now;
    if (is_early != other_is_early)
        return other_is_early;
    return certificate->not_after > than->not_after;
}

/* ---- Its names. */

static void compete(struct certificates *certificates, const struct certificate **place,
                    const struct certificate *challenger, const char *name,
                    const struct certificates_rivals *rivals)
{
    const struct certificate *champion = *place;
    bool better = is_better(challenger, champion, time(NULL));
    certificates->shadowed = true;
    if (better)
        *place = challenger;
    if (rivals != NULL)
        rivals->found(name, better ? challenger : champion, better ? champion : challenger, rivals->owner);
}

/* The index of a site's chains, or of those that are nobody's in particular. */
static struct text_index *index_of(struct certificates *certificates, const struct proxy_site *site)
{
    return site != NULL ? &certificates->site_names : &certificates->names;
}

static bool name_enter(struct certificates *certificates, const struct certificate *certificate,
                       const char *name, const struct certificates_rivals *rivals)
{
    struct name_entry *entry = text_index_add(index_of(certificates, certificate->site), name);
    if (entry == NULL)
        return false;
    for (size_t i = 0; i < entry->count; i++) {
        if (entry->chains[i] == certificate)
            return true; /* the same name twice in one certificate */
        if (entry->chains[i]->key.type == certificate->key.type) {
            compete(certificates, &entry->chains[i], certificate, name, rivals);
            return true;
        }
    }
    entry->chains[entry->count++] = certificate; /* there are fewer key types than places */
    return true;
}

_Static_assert(KEY_TYPE_ED448 <= CERTIFICATES_PER_NAME, "a place for each key type");

/* Whether a wildcard stands for a name. */
static bool stands_for(const char *wildcard, const char *name)
{
    const char *parent = strchr(name, '.');
    return wildcard[0] == '*' && parent != NULL && name[0] != '*' && strcmp(wildcard + 1, parent) == 0;
}

/* What a site's chain for `name` serves of the site's own name; NULL: nothing. An exact name may be another
 * site's than the wildcard around it. */
static const char *shared_name(const struct certificates *certificates, const struct proxy_site *site,
                               const char *own, const char *name)
{
    if (strcmp(own, name) == 0 || stands_for(name, own))
        return own;
    bool served = stands_for(own, name) &&
                  proxy_config_site(certificates->config, bytes_of(name, strlen(name))) == site;
    return served ? name : NULL;
}

/* One that a certificate is served for; false: no memory. */
typedef bool name_visitor(struct certificates *certificates, const struct certificate *certificate,
                          const char *name, const struct certificates_rivals *rivals);

static bool name_visit(struct certificates *certificates, const struct certificate *certificate,
                       const char *name, const struct certificates_rivals *rivals, name_visitor *visit)
{
    const struct proxy_site *site = certificate->site;
    bool good = true;
    if (site == NULL)
        return visit(certificates, certificate, name, rivals);
    for (size_t i = 0; good && i < site->name_count; i++) {
        const char *shared = shared_name(certificates, site, site->names[i], name);
        good = shared == NULL || visit(certificates, certificate, shared, rivals);
    }
    return good;
}

static bool names_visit(struct certificates *certificates, const struct certificate *certificate,
                        const struct certificates_rivals *rivals, name_visitor *visit)
{
    const char *name = certificate->names;
    for (size_t i = 0; i < certificate->name_count; i++, name += strlen(name) + 1)
        if (!name_visit(certificates, certificate, name, rivals, visit))
            return false;
    return true;
}

static bool names_enter(struct certificates *certificates, const struct certificate *certificate,
                        const struct certificates_rivals *rivals)
{
    return names_visit(certificates, certificate, rivals, name_enter);
}

static bool note_name(struct certificates *certificates, const struct certificate *certificate,
                      const char *name, const struct certificates_rivals *rivals)
{
    (void)certificates;
    (void)certificate;
    (void)name;
    *(bool *)rivals->owner = true;
    return true;
}

bool certificates_would_serve(struct certificates *certificates, const struct certificate *certificate)
{
    bool any = false;
    (void)names_visit(certificates, certificate, &(struct certificates_rivals){.owner = &any}, note_name);
    return any;
}

static bool is_shown(struct certificates *certificates, const struct certificate *certificate,
                     const char *name, const struct certificates_rivals *rivals)
{
    const struct name_entry *entry =
        text_index_find(index_of(certificates, certificate->site), bytes_of(name, strlen(name)));
    for (size_t i = 0; entry != NULL && i < entry->count; i++)
        if (entry->chains[i] == certificate)
            *(bool *)rivals->owner = true;
    return true;
}

bool certificates_serve(const struct certificates *certificates, const struct certificate *certificate)
{
    bool any = false;
    (void)names_visit((struct certificates *)certificates, certificate,
                      &(struct certificates_rivals){.owner = &any}, is_shown);
    return any;
}

static void entry_remove(struct name_entry *entry, const struct certificate *certificate)
{
    size_t kept = 0;
    for (size_t i = 0; i < entry->count; i++)
        if (entry->chains[i] != certificate)
            entry->chains[kept++] = entry->chains[i];
    entry->count = kept;
}

static bool name_leave(struct certificates *certificates, const struct certificate *certificate,
                       const char *name, const struct certificates_rivals *rivals)
{
    struct name_entry *entry =
        text_index_find(index_of(certificates, certificate->site), bytes_of(name, strlen(name)));
    (void)rivals;
    if (entry != NULL)
        entry_remove(entry, certificate);
    return true;
}

static void index_empty(const struct text_index *index)
{
    const char *name;
    for (size_t i = 0; i < index->size; i++) {
        struct name_entry *entry = text_index_at(index, i, &name);
        if (entry != NULL)
            entry->count = 0;
    }
}

/* All names anew: one that had to stand back may now be the best. No memory is needed for it. */
static void names_rebuild(struct certificates *certificates)
{
    index_empty(&certificates->names);
    index_empty(&certificates->site_names);
    certificates->shadowed = false;
    for (size_t i = 0; i < certificates->count; i++)
        (void)!names_enter(certificates, certificates->list[i], NULL);
}

/* ---- The list. */

static bool list_grow(struct certificates *certificates)
{
    size_t capacity = certificates->capacity == 0 ? 16 : 2 * certificates->capacity;
    struct certificate **list = realloc(certificates->list, capacity * sizeof(struct certificate *));
    if (list == NULL)
        return false;
    certificates->list = list;
    uint8_t *verdicts = realloc(certificates->verdicts, capacity);
    if (verdicts == NULL)
        return false;
    certificates->verdicts = verdicts;
    certificates->capacity = capacity;
    return true;
}

static bool list_push(struct certificates *certificates, struct certificate *certificate)
{
    if (certificates->count == certificates->capacity && !list_grow(certificates))
        return false;
    certificate->index = certificates->count++;
    certificates->list[certificate->index] = certificate;
    certificates_verdict_begin(certificates, certificate->index);
    return true;
}

bool certificates_add(struct certificates *certificates, struct certificate *certificate,
                      const struct certificates_rivals *rivals)
{
    if (list_push(certificates, certificate))
        return names_enter(certificates, certificate, rivals);
    certificate_drop(certificate);
    return false;
}

bool certificates_put(struct certificates *certificates, size_t index, struct certificate *certificate)
{
    if (index >= certificates->count) {
        bool added = certificates_add(certificates, certificate, NULL);
        (void)certificates_choose_fallback(certificates);
        return added;
    }
    struct certificate *old = certificates->list[index];
    (void)names_visit(certificates, old, NULL, name_leave);
    certificate->index = index;
    certificates->list[index] = certificate;
    certificates_verdict_begin(certificates, index);
    bool entered = names_enter(certificates, certificate, NULL);
    if (certificates->shadowed)
        names_rebuild(certificates);
    (void)certificates_choose_fallback(certificates);
    certificate_drop(old);
    return entered;
}

/* ---- Held back. */

static struct pending_chain *pending_of(const struct certificates *certificates,
                                        const struct file_state *file)
{
    for (size_t i = 0; i < certificates->pending_count; i++)
        if (certificates->pending[i].file == file)
            return &certificates->pending[i];
    return NULL;
}

static struct pending_chain *pending_push(struct certificates *certificates)
{
    if (certificates->pending_count == certificates->pending_capacity) {
        size_t capacity = certificates->pending_capacity == 0 ? 16 : 2 * certificates->pending_capacity;
        struct pending_chain *list = realloc(certificates->pending, capacity * sizeof *list);
        if (list == NULL)
            return NULL;
        certificates->pending = list;
        certificates->pending_capacity = capacity;
    }
    struct pending_chain *made = &certificates->pending[certificates->pending_count++];
    *made = (struct pending_chain){0};
    return made;
}

static void pending_remove(struct certificates *certificates, struct pending_chain *pending)
{
    *pending = certificates->pending[--certificates->pending_count];
}

bool certificates_hold_back(struct certificates *certificates, struct certificate *certificate,
                            struct file_state *file)
{
    struct pending_chain *pending = pending_of(certificates, file);
    if (pending == NULL)
        pending = pending_push(certificates);
    if (pending == NULL) {
        certificate_drop(certificate);
        return false;
    }
    certificate_drop(pending->certificate);
    *pending = (struct pending_chain){
        .certificate = certificate, .file = file, .number = ++certificates->last_number};
    certificate->index = pending->number;
    return true;
}

bool certificates_forget_held(struct certificates *certificates, const struct file_state *file)
{
    struct pending_chain *pending = pending_of(certificates, file);
    if (pending == NULL)
        return false;
    certificate_drop(pending->certificate);
    pending_remove(certificates, pending);
    return true;
}

struct pending_chain *certificates_pending(const struct certificates *certificates, uint32_t number)
{
    for (size_t i = 0; i < certificates->pending_count; i++)
        if (certificates->pending[i].number == number)
            return &certificates->pending[i];
    return NULL;
}

const struct certificate *certificates_promote(struct certificates *certificates, uint32_t number,
                                               enum certificate_verdict verdict)
{
    struct pending_chain *pending = certificates_pending(certificates, number);
    if (pending == NULL)
        return NULL;
    const struct pending_chain found = *pending;
    pending_remove(certificates, pending);
    if (found.file->chain == SIZE_MAX)
        found.file->chain = certificates->count;
    found.file->is_other = false;
    found.certificate->verdict = verdict;
    return certificates_put(certificates, found.file->chain, found.certificate) ? found.certificate : NULL;
}

/* ---- Finding. */

static const struct name_entry *find_name(const struct text_index *index, const char *name)
{
    const struct name_entry *entry = text_index_find(index, bytes_of(name, strlen(name)));
    return entry != NULL && entry->count > 0 ? entry : NULL;
}

/* A wildcard stands for exactly one label, the left-most (RFC 9525 section 6.3). */
static const struct name_entry *find_wildcard(const struct text_index *index, const char *name)
{
    char wildcard[DNS_NAME_MAX + 2] = "*";
    const char *parent = strchr(name, '.');
    if (parent == NULL)
        return NULL;
    memcpy(wildcard + 1, parent, strlen(parent) + 1);
    return find_name(index, wildcard);
}

static const struct name_entry *find_in(const struct text_index *index, struct bytes sni)
{
    char name[DNS_NAME_MAX + 1];
    if (sni.data == NULL || !dns_name_normalise(sni, false, name))
        return NULL;
    const struct name_entry *entry = find_name(index, name);
    return entry != NULL ? entry : find_wildcard(index, name);
}

/* The site's own chains, then those that are for everybody. */
static const struct name_entry *find(const struct certificates *certificates, const struct proxy_site *site,
                                     struct bytes sni)
{
    const struct name_entry *entry = site != NULL ? find_in(&certificates->site_names, sni) : NULL;
    if (entry != NULL && entry->chains[0]->site == site)
        return entry;
    return find_in(&certificates->names, sni);
}

size_t certificates_find(const struct certificates *certificates, const struct proxy_site *site,
                         struct bytes sni, const struct certificate *found[static CERTIFICATES_PER_NAME],
                         bool *matched)
{
    const struct name_entry *entry = find(certificates, site, sni);
    *matched = entry != NULL;
    if (entry == NULL)
        entry = certificates->fallback;
    if (entry == NULL)
        return 0;
    for (size_t i = 0; i < entry->count; i++)
        found[i] = entry->chains[i];
    return entry->count;
}

bool certificates_have_name(const struct certificates *certificates, const struct proxy_site *site,
                            const char *name)
{
    if (name[0] == '*')
        return find_name(&certificates->names, name) != NULL ||
               find_name(&certificates->site_names, name) != NULL;
    return find(certificates, site, bytes_of(name, strlen(name))) != NULL;
}

/* ---- The default. */

static const struct name_entry *first_valid(const struct certificates *certificates, bool or_not)
{
    time_t now = time(NULL);
    for (size_t i = 0; i < certificates->count; i++) {
        const struct certificate *certificate = certificates->list[i];
        if (certificate->site == NULL && (or_not || certificate_is_valid(certificate, now)))
            return find_name(&certificates->names, certificate->names); /* may be a wildcard */
    }
    return NULL;
}

bool certificates_choose_fallback(struct certificates *certificates)
{
    const char *name = certificates->config->tls.default_name;
    struct bytes wanted = name != NULL ? bytes_of(name, strlen(name)) : (struct bytes){0};
    const struct name_entry *found =
        name != NULL ? find(certificates, proxy_config_site(certificates->config, wanted), wanted)
                     : first_valid(certificates, false);
    bool chosen = found != NULL || name == NULL;
    /* Where there was one, another is better than nothing, and so is an expired one. */
    if (found == NULL && certificates->fallback != NULL)
        found = first_valid(certificates, false);
    if (found == NULL && certificates->fallback != NULL)
        found = first_valid(certificates, true);
    certificates->fallback = found;
    return chosen;
}

/* ---- The rest. */

void certificates_free(struct certificates *certificates)
{
    if (certificates == NULL)
        return;
    /* Nothing is written to those in the arena, which a child shares with its parent. */
    for (size_t i = 0; i < certificates->count; i++)
        if (!certificates->list[i]->in_arena)
            certificate_drop(certificates->list[i]);
    for (size_t i = 0; i < certificates->pending_count; i++)
        certificate_drop(certificates->pending[i].certificate);
    free(certificates->pending);
    free(certificates->list);
    free(certificates->verdicts);
    chain_parser_drop(certificates->parser);
    arena_clear(&certificates->arena);
    free(certificates);
}

size_t certificates_count(const struct certificates *certificates)
{
    return certificates->count;
}

const struct certificate *certificates_held_back(const struct certificates *certificates, size_t number)
{
    return number < certificates->pending_count ? certificates->pending[number].certificate : NULL;
}

const struct certificate *certificates_at(const struct certificates *certificates, size_t index)
{
    return certificates->list[index];
}

struct chain_parser *certificates_parser(const struct certificates *certificates)
{
    return certificates->parser;
}
