#include "keyserver/ticket_state.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#define DIGEST_SIZE 32

static const char MAGIC[16] = "keyless tickets";

static enum result out_of_memory(struct failure *why)
{
    return failure_set(why, RESULT_LIMIT, "no memory for the ticket groups");
}

static bool digest(struct bytes octets, uint8_t to[static DIGEST_SIZE])
{
    return EVP_Digest(octets.data, octets.size, to, NULL, EVP_sha256(), NULL) == 1;
}

bool ticket_id_of(struct bytes name, struct ticket_id *id)
{
    uint8_t octets[DIGEST_SIZE];
    bool done = digest(name, octets);
    memcpy(id->octets, octets, sizeof id->octets);
    return done;
}

void ticket_state_clear(struct ticket_state *state)
{
    free(state->groups);
    free(state->members);
    OPENSSL_cleanse(state, sizeof *state);
}

/* ---- Order. */

static int compare_groups(const void *a, const void *b)
{
    const struct ticket_group *left = a, *right = b;
    return memcmp(&left->id, &right->id, sizeof left->id);
}

static int compare_members(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct ticket_member));
}

static struct ticket_group *find_group(const struct ticket_state *state, const struct ticket_id *id)
{
    const struct ticket_group wanted = {.id = *id};
    return state->group_count == 0
               ? NULL
               : bsearch(&wanted, state->groups, state->group_count, sizeof *state->groups, compare_groups);
}

const struct ticket_group *ticket_state_group(const struct ticket_state *state, const struct ticket_id *id)
{
    return find_group(state, id);
}

static bool is_member(const struct ticket_member *members, size_t count, const struct ticket_member *wanted)
{
    return count > 0 && bsearch(wanted, members, count, sizeof *members, compare_members) != NULL;
}

/* ---- Writing. */

bool ticket_chain_record_write(struct writer *to, const struct ticket_state *state)
{
    uint8_t check[DIGEST_SIZE];
    const size_t start = to->size;
    write_bytes(to, bytes_of(MAGIC, sizeof MAGIC));
    write_u32(to, state->rotate);
    write_u64(to, state->chain.epoch);
    write_bytes(to, bytes_of(state->chain.value, sizeof state->chain.value));
    if (!writer_ok(to) || !digest(bytes_of(to->data + start, to->size - start), check))
        return false;
    write_bytes(to, bytes_of(check, sizeof check));
    write_fill(to, 0, start + TICKET_CHAIN_RECORD_SIZE - to->size);
    return writer_ok(to);
}

static size_t groups_size(const struct ticket_state *state)
{
    return 4 + 4 + state->group_count * (TICKET_ID_SIZE + 4) + state->member_count * (2 * TICKET_ID_SIZE);
}

size_t ticket_state_size(const struct ticket_state *state)
{
    return 2 * TICKET_CHAIN_RECORD_SIZE + DIGEST_SIZE + groups_size(state);
}

static void write_groups(struct writer *to, const struct ticket_state *state)
{
    write_u32(to, (uint32_t)state->group_count);
    write_u32(to, (uint32_t)state->member_count);
    for (size_t i = 0; i < state->group_count; i++) {
        write_bytes(to, bytes_of(state->groups[i].id.octets, TICKET_ID_SIZE));
        write_u32(to, state->groups[i].generation);
    }
    for (size_t i = 0; i < state->member_count; i++) {
        write_bytes(to, bytes_of(state->members[i].group.octets, TICKET_ID_SIZE));
        write_bytes(to, bytes_of(state->members[i].id.octets, TICKET_ID_SIZE));
    }
}

bool ticket_state_write(struct writer *to, const struct ticket_state *state)
{
    for (unsigned copy = 0; copy < 2; copy++)
        if (!ticket_chain_record_write(to, state))
            return false;
    const size_t check = to->size;
    write_fill(to, 0, DIGEST_SIZE);
    write_groups(to, state);
    return writer_ok(to) &&
           digest(bytes_of(to->data + check + DIGEST_SIZE, groups_size(state)), to->data + check);
}

/* ---- Reading. */

/* False: torn, or none. */
static bool read_chain_record(struct reader *from, uint32_t *rotate, struct ticket_chain *chain)
{
    struct bytes record, magic, check;
    uint8_t expected[DIGEST_SIZE];
    if (!read_bytes(from, TICKET_CHAIN_RECORD_SIZE, &record))
        return false;
    struct reader in = reader_of(record);
    return read_bytes(&in, sizeof MAGIC, &magic) && bytes_equal(magic, bytes_of(MAGIC, sizeof MAGIC)) &&
           read_u32(&in, rotate) && *rotate > 0 && read_u64(&in, &chain->epoch) &&
           read_copy(&in, chain->value, sizeof chain->value) &&
           digest(bytes_of(record.data, record.size - in.left), expected) &&
           read_bytes(&in, DIGEST_SIZE, &check) && bytes_equal(check, bytes_of(expected, sizeof expected));
}

