#include "proxy/endpoints.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/status_area.h"

/* Those of the configuration in use, of one that is being loaded, and of a few that still drain. */
#define PLACES       64
#define LABEL_SIZE   (ADDRESS_HOST_SIZE + 8)
#define WEIGHT_SCALE 256u /* so that a host's weight can be shared by its addresses */
#define FNV_BASIS    UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME    UINT64_C(0x100000001b3)

struct record {
    char label[LABEL_SIZE];
    struct endpoint_list list;
    uint64_t sum; /* that it is whole: a helper and its successor may have written at a time */
};

struct endpoints {
    struct status_area *records;
    /* The master's; copies of it in its children never change. */
    char labels[PLACES][LABEL_SIZE];
    uint64_t used[PLACES], uses;
};

/* ---- Lists. */

static bool endpoint_make(const struct address *address, struct endpoint *endpoint)
{
    struct bytes ip;
    *endpoint = (struct endpoint){.ip_size = 0};
    address_ip(address, &ip);
    if (ip.size == 0)
        return false;
    memcpy(endpoint->ip, ip.data, ip.size);
    endpoint->ip_size = (uint16_t)ip.size;
    return true;
}

static bool is_listed(const struct endpoint_list *list, const struct endpoint *endpoint)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->list[i].ip_size == endpoint->ip_size && list->list[i].port == endpoint->port &&
            memcmp(list->list[i].ip, endpoint->ip, sizeof endpoint->ip) == 0)
            return true;
    return false;
}

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct endpoint)); /* no padding, and what differs comes first */
}

_Static_assert(sizeof(struct endpoint) == 28, "no padding");

/* Name servers rotate what they answer. */
static size_t host_sorted(const struct endpoint_host *host, struct endpoint sorted[static ENDPOINTS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < host->count && i < ENDPOINTS_MAX; i++)
        count += endpoint_make(&host->found[i], &sorted[count]);
    for (size_t i = 0; i < count; i++) {
        sorted[i].port = host->target.port;
        sorted[i].priority = host->target.priority;
        sorted[i].weight = host->target.weight * WEIGHT_SCALE / (uint32_t)count;
        if (sorted[i].weight == 0) /* RFC 2782: a very small chance */
            sorted[i].weight = 1;
    }
    qsort(sorted, count, sizeof *sorted, compare);
    return count;
}

static void list_add_nth(const struct endpoint_host *hosts, size_t count, size_t nth,
                         struct endpoint_list *list)
{
    struct endpoint sorted[ENDPOINTS_MAX];
    for (size_t i = 0; i < count; i++)
        if (nth < host_sorted(&hosts[i], sorted) && list->count < ENDPOINTS_MAX &&
            !is_listed(list, &sorted[nth]))
            list->list[list->count++] = sorted[nth];
}

void endpoint_list_make(const struct endpoint_host *hosts, size_t count, struct endpoint_list *list)
{
    memset(list, 0, sizeof *list);
    for (size_t nth = 0; nth < ENDPOINTS_MAX; nth++)
        list_add_nth(hosts, count, nth, list);
}

bool endpoint_address(const struct endpoint *endpoint, struct address *address)
{
    return endpoint->ip_size <= sizeof endpoint->ip && endpoint->port != 0 &&
           address_from_ip(address, bytes_of(endpoint->ip, endpoint->ip_size), endpoint->port);
}

unsigned endpoint_rank(const struct endpoint_list *list, size_t count, size_t index)
{
    unsigned rank = 0;
    for (size_t i = 0; i < count; i++) {
        bool counts = list->list[i].priority < list->list[index].priority;
        for (size_t k = 0; k < i; k++)
            counts = counts && list->list[k].priority != list->list[i].priority;
        rank += counts;
    }
    return rank;
}

unsigned endpoint_share(const struct endpoint_list *list, size_t count, size_t index, unsigned whole)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        if (list->list[i].priority == list->list[index].priority)
            sum += list->list[i].weight;
    uint64_t share = sum > 0 ? (uint64_t)whole * list->list[index].weight / sum : 0;
    return share > 0 ? (unsigned)share : 1;
}

/* ---- Life. */

enum result endpoints_new(struct endpoints **endpoints, struct failure *why)
{
    *endpoints = NULL;
    struct endpoints *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failure_set_errno(why, "addresses of key servers");
    enum result result = status_area_new(sizeof(struct record), PLACES, &made->records, why);
    if (result != RESULT_OK)
        free(made);
    else
        *endpoints = made;
    return result;
}

void endpoints_free(struct endpoints *endpoints)
{
    if (endpoints == NULL)
        return;
    status_area_free(endpoints->records);
    free(endpoints);
}

/* ---- Places. */

static void label_of(const struct proxy_key_server *server, char label[static LABEL_SIZE])
{
    memset(label, 0, LABEL_SIZE);
    if (server->srv != NULL)
        (void)snprintf(label, LABEL_SIZE, "srv:%s", server->srv);
    else
        (void)snprintf(label, LABEL_SIZE, "%s:%u", server->at.host, (unsigned)server->at.port);
}

size_t endpoints_place(struct endpoints *endpoints, const struct proxy_key_server *server)
{
    char label[LABEL_SIZE];
    size_t oldest = 0;
    label_of(server, label);
    for (size_t i = 0; i < PLACES; i++) {
        if (strcmp(endpoints->labels[i], label) == 0) {
            endpoints->used[i] = ++endpoints->uses;
            return i;
        }
        if (endpoints->used[i] < endpoints->used[oldest])
            oldest = i;
    }
    memcpy(endpoints->labels[oldest], label, sizeof label);
    endpoints->used[oldest] = ++endpoints->uses;
    status_area_clear(endpoints->records, oldest);
    return oldest;
}

uint64_t endpoints_version(const struct endpoints *endpoints, size_t place)
{
    return status_area_version(endpoints->records, place);
}

/* ---- Records. */

static uint64_t sum_of(const struct record *record)
{
    const uint8_t *octets = (const uint8_t *)record;
    uint64_t sum = FNV_BASIS;
    for (size_t i = 0; i < offsetof(struct record, sum); i++)
        sum = (sum ^ octets[i]) * FNV_PRIME;
    return sum;
}

bool endpoints_read(const struct endpoints *endpoints, size_t place, const struct proxy_key_server *server,
                    struct endpoint_list *list)
{
    struct record record;
    char label[LABEL_SIZE];
    label_of(server, label);
    if (!status_area_read(endpoints->records, place, &record) || record.sum != sum_of(&record) ||
        memcmp(record.label, label, sizeof label) != 0 || record.list.count > ENDPOINTS_MAX)
        return false;
    *list = record.list;
    return true;
}

void endpoints_write(struct endpoints *endpoints, size_t place, const struct proxy_key_server *server,
                     const struct endpoint_list *list)
{
    struct record record;
    memset(&record, 0, sizeof record);
    label_of(server, record.label);
    record.list = *list;
    record.sum = sum_of(&record);
    status_area_write(endpoints->records, place, &record);
}
