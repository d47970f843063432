#include "proxy/config_tls.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "common/tls_message.h"

#define WORD_SIZE      64  /* of a group, a suite or a cipher, with the terminating zero */
#define HOST_NAME_SIZE 253 /* octets that DNS allows for a name as people write it */
#define KNOWN_SIZE     320 /* of a list of known words in an error */

static void context_free(SSL_CTX **context)
{
    SSL_CTX_free(*context);
}

static SSL_CTX *scratch_context(struct failure *why)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL)
        (void)failure_set_openssl(why, "cannot make a TLS context");
    return context;
}

/* Copies the next of the words in *list, which stand between any of `separators`. False at the end. A word
 * too long to be any is cut, which makes it unknown. */
static bool next_word(const char **list, const char *separators, char word[static WORD_SIZE])
{
    if (*list == NULL)
        return false;
    size_t size = strcspn(*list, separators);
    (void)snprintf(word, WORD_SIZE, "%.*s", (int)size, *list);
    *list = (*list)[size] != '\0' ? *list + size + 1 : NULL;
    return true;
}

static void add_known(char known[static KNOWN_SIZE], const char *name)
{
    size_t used = strlen(known);
    (void)snprintf(known + used, KNOWN_SIZE - used, "%s%s", used > 0 ? ", " : "", name);
}

/* ---- Groups. */

/* Under each name that OpenSSL has for them. Others have no place in the key server's TLS 1.2 operation. */
static const struct group {
    const char *name;
    const char *aliases[3];
} GROUPS[] = {
    {"X25519", {NULL}},
    {"X448", {NULL}},
    {"P-256", {"secp256r1", "prime256v1", NULL}},
    {"P-384", {"secp384r1", NULL}},
    {"P-521", {"secp521r1", NULL}},
    {"X25519MLKEM768", {NULL}},
    {"SecP256r1MLKEM768", {NULL}},
    {"SecP384r1MLKEM1024", {NULL}},
};
#define GROUP_COUNT (sizeof GROUPS / sizeof *GROUPS)

static bool group_has_name(const struct group *group, const char *word)
{
    if (strcasecmp(group->name, word) == 0)
        return true;
    for (size_t i = 0; group->aliases[i] != NULL; i++) {
        if (strcasecmp(group->aliases[i], word) == 0)
            return true;
    }
    return false;
}

static bool group_works(SSL_CTX *context, const char *word)
{
    bool named = false;
    for (size_t i = 0; i < GROUP_COUNT; i++)
        named = named || group_has_name(&GROUPS[i], word);
    bool works = named && SSL_CTX_set1_groups_list(context, word) == 1;
    ERR_clear_error();
    return works;
}

static enum result refuse_group(SSL_CTX *context, const char *word, struct failure *why)
{
    char known[KNOWN_SIZE] = "";
    for (size_t i = 0; i < GROUP_COUNT; i++) {
        if (group_works(context, GROUPS[i].name))
            add_known(known, GROUPS[i].name);
    }
    return failure_set(why, RESULT_CONFIG, "got the unknown group \"%s\", expected some of %s", word, known);
}

enum result proxy_config_check_groups(const struct config_row *row, const void *value, struct failure *why)
{
    (void)row;
    const char *groups = *(char *const *)value;
    CLEANUP(context_free) SSL_CTX *context = scratch_context(why);
    if (context == NULL)
        return RESULT_CRYPTO;
    char word[WORD_SIZE];
    /* OpenSSL 3.5 also knows tuples (X25519MLKEM768/X25519) and marks a key share (*) or an optional group
     * (?); 3.0 refuses the list as a whole below. */
    for (const char *rest = groups; next_word(&rest, ":/", word);) {
        const char *name = word + strspn(word, "*?");
        if (!group_works(context, name))
            return refuse_group(context, name, why);
    }
    if (SSL_CTX_set1_groups_list(context, groups) == 1)
        return RESULT_OK;
    ERR_clear_error();
    return failure_set(why, RESULT_CONFIG,
                       "got \"%.128s\", expected groups between colons, each once: OpenSSL refuses this list",
                       groups);
}

/* ---- TLS 1.3 suites. */

static const char *const SUITES[] = {
    "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384",   "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256",
};
#define SUITE_COUNT (sizeof SUITES / sizeof *SUITES)

static bool is_tls13(const SSL_CIPHER *cipher)
{
    return strcmp(SSL_CIPHER_get_version(cipher), "TLSv1.3") == 0;
}

/* OpenSSL 3 passes over a suite that it does not know: only the result tells. */
static bool suite_works(SSL_CTX *context, const char *word)
{
    bool accepted = SSL_CTX_set_ciphersuites(context, word) == 1;
    ERR_clear_error();
    const STACK_OF(SSL_CIPHER) *ciphers = SSL_CTX_get_ciphers(context);
    for (int i = 0; accepted && i < sk_SSL_CIPHER_num(ciphers); i++) {
        const SSL_CIPHER *cipher = sk_SSL_CIPHER_value(ciphers, i);
        if (is_tls13(cipher) && strcmp(SSL_CIPHER_get_name(cipher), word) == 0)
            return true;
    }
    return false;
}