/* The newer of the two, or the whole one. */
static bool read_chain(struct reader *from, struct ticket_state *state)
{
    struct ticket_chain first = {0}, second = {0};
    uint32_t first_rotate = 0, second_rotate = 0;
    bool has_first = read_chain_record(from, &first_rotate, &first);
    bool has_second = read_chain_record(from, &second_rotate, &second);
    bool take_second = has_second && (!has_first || second.epoch > first.epoch);
    state->chain = take_second ? second : first;
    state->rotate = take_second ? second_rotate : first_rotate;
    OPENSSL_cleanse(&first, sizeof first);
    OPENSSL_cleanse(&second, sizeof second);
    return has_first || has_second;
}

static bool read_group_records(struct reader *from, struct ticket_state *state)
{
    for (size_t i = 0; i < state->group_count; i++) {
        struct ticket_group *group = &state->groups[i];
        if (!read_copy(from, group->id.octets, TICKET_ID_SIZE) || !read_u32(from, &group->generation) ||
            (i > 0 && compare_groups(group - 1, group) >= 0))
            return false;
    }
    for (size_t i = 0; i < state->member_count; i++) {
        struct ticket_member *member = &state->members[i];
        if (!read_copy(from, member->group.octets, TICKET_ID_SIZE) ||
            !read_copy(from, member->id.octets, TICKET_ID_SIZE) ||
            find_group(state, &member->group) == NULL || (i > 0 && compare_members(member - 1, member) >= 0))
            return false;
    }
    return reader_empty(from);
}

static bool read_counts(struct reader *from, struct ticket_state *state)
{
    uint8_t expected[DIGEST_SIZE];
    struct bytes check;
    uint32_t groups, members;
    if (!read_bytes(from, DIGEST_SIZE, &check) || !digest(bytes_of(from->next, from->left), expected) ||
        !bytes_equal(check, bytes_of(expected, sizeof expected)) || !read_u32(from, &groups) ||
        !read_u32(from, &members) || groups > TICKET_GROUPS_MAX || members > TICKET_MEMBERS_MAX)
        return false;
    state->group_count = groups;
    state->member_count = members;
    return groups_size(state) == 4 + 4 + from->left;
}

static enum result damaged(struct failure *why)
{
    return failure_set(why, RESULT_CONFIG,
                       "damaged; expected 32 random octets, or a file that a key server has written");
}

enum result ticket_state_parse(struct bytes octets, struct ticket_state *state, struct failure *why)
{
    struct reader from = reader_of(octets);
    *state = (struct ticket_state){0};
    if (octets.size == TICKET_CHAIN_SIZE) {
        memcpy(state->chain.value, octets.data, octets.size);
        return RESULT_OK;
    }
    if (!read_chain(&from, state) || !read_counts(&from, state)) {
        state->group_count = state->member_count = 0;
        return damaged(why);
    }
    state->groups = calloc(state->group_count + 1, sizeof *state->groups);
    state->members = calloc(state->member_count + 1, sizeof *state->members);
    if (state->groups == NULL || state->members == NULL)
        return out_of_memory(why);
    return read_group_records(&from, state) ? RESULT_OK : damaged(why);
}

/* ---- Who has come and gone. */

static void raise_left(struct ticket_state *state, const struct ticket_member *members, size_t count,
                       bool *changed)
{
    for (size_t i = 0; i < state->member_count; i++) {
        if (is_member(members, count, &state->members[i]))
            continue;
        find_group(state, &state->members[i].group)->generation++;
        *changed = true;
    }
}

/* members are in order, so a group's stand together. */
static enum result add_groups(struct ticket_state *state, const struct ticket_member *members, size_t count,
                              struct failure *why)
{
    struct ticket_group *groups = calloc(state->group_count + count + 1, sizeof *groups);
    size_t known = state->group_count, all = known;
    if (groups == NULL)
        return out_of_memory(why);
    if (known > 0)
        memcpy(groups, state->groups, known * sizeof *groups);
    for (size_t i = 0; i < count; i++)
        if ((i == 0 || memcmp(&members[i].group, &members[i - 1].group, sizeof members[i].group) != 0) &&
            find_group(state, &members[i].group) == NULL)
            groups[all++].id = members[i].group;
    free(state->groups);
    state->groups = groups;
    state->group_count = all;
    qsort(groups, all, sizeof *groups, compare_groups);
    return all <= TICKET_GROUPS_MAX
               ? RESULT_OK
               : failure_set(why, RESULT_LIMIT, "%zu ticket groups there are or were; expected at most %d",
                             all, TICKET_GROUPS_MAX);
}

enum result ticket_state_settle(struct ticket_state *state, const struct ticket_member *members, size_t count,
                                bool *changed, struct failure *why)
{
    struct ticket_member *sorted = calloc(count + 1, sizeof *sorted);
    if (sorted == NULL)
        return out_of_memory(why);
    if (count > 0)
        memcpy(sorted, members, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_members);
    *changed = count != state->member_count;
    for (size_t i = 0; i < count && !*changed; i++)
        *changed = compare_members(&sorted[i], &state->members[i]) != 0;
    raise_left(state, sorted, count, changed);
    free(state->members);
    state->members = sorted;
    state->member_count = count;
    if (count > TICKET_MEMBERS_MAX)
        return failure_set(why, RESULT_LIMIT, "%zu members of ticket groups; expected at most %d", count,
                           TICKET_MEMBERS_MAX);
    return add_groups(state, sorted, count, why);
}
