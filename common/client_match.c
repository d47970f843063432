#include "common/client_match.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>

struct match_form {
    const char *prefix;
    const char *expected; /* behind "expected" */
    /* Brings the value into its one form, and keeps what is compared. */
    bool (*parse)(char *value, struct client_match *match);
    bool (*fits)(const struct client_match *match, X509 *certificate);
    int san_type; /* of a GENERAL_NAME; -1: not about SANs */
};

/* ---- Forms of values. */

static bool parse_text(char *value, struct client_match *match)
{
    match->text = bytes_of(value, strlen(value));
    return match->text.size > 0;
}

static bool parse_host_name(char *value, struct client_match *match)
{
    static const char ALLOWED[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.";
    for (char *at = value; *at != '\0'; at++)
        *at = (char)tolower((unsigned char)*at);
    return value[0] != '.' && strspn(value, ALLOWED) == strlen(value) && parse_text(value, match);
}

static bool parse_host_pattern(char *value, struct client_match *match)
{
    match->wildcard = strncmp(value, "*.", 2) == 0;
    if (!match->wildcard)
        return parse_host_name(value, match);
    return parse_host_name(value + 2, match) && strchr(value + 2, '.') != NULL;
}

static bool parse_ip(char *value, struct client_match *match)
{
    if (inet_pton(AF_INET, value, match->octets) == 1)
        match->octet_count = 4;
    else if (inet_pton(AF_INET6, value, match->octets) == 1)
        match->octet_count = 16;
    return match->octet_count > 0;
}

/* 32 pairs of digits, all of them with colons between as OpenSSL prints them, or none; kept as 64 in lower
 * case. */
static bool parse_fingerprint(char *value, struct client_match *match)
{
    static const char DIGITS[] = "0123456789abcdef";
    const char *from = value;
    const bool colons = strchr(value, ':') != NULL;
    for (size_t i = 0; i < sizeof match->octets; i++) {
        if (i > 0 && colons && *from++ != ':')
            return false;
        int high = OPENSSL_hexchar2int((unsigned char)from[0]);
        int low = high >= 0 ? OPENSSL_hexchar2int((unsigned char)from[1]) : -1;
        if (low < 0)
            return false;
        from += 2;
        value[2 * i] = DIGITS[high];
        value[2 * i + 1] = DIGITS[low];
        match->octets[i] = (uint8_t)(high << 4 | low);
    }
    if (*from != '\0')
        return false;
    match->octet_count = sizeof match->octets;
    value[2 * sizeof match->octets] = '\0';
    return true;
}

/* ---- Against certificates. */

static bool text_equal(struct bytes wanted, const ASN1_STRING *found)
{
    return bytes_equal(wanted, bytes_of(ASN1_STRING_get0_data(found), (size_t)ASN1_STRING_length(found)));
}

static bool text_equal_nocase(struct bytes wanted, const ASN1_STRING *found)
{
    return wanted.size == (size_t)ASN1_STRING_length(found) &&
           strncasecmp((const char *)wanted.data, (const char *)ASN1_STRING_get0_data(found), wanted.size) ==
               0;
}

/* One label, and what is wanted behind its dot. */
static bool is_below(struct bytes wanted, const ASN1_STRING *found)
{
    struct bytes name = bytes_of(ASN1_STRING_get0_data(found), (size_t)ASN1_STRING_length(found));
    const uint8_t *dot = name.size > 0 ? memchr(name.data, '.', name.size) : NULL;
    if (dot == NULL || dot == name.data || memchr(name.data, '*', (size_t)(dot - name.data)) != NULL)
        return false;
    size_t rest = name.size - (size_t)(dot + 1 - name.data);
    return rest == wanted.size && strncasecmp((const char *)wanted.data, (const char *)dot + 1, rest) == 0;
}

static bool san_equal(const struct client_match *match, const GENERAL_NAME *name)
{
    int type;
    const ASN1_STRING *value = GENERAL_NAME_get0_value(name, &type);
    if (type != match->form->san_type)
        return false;
    if (type == GEN_DNS)
        return match->wildcard ? is_below(match->text, value) : text_equal_nocase(match->text, value);
    if (type == GEN_URI)
        return text_equal(match->text, value);
    return text_equal(bytes_of(match->octets, match->octet_count), value);
}

static bool fits_san(const struct client_match *match, X509 *certificate)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    bool found = false;
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found; i++)
        found = san_equal(match, sk_GENERAL_NAME_value(names, i));
    GENERAL_NAMES_free(names);
    return found;
}