enum result proxy_config_check_ciphersuites(const struct config_row *row, const void *value,
                                            struct failure *why)
{
    (void)row;
    CLEANUP(context_free) SSL_CTX *context = scratch_context(why);
    if (context == NULL)
        return RESULT_CRYPTO;
    char word[WORD_SIZE];
    for (const char *rest = *(char *const *)value; next_word(&rest, ":", word);) {
        if (suite_works(context, word))
            continue;
        char known[KNOWN_SIZE] = "";
        for (size_t i = 0; i < SUITE_COUNT; i++) {
            if (suite_works(context, SUITES[i]))
                add_known(known, SUITES[i]);
        }
        return failure_set(why, RESULT_CONFIG, "got the unknown cipher suite \"%s\", expected some of %s",
                           word, known);
    }
    return RESULT_OK;
}

/* ---- TLS 1.2 ciphers. */

static bool is_acceptable(const SSL_CIPHER *cipher)
{
    return is_tls13(cipher) ||
           (SSL_CIPHER_get_kx_nid(cipher) == NID_kx_ecdhe && SSL_CIPHER_is_aead(cipher) == 1 &&
            SSL_CIPHER_get_auth_nid(cipher) != NID_auth_null);
}

/* Every word that adds ciphers must find some; OpenSSL passes over a misspelt one. */
static enum result check_cipher_words(SSL_CTX *context, const char *ciphers, struct failure *why)
{
    char word[WORD_SIZE];
    for (const char *rest = ciphers; next_word(&rest, ":, ", word);) {
        if (word[0] == '@')
            return failure_set(why, RESULT_CONFIG, "got \"%s\", expected ciphers: commands are not allowed",
                               word);
        if (strchr("!-+", word[0]) != NULL && word[0] != '\0')
            continue;
        int found = SSL_CTX_set_cipher_list(context, word);
        ERR_clear_error();
        if (found != 1)
            return failure_set(why, RESULT_CONFIG,
                               "got the unknown cipher \"%s\", expected ECDHE ciphers with AES-GCM or "
                               "ChaCha20-Poly1305 by their OpenSSL names",
                               word);
    }
    return RESULT_OK;
}

enum result proxy_config_check_ciphers(const struct config_row *row, const void *value, struct failure *why)
{
    (void)row;
    const char *text = *(char *const *)value;
    CLEANUP(context_free) SSL_CTX *context = scratch_context(why);
    if (context == NULL)
        return RESULT_CRYPTO;
    enum result result = check_cipher_words(context, text, why);
    if (result != RESULT_OK)
        return result;
    int accepted = SSL_CTX_set_cipher_list(context, text);
    ERR_clear_error();
    if (accepted != 1)
        return failure_set(why, RESULT_CONFIG, "got \"%.128s\", expected at least one cipher", text);
    const STACK_OF(SSL_CIPHER) *ciphers = SSL_CTX_get_ciphers(context);
    for (int i = 0; i < sk_SSL_CIPHER_num(ciphers); i++) {
        const SSL_CIPHER *cipher = sk_SSL_CIPHER_value(ciphers, i);
        if (!is_acceptable(cipher))
            return failure_set(why, RESULT_CONFIG,
                               "got \"%.128s\" with %s in it, expected only ECDHE with AES-GCM or "
                               "ChaCha20-Poly1305",
                               text, SSL_CIPHER_get_name(cipher));
    }
    return RESULT_OK;
}

/* ---- Signature schemes. */

enum result proxy_config_check_schemes(const struct config_row *row, const void *value, struct failure *why)
{
    (void)row;
    const char *schemes = *(char *const *)value;
    CLEANUP(context_free) SSL_CTX *context = scratch_context(why);
    if (context == NULL)
        return RESULT_CRYPTO;
    char word[WORD_SIZE];
    for (const char *rest = schemes; next_word(&rest, ":", word);) {
        if (tls_scheme_named(word) != NULL && SSL_CTX_set1_sigalgs_list(context, word) == 1)
            continue;
        ERR_clear_error();
        char known[KNOWN_SIZE] = "";
        const struct tls_scheme *scheme = NULL;
        while ((scheme = tls_scheme_next(scheme)) != NULL)
            add_known(known, scheme->name);
        return failure_set(why, RESULT_CONFIG, "got the unknown signature scheme \"%s\", expected some of %s",
                           word, known);
    }
    if (SSL_CTX_set1_sigalgs_list(context, schemes) == 1)
        return RESULT_OK;
    ERR_clear_error();
    return failure_set(why, RESULT_CONFIG, "got \"%.128s\", expected signature schemes between colons",
                       schemes);
}

/* ---- Names. */

enum result proxy_config_check_name(const struct config_row *row, const void *value, struct failure *why)
{
    (void)row;
    const char *name = *(char *const *)value;
    static const char ALLOWED[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    if (strspn(name, ALLOWED) == strlen(name) && name[0] != '.' && strlen(name) <= HOST_NAME_SIZE)
        return RESULT_OK;
    return failure_set(why, RESULT_CONFIG, "got \"%.253s\", expected a host name", name);
}
