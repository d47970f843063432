#include "proxy/srv_answer.h"

#include <string.h>

#define HEADER_REST  4 /* octets: how many records of authority and additional there are */
#define CLASS_IN     1
#define TYPE_SRV     33
#define POINTER      0xc0u /* RFC 1035 section 4.1.4 */
#define POINTER_MASK 0x3fffu
#define LETTERS      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

/* ---- Names. */

struct name {
    char text[ADDRESS_HOST_SIZE];
    size_t size;
    bool odd; /* it has octets that no host name has */
};

static bool name_add(struct name *name, struct bytes label)
{
    if (name->size + label.size + 1 >= sizeof name->text)
        return false;
    if (name->size > 0)
        name->text[name->size++] = '.';
    for (size_t i = 0; i < label.size; i++) {
        name->odd = name->odd || label.data[i] == '\0' || strchr(LETTERS, label.data[i]) == NULL;
        name->text[name->size++] = (char)label.data[i];
    }
    name->text[name->size] = '\0';
    return true;
}

/* The rest of a name that stands elsewhere in the message: before where we are, so that it ends. */
static bool follow(struct bytes message, uint8_t high, struct reader *at, size_t *before)
{
    uint8_t low;
    if (!read_u8(at, &low))
        return false;
    size_t offset = ((size_t)high << 8 | low) & POINTER_MASK;
    if (offset >= *before)
        return false;
    *before = offset;
    *at = reader_of(bytes_of(message.data + offset, message.size - offset));
    return true;
}

static bool name_read(struct bytes message, struct reader *from, struct name *name)
{
    struct reader at = *from;
    size_t before = (size_t)(from->next - message.data);
    bool followed = false;
    uint8_t size;
    *name = (struct name){.size = 0};
    while (read_u8(&at, &size)) {
        struct bytes label;
        bool is_pointer = (size & POINTER) == POINTER;
        if (is_pointer && !followed && at.left > 0)
            *from = (struct reader){at.next + 1, at.left - 1};
        if (size == 0) {
            *from = followed ? *from : at;
            return true;
        }
        followed = followed || is_pointer;
        if (is_pointer ? !follow(message, size, &at, &before)
                       : (size & POINTER) != 0 || !read_bytes(&at, size, &label) || !name_add(name, label))
            return false;
    }
    return false;
}

/* ---- Records. */

static bool goes_before(const struct srv_target *a, const struct srv_target *b)
{
    return a->priority != b->priority ? a->priority < b->priority : a->weight > b->weight;
}

static void target_add(struct srv_answer *answer, const struct srv_target *target)
{
    size_t at = answer->count;
    if (at < SRV_TARGETS_MAX)
        answer->count++;
    else if (goes_before(target, &answer->targets[at - 1]))
        at--;
    else
        return;
    for (; at > 0 && goes_before(target, &answer->targets[at - 1]); at--)
        answer->targets[at] = answer->targets[at - 1];
    answer->targets[at] = *target;
}

/* The root as a target: the service is not offered. */
static bool srv_read(struct bytes message, struct bytes data, struct srv_answer *answer)
{
    struct reader from = reader_of(data);
    struct srv_target target;
    struct name name;
    if (!read_u16(&from, &target.priority) || !read_u16(&from, &target.weight) ||
        !read_u16(&from, &target.port) || !name_read(message, &from, &name))
        return false;
    memcpy(target.host, name.text, sizeof target.host);
    if (name.size > 0 && !name.odd && target.port != 0)
        target_add(answer, &target);
    return true;
}

static bool record_read(struct bytes message, struct reader *from, struct srv_answer *answer)
{
    struct name name;
    uint16_t type, class;
    uint32_t ttl;
    struct bytes data;
    if (!name_read(message, from, &name) || !read_u16(from, &type) || !read_u16(from, &class) ||
        !read_u32(from, &ttl) || !read_vector16(from, &data))
        return false;
    answer->ttl = ttl < answer->ttl ? ttl : answer->ttl;
    return type != TYPE_SRV || class != CLASS_IN || srv_read(message, data, answer);
}

bool srv_answer_read(struct bytes message, struct srv_answer *answer)
{
    struct reader from = reader_of(message);
    uint16_t id, flags, questions, answers;
    struct bytes rest;
    struct name name;
    *answer = (struct srv_answer){.ttl = UINT32_MAX};
    if (!read_u16(&from, &id) || !read_u16(&from, &flags) || !read_u16(&from, &questions) ||
        !read_u16(&from, &answers) || !read_bytes(&from, HEADER_REST, &rest))
        return false;
    for (unsigned i = 0; i < questions; i++)
        if (!name_read(message, &from, &name) || !read_bytes(&from, 4, &rest))
            return false;
    for (unsigned i = 0; i < answers; i++)
        if (!record_read(message, &from, answer))
            return false;
    return true;
}
