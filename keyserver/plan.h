/* One reading of the configuration, as master and children share it. */
#ifndef KEYLESS_KEYSERVER_PLAN_H
#define KEYLESS_KEYSERVER_PLAN_H

#include <openssl/ssl.h>

#include "common/process.h"
#include "common/program_status.h"
#include "keyserver/client_load.h"
#include "keyserver/client_rates.h"
#include "keyserver/config.h"
#include "keyserver/site_certificates.h"

/* Index of each kind of child in the plan. */
enum { KIND_AUDITOR, KIND_SIGNER, KIND_FRONTEND, KIND_HELPER, KIND_COUNT };

#define PLAN_ACCESS_SIZE 32 /* SHA-256 */

struct keyserver_plan {
    struct keyserver_config *config;
    SSL_CTX *context;       /* the channel's; front ends serve with it */
    time_t crl_next_update; /* when the first revocation list is out of date; 0: never, or there is none */
    struct site_certificates *certificates;
    struct client_rates *rates; /* borrowed; all readings' */
    size_t *rate_numbers;       /* by client entry */
    struct client_load_area *load;
    struct process_kind kinds[KIND_COUNT];
    size_t kind_count;
    struct address *listen; /* the configuration's, and the admin endpoint's last if there is one */
    size_t *listen_kind;    /* which kind accepts on each */
    size_t listen_count;
    uint8_t access[PLAN_ACCESS_SIZE]; /* a digest of all that says who may do what */
    struct program program;           /* borrowed */
    /* status_records.h: of front ends, by index; of the signer; of its keys. */
    struct status_area *frontend_status, *signer_status, *key_status;
};

#endif
