#include "common/certificate_names.h"

#include <string.h>

#include <openssl/asn1.h>
#include <openssl/x509v3.h>

#define LABEL_MAX 63

/* ctype.h goes by the locale. */
static char lower(uint8_t octet)
{
    return (char)(octet >= 'A' && octet <= 'Z' ? octet + ('a' - 'A') : octet);
}

static bool label_octet(char octet)
{
    return (octet >= 'a' && octet <= 'z') || (octet >= '0' && octet <= '9') || octet == '-' || octet == '_';
}

/* Checks dot-separated labels and counts them; 0: not a name. */
static unsigned labels_count(const char *name)
{
    unsigned labels = 0;
    size_t size = 0;
    for (;; name++) {
        if (*name == '.' || *name == '\0') {
            if (size == 0 || size > LABEL_MAX)
                return 0;
            labels++;
            size = 0;
            if (*name == '\0')
                return labels;
        } else if (label_octet(*name)) {
            size++;
        } else {
            return 0;
        }
    }
}

bool dns_name_normalise(struct bytes name, bool wildcard, char *into)
{
    if (name.size > 0 && name.data[name.size - 1] == '.')
        name.size--;
    if (name.size == 0 || name.size > DNS_NAME_MAX)
        return false;
    memset(into, 0, DNS_NAME_MAX + 1);
    for (size_t i = 0; i < name.size; i++)
        into[i] = lower(name.data[i]);
    if (memchr(into, '\0', name.size) != NULL)
        return false;
    if (wildcard && strncmp(into, "*.", 2) == 0)
        return labels_count(into + 2) >= 2;
    return labels_count(into) > 0;
}

static struct bytes string_bytes(const ASN1_STRING *string)
{
    return bytes_of(ASN1_STRING_get0_data(string), (size_t)ASN1_STRING_length(string));
}

static bool name_handle(const GENERAL_NAME *name, const struct certificate_names_handler *handler,
                        void *owner)
{
    char text[DNS_NAME_MAX + 1];
    int type;
    const void *value = GENERAL_NAME_get0_value(name, &type);
    if (type == GEN_IPADD) {
        handler->ignored("IP address", string_bytes(value), owner);
    } else if (type == GEN_DNS) {
        struct bytes dns = string_bytes(value);
        if (dns_name_normalise(dns, true, text))
            return handler->found(text, owner);
        handler->ignored("name", dns, owner);
    }
    return true;
}

bool certificate_names(X509 *leaf, const struct certificate_names_handler *handler, void *owner)
{
    bool go_on = true;
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; go_on && i < sk_GENERAL_NAME_num(names); i++)
        go_on = name_handle(sk_GENERAL_NAME_value(names, i), handler, owner);
    GENERAL_NAMES_free(names);
    return go_on;
}
