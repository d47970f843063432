/* Every form that a key file may have, and every reason to refuse one: made at run time. */
#include "keyserver/key_store.h"

#include "tests/unit/check.h"

#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/core_names.h>
#include <openssl/encoder.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "keyserver/key_file.h"

/* ---- A directory with key files. */

struct directory {
    char path[64];
    char files[32][300];
    size_t count;
};

static int directory_make(void **state)
{
    struct directory *directory = calloc(1, sizeof *directory);
    (void)snprintf(directory->path, sizeof directory->path, "/tmp/keyless-keys-XXXXXX");
    *state = directory;
    return mkdtemp(directory->path) == NULL;
}

static int directory_remove(void **state)
{
    struct directory *directory = *state;
    for (size_t i = 0; i < directory->count; i++)
        if (unlink(directory->files[i]) != 0)
            (void)rmdir(directory->files[i]);
    int failed = rmdir(directory->path);
    free(directory);
    return failed;
}

static const char *directory_name(struct directory *directory, const char *name)
{
    struct writer to = writer_of(directory->files[directory->count], sizeof directory->files[0]);
    write_bytes(&to, bytes_of(directory->path, strlen(directory->path)));
    write_u8(&to, '/');
    write_bytes(&to, bytes_of(name, strlen(name) + 1));
    assert_true(writer_ok(&to));
    return directory->files[directory->count++];
}

static const char *write_file(struct directory *directory, const char *name, struct bytes content,
                              mode_t mode)
{
    const char *path = directory_name(directory, name);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(content.data, 1, content.size, file), content.size);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
    return path;
}

/* ---- Keys and their forms. */

struct form {
    const char *name;
    const char *format, *structure; /* OpenSSL's encoder's */
    const char *cipher;             /* NULL: not encrypted */
};

static const struct form PEM_PKCS8 = {"PEM PKCS#8", "PEM", "PrivateKeyInfo", NULL};
static const struct form DER_PKCS8 = {"DER PKCS#8", "DER", "PrivateKeyInfo", NULL};
static const struct form PEM_TRADITIONAL = {"PEM PKCS#1 or SEC1", "PEM", "type-specific", NULL};
static const struct form DER_TRADITIONAL = {"DER PKCS#1 or SEC1", "DER", "type-specific", NULL};
static const struct form PEM_ENCRYPTED = {"PEM encrypted PKCS#8", "PEM", "EncryptedPrivateKeyInfo",
                                          "AES-256-CBC"};
static const struct form DER_ENCRYPTED = {"DER encrypted PKCS#8", "DER", "EncryptedPrivateKeyInfo",
                                          "AES-256-CBC"};

static struct bytes encode(EVP_PKEY *key, const struct form *form)
{
    unsigned char *data = NULL;
    size_t size = 0;
    OSSL_ENCODER_CTX *context =
        OSSL_ENCODER_CTX_new_for_pkey(key, EVP_PKEY_KEYPAIR, form->format, form->structure, NULL);
    assert_non_null(context);
    if (form->cipher != NULL) {
        assert_int_equal(OSSL_ENCODER_CTX_set_cipher(context, form->cipher, NULL), 1);
        assert_int_equal(OSSL_ENCODER_CTX_set_passphrase(context, (const unsigned char *)"secret", 6), 1);
    }
    assert_int_equal(OSSL_ENCODER_to_data(context, &data, &size), 1);
    OSSL_ENCODER_CTX_free(context);
    return bytes_of(data, size);
}

static void write_key(struct directory *directory, const char *name, EVP_PKEY *key, const struct form *form)
{
    struct bytes content = encode(key, form);
    (void)write_file(directory, name, content, 0600);
    OPENSSL_free((void *)(uintptr_t)content.data);
}

static EVP_PKEY *make_ec(const char *curve)
{
    EVP_PKEY *key = EVP_EC_gen(curve);
    assert_non_null(key);
    return key;
}

static EVP_PKEY *make_rsa(size_t bits)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", bits);
    assert_non_null(key);
    return key;
}

static EVP_PKEY *make_type(const char *type)
{
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, type);
    assert_non_null(key);
    return key;
}

static EVP_PKEY *make_rsa_pss(void)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "RSA-PSS", NULL);
    assert_int_equal(EVP_PKEY_keygen_init(context), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_keygen_bits(context, 2048), 1);
    assert_int_equal(EVP_PKEY_generate(context, &key), 1);
    EVP_PKEY_CTX_free(context);
    return key;
}

