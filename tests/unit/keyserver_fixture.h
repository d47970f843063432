/* What the key server's unit tests share: a configuration from text, and a table of keys that exist in name
 * only (a key's SKI is 20 times one octet, its digest 32 times the same). */
#ifndef KEYLESS_TESTS_UNIT_KEYSERVER_FIXTURE_H
#define KEYLESS_TESTS_UNIT_KEYSERVER_FIXTURE_H

#include "tests/unit/check.h"

#include "keyserver/config.h"
#include "keyserver/key_table.h"
#include "keyserver/policy.h"

struct fixture_key {
    uint8_t octet; /* of its SKI; rows in ascending order */
    enum key_type type;
    unsigned bits;
    const char *label;
};

#define FIXTURE_CONFIG_HEAD                                                                                  \
    "workers: 1\nlisten: \"127.0.0.1:2407\"\n"                                                               \
    "tls: {certificate: c, key: k, client_ca: a}\nkeys: [{dir: keys}]\n"                                     \
    "certificates: [{dir: sites}]\n"

static inline struct keyserver_config *fixture_config(const char *text)
{
    struct keyserver_config *config = NULL;
    struct failure why = {RESULT_OK, ""};
    const struct config_source source = {
        .file = "test.yaml", .directory = "/", .text = bytes_of(text, strlen(text))};
    if (keyserver_config_parse(&source, &config, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    return config;
}

static inline void fixture_keys(const struct fixture_key *rows, size_t count, struct key_table *table)
{
    *table = (struct key_table){0};
    for (size_t i = 0; i < count; i++) {
        struct key_id id = {.type = rows[i].type, .bits = rows[i].bits, .signature_size = 72};
        memset(id.ski, rows[i].octet, sizeof id.ski);
        if (id.type != KEY_TYPE_ED25519 && id.type != KEY_TYPE_ED448)
            memset(id.digest, rows[i].octet, sizeof id.digest);
        struct bytes label = bytes_of(rows[i].label, strlen(rows[i].label));
        assert_int_equal(key_table_add(table, &id, label, NULL), RESULT_OK);
    }
}

static inline struct policy *fixture_policy(const struct keyserver_config *config,
                                            const struct key_table *table)
{
    struct policy *policy = NULL;
    struct failure why = {RESULT_OK, ""};
    if (policy_new(config, table, &policy, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    return policy;
}

#endif
