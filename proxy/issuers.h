/* Certificates above leafs, each read and kept once however many chains it stands in. */
#ifndef KEYLESS_PROXY_ISSUERS_H
#define KEYLESS_PROXY_ISSUERS_H

#include <openssl/x509.h>

#include "common/bytes.h"
#include "common/result.h"
#include "proxy/chain_strength.h"

struct issuers;

/* strength is borrowed. NULL: no memory. */
struct issuers *issuers_new(struct chain_strength *strength);
void issuers_free(struct issuers *issuers);

/* The certificate with this DER; *issuer is borrowed. RESULT_CONFIG: it does not parse or is too weak. */
MUST_CHECK enum result issuers_take(struct issuers *issuers, struct bytes der, X509 **issuer,
                                    struct failure *why);
size_t issuers_count(const struct issuers *issuers);

#endif