/* ---- Loading. */

static enum result load(const char *path, struct key_store **store, struct failure *why)
{
    char dir[64];
    (void)snprintf(dir, sizeof dir, "%s", path);
    struct keyserver_key_source source = {.where = {.file = "ks.yaml", .line = 7, .column = 4}, .dir = dir};
    const struct keyserver_config config = {.keys = &source, .key_count = 1};
    *store = NULL;
    why->text[0] = '\0';
    return key_store_load(&config, store, why);
}

/* Loading fails, and the line says where and what. */
static void assert_refused(const char *row, struct directory *directory, const char *file, const char *words)
{
    struct key_store *store;
    struct failure why;
    CHECK(row, load(directory->path, &store, &why) == RESULT_CONFIG);
    CHECK(row, why.kind == RESULT_CONFIG);
    CHECK(row, store == NULL);
    if (strstr(why.text, file) == NULL || strstr(why.text, words) == NULL)
        fail_msg("%s: the line names not \"%s\" and \"%s\": %s", row, file, words, why.text);
}

static void assert_loaded(const char *row, struct directory *directory, enum key_type type)
{
    struct key_store *store;
    struct failure why;
    if (load(directory->path, &store, &why) != RESULT_OK)
        fail_msg("%s: %s", row, why.text);
    const struct key_table *table = key_store_table(store);
    CHECK(row, table->count == 1);
    CHECK(row, table->keys[0].id.type == type);
    CHECK(row, strcmp(table->keys[0].label, "site.example") == 0);
    EVP_PKEY *duplicate = key_store_duplicate(store, 0);
    CHECK(row, duplicate != NULL);
    EVP_PKEY_free(duplicate);
    key_store_free(store);
}

static void clear(struct directory *directory)
{
    for (size_t i = 0; i < directory->count; i++)
        assert_int_equal(unlink(directory->files[i]), 0);
    directory->count = 0;
}

static void check_form(struct directory *directory, EVP_PKEY *key, enum key_type type,
                       const struct form *form)
{
    char row[100];
    static const char *const FILES[] = {"site.example.key", "site.example.pem"};
    (void)snprintf(row, sizeof row, "%s %s", key_type_name(type), form->name);
    for (size_t i = 0; i < COUNT_OF(FILES); i++) {
        write_key(directory, FILES[i], key, form);
        assert_loaded(row, directory, type);
        clear(directory);
    }
}

static void every_form_loads(void **state)
{
    const struct {
        enum key_type type;
        EVP_PKEY *key;
        bool traditional;
    } rows[] = {
        {KEY_TYPE_RSA, make_rsa(2048), true},
        {KEY_TYPE_P256, make_ec("P-256"), true},
        {KEY_TYPE_P384, make_ec("P-384"), true},
        {KEY_TYPE_P521, make_ec("P-521"), true},
        {KEY_TYPE_ED25519, make_type("ED25519"), false},
        {KEY_TYPE_ED448, make_type("ED448"), false},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        check_form(*state, rows[i].key, rows[i].type, &PEM_PKCS8);
        check_form(*state, rows[i].key, rows[i].type, &DER_PKCS8);
        if (rows[i].traditional) {
            check_form(*state, rows[i].key, rows[i].type, &PEM_TRADITIONAL);
            check_form(*state, rows[i].key, rows[i].type, &DER_TRADITIONAL);
        }
        EVP_PKEY_free(rows[i].key);
    }
}

/* As certbot's and HAProxy's bundles are: the chain and the key in one file, "openssl ecparam -genkey" too.
 */
static void blocks_beside_the_key_are_passed_over(void **state)
{
    struct directory *directory = *state;
    static const char OTHERS[] =
        "a line of text\n"
        "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    EVP_PKEY *key = make_ec("P-256");
    struct bytes pem = encode(key, &PEM_TRADITIONAL);
    char content[4096];
    (void)snprintf(content, sizeof content, "%s%.*s%s", OTHERS, (int)pem.size, (const char *)pem.data,
                   OTHERS);
    (void)write_file(directory, "site.example.pem", bytes_of(content, strlen(content)), 0400);
    assert_loaded("bundle", directory, KEY_TYPE_P256);
    OPENSSL_free((void *)(uintptr_t)pem.data);
    EVP_PKEY_free(key);
}

