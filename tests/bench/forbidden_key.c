/*
 * Decides on requests for keys that a client may not have: of a key that others have, or of one that nobody
 * has. Counted under callgrind by forbidden-keys.sh: what a request costs must not tell which. forbidden-key
 * CHAIN OPERATION forbidden|unknown
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "keyserver/config.h"
#include "keyserver/operations.h"
#include "keyserver/policy.h"
#include "tests/bench/sample.h"

#define KEYS 64 /* every second one is the client's */

/* By the first octets of its name a key has its place in a table. Names that agree in them take the same way
 * through it, and differ from each key on it in the same octet. */
#define PLACE_SIZE sizeof(uint32_t)

static const char CONFIG[] = "workers: 1\nlisten: \"127.0.0.1:2407\"\n"
                             "tls: {certificate: c, key: k, client_ca: a}\n"
                             "keys: [{dir: keys}]\ncertificates: [{dir: sites}]\n"
                             "clients:\n"
                             "  - {match: \"CN:a\", keys: [\"a*\"], allow: [tls13, tls12, digest, decrypt]}\n"
                             "  - {match: \"CN:b\", keys: [\"*\"], allow: [tls13]}\n";

struct world {
    struct keyserver_config *config;
    struct key_table keys;
    struct policy *policy;
    struct sample sample;
    uint8_t scratch[KSSL_PAYLOAD_MAX];
};

static _Noreturn void fail(const char *what)
{
    (void)fprintf(stderr, "forbidden-key: %s\n", what);
    exit(1);
}

/* ---- Keys, which have names and nothing else. */

static void make_name(const char *of, unsigned number, uint8_t *name, size_t size)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    char text[64];
    int length = snprintf(text, sizeof text, "%s %u", of, number);
    if (EVP_Digest(text, (size_t)length, digest, NULL, EVP_sha512(), NULL) != 1)
        fail("no hash");
    memcpy(name, digest, size);
}

static int by_ski(const void *a, const void *b)
{
    return memcmp(((const struct key_id *)a)->ski, ((const struct key_id *)b)->ski, KEY_ID_SKI_SIZE);
}

static void make_keys(struct key_table *table)
{
    struct key_id ids[KEYS];
    for (unsigned i = 0; i < KEYS; i++) {
        ids[i] = (struct key_id){.type = KEY_TYPE_P256, .signature_size = 72};
        make_name("ski", i, ids[i].ski, sizeof ids[i].ski);
        make_name("digest", i, ids[i].digest, sizeof ids[i].digest);
    }
    qsort(ids, KEYS, sizeof *ids, by_ski);
    for (unsigned i = 0; i < KEYS; i++) {
        char label[16];
        int length = snprintf(label, sizeof label, "%c%u", i % 2 == 0 ? 'a' : 'b', i);
        if (key_table_add(table, &ids[i], bytes_of(label, (size_t)length), NULL) != RESULT_OK)
            fail("no key");
    }
}

static void make_world(struct world *world, const char *chain)
{
    struct failure why = {RESULT_OK, ""};
    const struct config_source source = {
        .file = "keyserver.yaml", .directory = "/", .text = bytes_of(CONFIG, sizeof CONFIG - 1)};
    if (keyserver_config_parse(&source, &world->config, &why) != RESULT_OK)
        fail(why.text);
    make_keys(&world->keys);
    if (policy_new(world->config, &world->keys, &world->policy, &why) != RESULT_OK ||
        sample_open(&world->sample, chain, NULL, &why) != RESULT_OK)
        fail(why.text);
}

static void end_world(struct world *world)
{
    sample_close(&world->sample);
    policy_free(world->policy);
    key_table_clear(&world->keys);
    keyserver_config_free(world->config);
}

/* ---- Requests. */

