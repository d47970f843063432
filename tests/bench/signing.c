#include "tests/bench/signing.h"

#include <stdio.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#define HASH_SIZE 32 /* of a transcript; also the size of an Ed25519 message */

/* ---- The key and how it signs. */

/* The public key of a certificate, or a bare one. */
static enum result read_key(const char *path, EVP_PKEY **key, struct failure *why)
{
    BIO *file = BIO_new_file(path, "r");
    if (file == NULL)
        return failure_set_openssl(why, "%s", path);
    X509 *certificate = PEM_read_bio_X509(file, NULL, NULL, NULL);
    *key = certificate != NULL ? X509_get_pubkey(certificate) : NULL;
    X509_free(certificate);
    if (*key == NULL && BIO_reset(file) == 0)
        *key = PEM_read_bio_PUBKEY(file, NULL, NULL, NULL);
    BIO_free(file);
    if (*key == NULL)
        return failure_set_openssl(why, "%s: neither a certificate nor a public key", path);
    ERR_clear_error();
    return RESULT_OK;
}

/* Those of TLS 1.3 first: of the ones that fit the key, the first is the default. */
static const uint16_t SCHEMES[] = {0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0804,
                                   0x0805, 0x0806, 0x0401, 0x0501, 0x0601};

/* Bare digests are not TLS 1.3's alone, but the default for a curve is its own hash all the same. */
static bool scheme_fits(const struct tls_scheme *scheme, enum key_type type, const char *wanted, bool bare)
{
    if (wanted != NULL && strcmp(wanted, scheme->name) != 0)
        return false;
    return tls_scheme_fits_tls13(scheme, type) ||
           (bare && wanted != NULL && tls_scheme_fits_tls12(scheme, type));
}

static enum result choose_scheme(struct signing *signing, const char *wanted, bool bare, struct failure *why)
{
    for (size_t i = 0; i < sizeof SCHEMES / sizeof *SCHEMES && signing->scheme == NULL; i++) {
        const struct tls_scheme *scheme = tls_scheme_find(SCHEMES[i]);
        if (scheme_fits(scheme, signing->id.type, wanted, bare))
            signing->scheme = scheme;
    }
    if (signing->scheme != NULL)
        return RESULT_OK;
    return failure_set(why, RESULT_CONFIG, "--scheme %s: not one that a key of type %s signs %s with",
                       wanted != NULL ? wanted : "(default)", key_type_name(signing->id.type),
                       bare ? "digests" : "TLS 1.3");
}

static bool operation_fits(const struct kssl_bare_operation *operation, const struct tls_scheme *scheme)
{
    if (operation->hash == NULL || scheme->hash == NULL)
        return operation->hash == scheme->hash && scheme->curve == KEY_TYPE_ED25519;
    return strcmp(operation->hash, scheme->hash) == 0 && operation->padding == scheme->padding &&
           operation->rsa == (scheme->curve == KEY_TYPE_RSA);
}

static enum result choose_operation(struct signing *signing, struct failure *why)
{
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        const struct kssl_bare_operation *operation = kssl_bare_find((uint8_t)opcode);
        if (operation == NULL || !operation_fits(operation, signing->scheme))
            continue;
        signing->bare = operation;
        return RESULT_OK;
    }
    return failure_set(why, RESULT_CONFIG, "--mode digest: no bare operation signs with %s",
                       signing->scheme->name);
}

enum result signing_open(struct signing *signing, const struct signing_choice *choice, struct failure *why)
{
    signing->mode = choice->mode;
    enum result result = read_key(choice->site, &signing->key, why);
    if (result == RESULT_OK)
        result = key_id_of(signing->key, &signing->id, why);
    if (result == RESULT_OK)
        result = choose_scheme(signing, choice->scheme, choice->mode == SIGNING_DIGEST, why);
    if (result == RESULT_OK && choice->mode == SIGNING_DIGEST)
        result = choose_operation(signing, why);
    if (result == RESULT_OK && choice->mode == SIGNING_TRANSCRIPT)
        result = sample_open(&signing->sample, choice->site, choice->sni, why);
    if (result != RESULT_OK)
        return result;
    signing->verifier = EVP_MD_CTX_new();
    return signing->verifier != NULL ? RESULT_OK : failure_set(why, RESULT_SYSTEM, "no memory");
}

void signing_close(struct signing *signing)
{
    EVP_MD_CTX_free(signing->verifier);
    EVP_PKEY_free(signing->key);
    sample_close(&signing->sample);
}

/* ---- Requests. */