static void other_files_are_left_alone(void **state)
{
    struct directory *directory = *state;
    EVP_PKEY *key = make_ec("P-256");
    write_key(directory, "site.example.key", key, &PEM_PKCS8);
    (void)write_file(directory, "README", OCTETS("text"), 0644);
    (void)write_file(directory, "site.example.crt", OCTETS("text"), 0644);
    (void)write_file(directory, ".hidden.key", OCTETS("text"), 0644);
    (void)write_file(directory, "site.key.bak", OCTETS("text"), 0644);
    assert_loaded("among others", directory, KEY_TYPE_P256);
    EVP_PKEY_free(key);
}

/* ---- Refusals of one file, each beside a good one: one bad file and nothing is loaded. */

static void modes_of_others_are_refused(void **state)
{
    struct directory *directory = *state;
    static const mode_t MODES[] = {0640, 0604, 0660, 0644, 0610, 0601, 0602};
    EVP_PKEY *good = make_ec("P-256");
    EVP_PKEY *loose = make_ec("P-256");
    write_key(directory, "good.key", good, &PEM_PKCS8);
    write_key(directory, "loose.key", loose, &PEM_PKCS8);
    for (size_t i = 0; i < COUNT_OF(MODES); i++) {
        char words[16];
        assert_int_equal(chmod(directory->files[1], MODES[i]), 0);
        (void)snprintf(words, sizeof words, "mode is %04o", (unsigned)MODES[i]);
        assert_refused("mode", directory, "/loose.key: ", words);
    }
    EVP_PKEY_free(good);
    EVP_PKEY_free(loose);
}

static const struct {
    const char *name;
    struct bytes content;
    const char *words;
} CONTENT_ROWS[] = {
    {"empty", WIRE(""), "no private key can be read"},
    {"text", WIRE("this is no key at all\n"), "no private key can be read"},
    {"DER of something else", WIRE("\x30\x03\x02\x01\x05"), "no private key can be read"},
    {"certificates alone", WIRE("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"),
     "no private key among its 1 PEM blocks"},
    {"public key", WIRE("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"),
     "no private key among"},
    {"damaged base64", WIRE("-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n"), "damaged PEM"},
    {"cut PEM", WIRE("-----BEGIN PRIVATE KEY-----\nMAA=\n"), "damaged PEM"},
    {"damaged DER in PEM", WIRE("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"),
     "the private key cannot be read"},
    {"DSA", WIRE("-----BEGIN DSA PRIVATE KEY-----\nMAA=\n-----END DSA PRIVATE KEY-----\n"),
     "of a kind that TLS"},
    {"traditional encryption",
     WIRE("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMAA=\n"
          "-----END RSA PRIVATE KEY-----\n"),
     "encrypted"},
};

static void contents_that_are_no_key_are_refused(void **state)
{
    struct directory *directory = *state;
    EVP_PKEY *good = make_ec("P-256");
    for (size_t i = 0; i < COUNT_OF(CONTENT_ROWS); i++) {
        write_key(directory, "good.key", good, &PEM_PKCS8);
        (void)write_file(directory, "bad.pem", CONTENT_ROWS[i].content, 0600);
        assert_refused(CONTENT_ROWS[i].name, directory, "/bad.pem: ", CONTENT_ROWS[i].words);
        clear(directory);
    }
    EVP_PKEY_free(good);
}

static void encrypted_keys_are_refused(void **state)
{
    struct directory *directory = *state;
    EVP_PKEY *key = make_ec("P-256");
    const struct form *const forms[] = {&PEM_ENCRYPTED, &DER_ENCRYPTED};
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        write_key(directory, "bad.key", key, forms[i]);
        assert_refused(forms[i]->name, directory, "/bad.key: ", "encrypted");
        clear(directory);
    }
    EVP_PKEY_free(key);
}

static void public_keys_are_refused(void **state)
{
    struct directory *directory = *state;
    EVP_PKEY *keys[] = {make_ec("P-256"), make_rsa(2048), make_type("ED25519")};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        unsigned char *der = NULL;
        int size = i2d_PUBKEY(keys[i], &der);
        assert_true(size > 0);
        (void)write_file(directory, "public.key", bytes_of(der, (size_t)size), 0600);
        assert_refused("DER public key", directory, "/public.key: ", "no private key can be read");
        clear(directory);
        OPENSSL_free(der);
        EVP_PKEY_free(keys[i]);
    }
}