/* Nothing is wrong with them but the key. */
static void write_payload(const struct world *world, uint8_t opcode, struct writer *to)
{
    static const uint8_t SEED[SAMPLE_SEED_SIZE], MARK[] = {0x44, 0x4F, 0x57, 0x4E, 0x47, 0x52, 0x44, 0x01};
    if (opcode >= KSSL_OP_HELLO)
        write_u16(to, 0x0403);
    if (opcode == KSSL_OP_SIGN_TRANSCRIPT) {
        sample_write(&world->sample, SEED, to);
    } else if (opcode == KSSL_OP_SIGN_TLS12) {
        write_fill(to, 'r', 2 * TLS_RANDOM_SIZE - sizeof MARK);
        write_bytes(to, bytes_of(MARK, sizeof MARK));
        write_bytes(to, bytes_of("\x03\x00\x1d\x20", 4));
        write_fill(to, 'p', 32);
    } else {
        write_fill(to, 'h', 32);
    }
}

struct asked {
    uint8_t opcode;
    bool by_digest;
};

static void ask(struct world *world, const struct asked *asked, const uint8_t *name)
{
    static uint8_t payload[KSSL_PAYLOAD_MAX], frame[KSSL_FRAME_MAX];
    struct writer payload_to = writer_of(payload, sizeof payload), to = writer_of(frame, sizeof frame);
    write_payload(world, asked->opcode, &payload_to);
    struct kssl_message message = {
        .has_opcode = true, .opcode = asked->opcode, .payload = writer_bytes(&payload_to)};
    if (asked->by_digest)
        message.digest = bytes_of(name, KEY_ID_DIGEST_SIZE);
    else
        message.ski = bytes_of(name, KEY_ID_SKI_SIZE);
    if (!kssl_message_write(&to, 1, &message))
        fail("no request");
    struct kssl_header header;
    const struct operation_time now = {.unix_seconds = 1, .clock = 1};
    struct operation operation;
    kssl_header_parse(frame, &header);
    operation_decide(world->policy, 0, &header, bytes_of(frame + KSSL_HEADER_SIZE, header.length), &now,
                     world->scratch, &operation);
    if (operation.error != KSSL_ERROR_KEY_NOT_FOUND || operation.reason != NULL)
        fail("the answer is not that there is no such key");
}

static void ask_for_each(struct world *world, const struct asked *asked, bool forbidden)
{
    for (size_t i = 1; i < KEYS; i += 2) {
        uint8_t name[KEY_ID_DIGEST_SIZE] = {0};
        size_t size = asked->by_digest ? KEY_ID_DIGEST_SIZE : KEY_ID_SKI_SIZE;
        const struct key_id *id = &world->keys.keys[i].id;
        memcpy(name, asked->by_digest ? id->digest : id->ski, size);
        if (!forbidden)
            make_name("nobody's", (unsigned)i, name + PLACE_SIZE, size - PLACE_SIZE);
        ask(world, asked, name);
    }
}

static const struct {
    const char *name;
    struct asked asked;
} OPERATIONS[] = {
    {"sign-tls13", {KSSL_OP_SIGN_TLS13, false}},
    {"sign-tls12", {KSSL_OP_SIGN_TLS12, false}},
    {"sign-transcript", {KSSL_OP_SIGN_TRANSCRIPT, false}},
    {"ecdsa-sha256", {KSSL_OP_ECDSA_SHA256, false}},
    {"ecdsa-sha256-by-digest", {KSSL_OP_ECDSA_SHA256, true}},
    {"ed25519", {KSSL_OP_ED25519, false}},
    {"decrypt", {KSSL_OP_RSA_DECRYPT, false}},
};

int main(int argc, char **argv)
{
    if (argc != 4)
        fail("usage: forbidden-key CHAIN OPERATION forbidden|unknown");
    struct world *world = calloc(1, sizeof *world);
    if (world == NULL)
        fail("no memory");
    make_world(world, argv[1]);
    bool found = false;
    for (size_t i = 0; i < sizeof OPERATIONS / sizeof *OPERATIONS; i++) {
        if (strcmp(argv[2], OPERATIONS[i].name) == 0) {
            ask_for_each(world, &OPERATIONS[i].asked, strcmp(argv[3], "forbidden") == 0);
            found = true;
        }
    }
    end_world(world);
    free(world);
    if (!found)
        fail("no such operation");
    return 0;
}