uint8_t signing_opcode(const struct signing *signing)
{
    if (signing->mode == SIGNING_DIGEST)
        return signing->bare->opcode;
    return signing->mode == SIGNING_TRANSCRIPT ? KSSL_OP_SIGN_TRANSCRIPT : KSSL_OP_SIGN_TLS13;
}

/* What a bare operation gets: a digest that is no message's, or a message. */
static struct bytes bare_input(const struct signing *signing, const uint8_t *seed)
{
    return bytes_of(seed, signing->bare->input_size != 0 ? signing->bare->input_size : HASH_SIZE);
}

static void write_payload(const struct signing *signing, const uint8_t *seed, struct writer *to)
{
    if (signing->mode == SIGNING_DIGEST) {
        write_bytes(to, bare_input(signing, seed));
        return;
    }
    write_u16(to, signing->scheme->code);
    if (signing->mode == SIGNING_TRANSCRIPT)
        sample_write(&signing->sample, seed, to);
    else
        write_bytes(to, bytes_of(seed, HASH_SIZE));
}

bool signing_request_write(const struct signing *signing, uint32_t id,
                           const uint8_t seed[static SIGNING_SEED_SIZE], struct writer *frame)
{
    uint8_t payload[KSSL_PAYLOAD_MAX];
    struct writer to = writer_of(payload, sizeof payload);
    write_payload(signing, seed, &to);
    return writer_ok(&to) &&
           kssl_message_write(frame, id,
                              &(struct kssl_message){.has_opcode = true,
                                                     .opcode = signing_opcode(signing),
                                                     .ski = bytes_of(signing->id.ski, sizeof signing->id.ski),
                                                     .payload = writer_bytes(&to)});
}

/* ---- Verification. */

static bool set_padding(const struct signing *signing, EVP_PKEY_CTX *parameters)
{
    switch (signing->scheme->padding) {
    case TLS_PADDING_PSS:
        return EVP_PKEY_CTX_set_rsa_padding(parameters, RSA_PKCS1_PSS_PADDING) > 0 &&
               EVP_PKEY_CTX_set_rsa_pss_saltlen(parameters, RSA_PSS_SALTLEN_DIGEST) > 0;
    case TLS_PADDING_PKCS1:
        return EVP_PKEY_CTX_set_rsa_padding(parameters, RSA_PKCS1_PADDING) > 0;
    default:
        return true;
    }
}

static bool message_good(const struct signing *signing, struct bytes message, struct bytes signature)
{
    EVP_PKEY_CTX *parameters = NULL;
    return EVP_MD_CTX_reset(signing->verifier) == 1 &&
           EVP_DigestVerifyInit_ex(signing->verifier, &parameters, signing->scheme->hash, NULL, NULL,
                                   signing->key, NULL) == 1 &&
           set_padding(signing, parameters) &&
           EVP_DigestVerify(signing->verifier, signature.data, signature.size, message.data, message.size) ==
               1;
}

static bool digest_good(const struct signing *signing, struct bytes digest, struct bytes signature)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(signing->key, NULL);
    bool good = context != NULL && EVP_PKEY_verify_init(context) == 1 && set_padding(signing, context) &&
                EVP_PKEY_CTX_set_signature_md(context, EVP_get_digestbyname(signing->scheme->hash)) > 0 &&
                EVP_PKEY_verify(context, signature.data, signature.size, digest.data, digest.size) == 1;
    EVP_PKEY_CTX_free(context);
    return good;
}

static bool tls13_good(const struct signing *signing, const uint8_t *seed, struct bytes signature)
{
    uint8_t content[TLS_CERTIFICATE_VERIFY_MAX], hash[SAMPLE_HASH_SIZE];
    struct writer to = writer_of(content, sizeof content);
    bool of_messages = signing->mode == SIGNING_TRANSCRIPT;
    if (of_messages && !sample_hash(&signing->sample, seed, hash))
        return false;
    return tls_certificate_verify_write(&to, bytes_of(of_messages ? hash : seed, HASH_SIZE)) &&
           message_good(signing, writer_bytes(&to), signature);
}

bool signing_good(const struct signing *signing, const uint8_t seed[static SIGNING_SEED_SIZE],
                  struct bytes signature)
{
    bool good;
    if (signing->mode != SIGNING_DIGEST)
        good = tls13_good(signing, seed, signature);
    else if (signing->bare->hash == NULL)
        good = message_good(signing, bare_input(signing, seed), signature);
    else
        good = digest_good(signing, bare_input(signing, seed), signature);
    ERR_clear_error();
    return good;
}