static void kinds_that_are_not_served_are_refused(void **state)
{
    struct directory *directory = *state;
    const struct {
        const char *name;
        EVP_PKEY *key;
        const char *words;
    } rows[] = {
        {"RSA-1024", make_rsa(1024), "1024 bits"},
        {"RSASSA-PSS", make_rsa_pss(), "RSASSA-PSS"},
        {"secp256k1", make_ec("secp256k1"), "secp256k1"},
        {"X25519", make_type("X25519"), "X25519"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        write_key(directory, "bad.key", rows[i].key, &PEM_PKCS8);
        assert_refused(rows[i].name, directory, "/bad.key: ", rows[i].words);
        clear(directory);
        EVP_PKEY_free(rows[i].key);
    }
}

static void the_same_key_twice_is_refused(void **state)
{
    struct directory *directory = *state;
    EVP_PKEY *key = make_rsa(2048);
    write_key(directory, "one.key", key, &PEM_PKCS8);
    write_key(directory, "two.pem", key, &DER_TRADITIONAL);
    assert_refused("duplicate", directory, "/one.key", "the same key");
    assert_refused("duplicate", directory, "/two.pem", "the same key");
    EVP_PKEY_free(key);
}

static void two_keys_in_one_file_are_refused(void **state)
{
    struct directory *directory = *state;
    EVP_PKEY *key = make_ec("P-256");
    struct bytes pem = encode(key, &PEM_PKCS8);
    char content[2048];
    (void)snprintf(content, sizeof content, "%.*s%.*s", (int)pem.size, (const char *)pem.data, (int)pem.size,
                   (const char *)pem.data);
    (void)write_file(directory, "two.pem", bytes_of(content, strlen(content)), 0600);
    assert_refused("two", directory, "/two.pem: ", "more than one private key");
    OPENSSL_free((void *)(uintptr_t)pem.data);
    EVP_PKEY_free(key);
}

static void trailing_octets_are_refused(void **state)
{
    struct directory *directory = *state;
    EVP_PKEY *key = make_ec("P-256");
    const struct form *const forms[] = {&DER_PKCS8, &DER_TRADITIONAL};
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        struct bytes der = encode(key, forms[i]);
        uint8_t content[1024];
        struct writer to = writer_of(content, sizeof content);
        write_bytes(&to, der);
        write_u8(&to, 0);
        (void)write_file(directory, "bad.key", writer_bytes(&to), 0600);
        assert_refused(forms[i]->name, directory, "/bad.key: ", "no private key can be read");
        clear(directory);
        OPENSSL_free((void *)(uintptr_t)der.data);
    }
    EVP_PKEY_free(key);
}

/* SEC1 carries the public key beside the private one; here it is another key's. */
static void halves_that_do_not_belong_together_are_refused(void **state)
{
    struct directory *directory = *state;
    EVP_PKEY *one = make_ec("P-256");
    EVP_PKEY *other = make_ec("P-256");
    struct bytes der = encode(one, &DER_TRADITIONAL);
    struct bytes from = encode(other, &DER_TRADITIONAL);
    assert_int_equal(der.size, from.size);
    uint8_t *mixed = exact_copy(der);
    memcpy(mixed + der.size - 64, from.data + from.size - 64, 64); /* the point's coordinates stand last */
    (void)write_file(directory, "mixed.key", bytes_of(mixed, der.size), 0600);
    assert_refused("mixed", directory, "/mixed.key: ", "does not belong to its public key");
    free(mixed);
    OPENSSL_free((void *)(uintptr_t)der.data);
    OPENSSL_free((void *)(uintptr_t)from.data);
    EVP_PKEY_free(one);
    EVP_PKEY_free(other);
}

static void large_files_are_refused(void **state)
{
    struct directory *directory = *state;
    const char *path = write_file(directory, "large.key", OCTETS("x"), 0600);
    assert_int_equal(truncate(path, KEY_FILE_MAX + 1), 0);
    assert_refused("large", directory, "/large.key: ", "at most");
    assert_int_equal(truncate(path, KEY_FILE_MAX), 0);
    assert_refused("just not too large", directory, "/large.key: ", "no private key can be read");
}

static void what_is_no_file_is_refused(void **state)
{
    struct directory *directory = *state;
    const char *path = directory_name(directory, "thing.key");
    assert_int_equal(mkdir(path, 0700), 0);
    assert_refused("directory", directory, "/thing.key: ", "not a regular file");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_refused("pipe", directory, "/thing.key: ", "not a regular file");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/nowhere/at/all", path), 0);
    assert_refused("dangling link", directory, "/thing.key: ", "No such file");
}

