/* Where key servers are that have names: lists made of what was found, and the memory that shares them. */
#include <stdio.h>
#include <string.h>

#include "proxy/endpoints.h"
#include "tests/unit/check.h"

static struct address at(const char *text)
{
    struct address address;
    struct failure why;
    assert_int_equal(address_parse(text, &address, &why), RESULT_OK);
    return address;
}

static struct endpoint_host host(unsigned priority, unsigned weight, unsigned count)
{
    struct endpoint_host made = {
        .target = {.port = 2407, .priority = (uint16_t)priority, .weight = (uint16_t)weight}, .count = count};
    for (unsigned i = 0; i < count; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "192.0.%u.%u:2407", priority + weight, count - i);
        made.found[i] = at(text);
    }
    return made;
}

static void assert_at(const struct endpoint_list *list, size_t index, const char *expected)
{
    struct address address;
    char text[ADDRESS_TEXT_SIZE];
    assert_true(endpoint_address(&list->list[index], &address));
    assert_string_equal(address_format(&address, text), expected);
}

/* The first of each host, then the second; sorted, so that name servers may rotate them. */
static void each_has_its_turn(void **state)
{
    (void)state;
    struct endpoint_host hosts[] = {host(0, 1, 3), host(2, 1, 1)};
    struct endpoint_list list;
    endpoint_list_make(hosts, 2, &list);
    assert_int_equal(list.count, 4);
    assert_at(&list, 0, "192.0.1.1:2407");
    assert_at(&list, 1, "192.0.3.1:2407");
    assert_at(&list, 2, "192.0.1.2:2407");
    assert_at(&list, 3, "192.0.1.3:2407");
    assert_int_equal(endpoint_rank(&list, 4, 0), 0);
    assert_int_equal(endpoint_rank(&list, 4, 1), 1);
}

static void none_twice_and_not_too_many(void **state)
{
    (void)state;
    struct endpoint_host hosts[] = {host(0, 1, 10), host(0, 1, 10), host(0, 2, 10)};
    struct endpoint_list list;
    endpoint_list_make(hosts, 2, &list);
    assert_int_equal(list.count, 10);
    endpoint_list_make(hosts, 3, &list);
    assert_int_equal(list.count, ENDPOINTS_MAX);
}

static void ranks_are_close(void **state)
{
    (void)state;
    struct endpoint_host hosts[] = {host(0, 1, 1), host(0, 2, 1), host(10, 1, 1), host(200, 1, 1)};
    struct endpoint_list list;
    endpoint_list_make(hosts, 4, &list);
    static const unsigned EXPECTED[] = {0, 0, 1, 2};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(endpoint_rank(&list, 4, i), EXPECTED[i]);
}

/* A host's weight is shared by its addresses; who has none gets the least. */
static void shares(void **state)
{
    (void)state;
    struct endpoint_host hosts[] = {host(0, 3, 2), host(0, 1, 1), host(5, 0, 1)};
    struct endpoint_list list;
    endpoint_list_make(hosts, 3, &list);
    assert_int_equal(list.count, 4);
    assert_int_equal(endpoint_share(&list, 4, 0, 128), 48);
    assert_int_equal(endpoint_share(&list, 4, 1, 128), 32);
    assert_int_equal(endpoint_share(&list, 4, 2, 128), 128);
    assert_int_equal(endpoint_share(&list, 4, 3, 128), 48);
}

/* ---- Shared. */

static struct proxy_key_server named(const char *name, uint16_t port)
{
    struct proxy_key_server server = {.name = NULL};
    if (port != 0)
        server.at = (struct config_host_address){.host = (char *)(uintptr_t)name, .port = port};
    else
        server.srv = (char *)(uintptr_t)name;
    return server;
}

static void written_and_read(void **state)
{
    (void)state;
    struct endpoints *endpoints;
    struct failure why;
    struct endpoint_list list, found;
    struct endpoint_host hosts[] = {host(0, 1, 2)};
    struct proxy_key_server one = named("keys.example", 2407), other = named("_k._tcp.example", 0);
    assert_int_equal(endpoints_new(&endpoints, &why), RESULT_OK);
    size_t place = endpoints_place(endpoints, &one);
    assert_int_not_equal(endpoints_place(endpoints, &other), place);
    assert_int_equal(endpoints_place(endpoints, &one), place);
    assert_false(endpoints_read(endpoints, place, &one, &found));
    uint64_t version = endpoints_version(endpoints, place);
    endpoint_list_make(hosts, 1, &list);
    endpoints_write(endpoints, place, &one, &list);
    assert_int_not_equal(endpoints_version(endpoints, place), version);
    assert_true(endpoints_read(endpoints, place, &one, &found));
    assert_memory_equal(&list, &found, sizeof list);
    assert_false(endpoints_read(endpoints, place, &other, &found));
    endpoints_free(endpoints);
}

/* The one that was not asked for longest has to go, and is not taken for its successor. */
static void places_are_given_away(void **state)
{
    (void)state;
    struct endpoints *endpoints;
    struct failure why;
    struct endpoint_list list = {.count = 0}, found;
    struct proxy_key_server first = named("first.example", 2407);
    assert_int_equal(endpoints_new(&endpoints, &why), RESULT_OK);
    size_t place = endpoints_place(endpoints, &first);
    endpoints_write(endpoints, place, &first, &list);
    bool reused = false;
    for (uint16_t i = 1; i < 100; i++) {
        struct proxy_key_server next = named("next.example", i);
        reused = endpoints_place(endpoints, &next) == place || reused;
    }
    assert_true(reused);
    assert_false(endpoints_read(endpoints, place, &first, &found));
    endpoints_free(endpoints);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_has_its_turn), cmocka_unit_test(none_twice_and_not_too_many),
        cmocka_unit_test(ranks_are_close),   cmocka_unit_test(shares),
        cmocka_unit_test(written_and_read),  cmocka_unit_test(places_are_given_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