static bool common_name_equal(const struct client_match *match, const X509_NAME_ENTRY *entry)
{
    unsigned char *utf8 = NULL;
    int size = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(entry));
    bool equal = size >= 0 && bytes_equal(match->text, bytes_of(utf8, (size_t)size));
    OPENSSL_free(utf8);
    return equal;
}

static bool fits_common_name(const struct client_match *match, X509 *certificate)
{
    const X509_NAME *subject = X509_get_subject_name(certificate);
    int at = -1;
    while ((at = X509_NAME_get_index_by_NID(subject, NID_commonName, at)) >= 0)
        if (common_name_equal(match, X509_NAME_get_entry(subject, at)))
            return true;
    return false;
}

static bool fits_fingerprint(const struct client_match *match, X509 *certificate)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    return X509_digest(certificate, EVP_sha256(), digest, &size) == 1 &&
           bytes_equal(bytes_of(match->octets, match->octet_count), bytes_of(digest, size));
}

static const struct match_form FORMS[] = {
    {"DNS:", "a host name behind DNS:", parse_host_name, fits_san, GEN_DNS},
    {"IP:", "an IP address behind IP:", parse_ip, fits_san, GEN_IPADD},
    {"URI:", "a URI behind URI:", parse_text, fits_san, GEN_URI},
    {"CN:", "a name behind CN:", parse_text, fits_common_name, -1},
    {"sha256:", "64 hexadecimal digits behind sha256:", parse_fingerprint, fits_fingerprint, -1},
};

static const struct match_form PATTERN = {"DNS:", "a host name behind DNS:, or *. and two labels of one",
                                          parse_host_pattern, fits_san, GEN_DNS};

/* host: the form for host names. */
static enum result parse(char *text, const struct match_form *host, struct client_match *match,
                         struct failure *why)
{
    char given[200];
    const char *expected = CLIENT_MATCH_FORMS;
    (void)snprintf(given, sizeof given, "%s", text);
    for (size_t i = 0; i < sizeof FORMS / sizeof *FORMS; i++) {
        const struct match_form *form = i == 0 ? host : &FORMS[i];
        size_t prefix = strlen(form->prefix);
        if (strncmp(text, form->prefix, prefix) != 0)
            continue;
        *match = (struct client_match){.form = form};
        if (form->parse(text + prefix, match))
            return RESULT_OK;
        expected = form->expected;
    }
    return failure_set(why, RESULT_CONFIG, "got \"%s\", expected %s", given, expected);
}

enum result client_match_parse(char *text, struct client_match *match, struct failure *why)
{
    return parse(text, &FORMS[0], match, why);
}

enum result client_match_parse_pattern(char *text, struct client_match *match, struct failure *why)
{
    return parse(text, &PATTERN, match, why);
}

bool client_match_fits(const struct client_match *match, X509 *certificate)
{
    return match->form->fits(match, certificate);
}

/* ---- Descriptions. */

static void describe_more(char *text, const char *prefix, const unsigned char *value, int size)
{
    size_t used = strlen(text);
    (void)snprintf(text + used, CLIENT_DESCRIPTION_SIZE - used, ", %s%.*s", prefix, size,
                   (const char *)value);
}

static void describe_fingerprint(X509 *certificate, char *text)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    (void)snprintf(text, CLIENT_DESCRIPTION_SIZE, "sha256:");
    if (X509_digest(certificate, EVP_sha256(), digest, &size) != 1)
        return;
    for (unsigned i = 0; i < size; i++) {
        size_t used = strlen(text);
        (void)snprintf(text + used, CLIENT_DESCRIPTION_SIZE - used, "%02x", digest[i]);
    }
}

static void describe_sans(X509 *certificate, char *text)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        int type;
        const ASN1_STRING *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
        if (type == GEN_DNS || type == GEN_URI)
            describe_more(text, type == GEN_DNS ? "DNS:" : "URI:", ASN1_STRING_get0_data(value),
                          ASN1_STRING_length(value));
    }
    GENERAL_NAMES_free(names);
}

void client_describe(X509 *certificate, char text[static CLIENT_DESCRIPTION_SIZE])
{
    describe_fingerprint(certificate, text);
    describe_sans(certificate, text);
    const X509_NAME *subject = X509_get_subject_name(certificate);
    int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
    unsigned char *utf8 = NULL;
    int size =
        at >= 0 ? ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at))) : -1;
    if (size >= 0)
        describe_more(text, "CN:", utf8, size);
    OPENSSL_free(utf8);
}