static void links_to_good_files_are_followed(void **state)
{
    struct directory *directory = *state;
    EVP_PKEY *key = make_ec("P-256");
    write_key(directory, "real", key, &PEM_PKCS8);
    assert_int_equal(symlink(directory->files[0], directory_name(directory, "site.example.key")), 0);
    assert_loaded("link", directory, KEY_TYPE_P256);
    EVP_PKEY_free(key);
}

static void unreadable_files_are_refused(void **state)
{
    struct directory *directory = *state;
    if (geteuid() == 0)
        skip();
    (void)write_file(directory, "secret.key", OCTETS("x"), 0);
    assert_refused("unreadable", directory, "/secret.key: ", "Permission denied");
}

/* Started as root, front ends become nobody, and could read what is nobody's. */
static void files_of_the_front_ends_user_are_refused(void **state)
{
    struct directory *directory = *state;
    const struct passwd *nobody = getpwnam("nobody");
    if (geteuid() != 0 || nobody == NULL)
        skip();
    EVP_PKEY *key = make_ec("P-256");
    write_key(directory, "site.example.key", key, &PEM_PKCS8);
    EVP_PKEY_free(key);
    assert_int_equal(chown(directory->files[0], nobody->pw_uid + 1, (gid_t)-1), 0);
    assert_loaded("another user's", directory, KEY_TYPE_P256);
    assert_int_equal(chown(directory->files[0], nobody->pw_uid, (gid_t)-1), 0);
    assert_refused("nobody's", directory,
                   "/site.example.key: ", "it belongs to the user that the front ends run as");
}

/* ---- The whole. */

static void no_key_is_refused(void **state)
{
    struct directory *directory = *state;
    assert_refused("empty directory", directory, directory->path, "no private key");
}

static void a_missing_directory_names_the_line(void **state)
{
    (void)state;
    struct key_store *store;
    struct failure why;
    assert_int_equal(load("/nowhere/at/all", &store, &why), RESULT_CONFIG);
    assert_non_null(strstr(why.text, "ks.yaml:7:"));
    assert_non_null(strstr(why.text, "/nowhere/at/all"));
}

static void keys_come_by_ascending_ski(void **state)
{
    struct directory *directory = *state;
    for (int i = 0; i < 8; i++) {
        char name[24];
        EVP_PKEY *key = make_ec("P-256");
        (void)snprintf(name, sizeof name, "key%d.key", i);
        write_key(directory, name, key, &PEM_PKCS8);
        EVP_PKEY_free(key);
    }
    struct key_store *store;
    struct failure why;
    assert_int_equal(load(directory->path, &store, &why), RESULT_OK);
    assert_int_equal(key_store_table(store)->count, 8);
    assert_true(key_table_is_sorted(key_store_table(store)));
    for (size_t i = 0; i < 8; i++) {
        struct key_id id;
        EVP_PKEY *key = key_store_duplicate(store, i);
        assert_int_equal(key_id_of(key, &id, &why), RESULT_OK);
        assert_memory_equal(id.ski, key_store_table(store)->keys[i].id.ski, KEY_ID_SKI_SIZE);
        EVP_PKEY_free(key);
    }
    key_store_free(store);
}

#define IN_DIRECTORY(test) cmocka_unit_test_setup_teardown(test, directory_make, directory_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_DIRECTORY(every_form_loads),
        IN_DIRECTORY(blocks_beside_the_key_are_passed_over),
        IN_DIRECTORY(other_files_are_left_alone),
        IN_DIRECTORY(modes_of_others_are_refused),
        IN_DIRECTORY(contents_that_are_no_key_are_refused),
        IN_DIRECTORY(encrypted_keys_are_refused),
        IN_DIRECTORY(public_keys_are_refused),
        IN_DIRECTORY(kinds_that_are_not_served_are_refused),
        IN_DIRECTORY(the_same_key_twice_is_refused),
        IN_DIRECTORY(two_keys_in_one_file_are_refused),
        IN_DIRECTORY(trailing_octets_are_refused),
        IN_DIRECTORY(halves_that_do_not_belong_together_are_refused),
        IN_DIRECTORY(large_files_are_refused),
        IN_DIRECTORY(what_is_no_file_is_refused),
        IN_DIRECTORY(links_to_good_files_are_followed),
        IN_DIRECTORY(unreadable_files_are_refused),
        IN_DIRECTORY(files_of_the_front_ends_user_are_refused),
        IN_DIRECTORY(no_key_is_refused),
        cmocka_unit_test(a_missing_directory_names_the_line),
        IN_DIRECTORY(keys_come_by_ascending_ski),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
