/* What an OCSP responder answers: nothing at all like a response, or a good one with some octets changed,
 * which is then never good. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/evp.h>
#include <openssl/ocsp.h>
#include <openssl/x509.h>

#include "proxy/ocsp_response.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The chain, and a good response about it. */
struct world {
    X509 *issuer;
    struct certificate certificate;
    unsigned char *response;
    size_t size;
};

static X509 *make(EVP_PKEY *key)
{
    X509 *made = X509_new();
    X509_NAME *name = X509_get_subject_name(made);
    assert(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"fuzz", -1, -1, 0) ==
           1);
    assert(X509_set_issuer_name(made, name) == 1 && X509_set_pubkey(made, key) == 1);
    (void)X509_gmtime_adj(X509_getm_notBefore(made), -60);
    (void)X509_gmtime_adj(X509_getm_notAfter(made), 86400);
    assert(X509_sign(made, key, EVP_sha256()) > 0);
    return made;
}

static void respond(struct world *world, EVP_PKEY *key)
{
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    OCSP_CERTID *id = OCSP_cert_to_id(NULL, world->issuer, world->issuer);
    ASN1_TIME *from = X509_gmtime_adj(NULL, -60), *until = X509_gmtime_adj(NULL, 86400);
    assert(ASN1_TIME_to_generalizedtime(from, &from) != NULL);
    assert(ASN1_TIME_to_generalizedtime(until, &until) != NULL);
    assert(OCSP_basic_add1_status(basic, id, V_OCSP_CERTSTATUS_GOOD, 0, NULL, from, until) != NULL);
    assert(OCSP_basic_sign(basic, world->issuer, key, EVP_sha256(), NULL, OCSP_NOCERTS) == 1);
    OCSP_RESPONSE *response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    world->size = (size_t)i2d_OCSP_RESPONSE(response, &world->response);
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(id);
    ASN1_TIME_free(from);
    ASN1_TIME_free(until);
}

static const struct world *world_get(void)
{
    static struct world world;
    if (world.response != NULL)
        return &world;
    unsigned char *der = NULL;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    world.issuer = make(key);
    int size = i2d_X509(world.issuer, &der);
    world.certificate = (struct certificate){
        .path = "fuzz.pem", .leaf = bytes_of(der, (size_t)size), .issuers = &world.issuer, .issuer_count = 1};
    respond(&world, key);
    EVP_PKEY_free(key);
    return &world;
}

static enum result check(const struct world *world, struct bytes response)
{
    struct ocsp_status status;
    struct failure why = {0};
    enum result result = ocsp_response_check(response, &world->certificate, time(NULL), &status, &why);
    assert(result == RESULT_OK || (result == RESULT_PROTOCOL && why.text[0] != '\0'));
    return result;
}

/* Each three octets: where, and what is changed there. */
static void check_changed(const struct world *world, const uint8_t *data, size_t size)
{
    uint8_t *changed = malloc(world->size);
    memcpy(changed, world->response, world->size);
    for (size_t i = 0; i + 3 <= size; i += 3)
        changed[(size_t)(data[i] << 8 | data[i + 1]) % world->size] ^= data[i + 2];
    bool same = memcmp(changed, world->response, world->size) == 0;
    assert((check(world, bytes_of(changed, world->size)) == RESULT_OK) == same);
    free(changed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct world *world = world_get();
    if (size > 0 && data[0] % 2 == 0)
        check_changed(world, data + 1, size - 1);
    else
        assert(check(world, bytes_of(data, size)) != RESULT_OK);
    return 0;
}
