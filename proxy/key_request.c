#include "proxy/key_request.h"

#include <string.h>

static bool payload_make(struct key_request *request, uint16_t scheme, struct bytes content)
{
    struct writer to = writer_of(request->payload, sizeof request->payload);
    struct kssl_sign_tls13 tls13 = {.scheme = scheme};
    struct kssl_sign_tls12 tls12 = {.scheme = scheme};
    if (tls_certificate_verify_parse(content, &tls13.hash)) {
        request->opcode = KSSL_OP_SIGN_TLS13;
        kssl_sign_tls13_write(&to, &tls13);
    } else if (tls_server_key_exchange_parse(content, &tls12.parts)) {
        request->opcode = KSSL_OP_SIGN_TLS12;
        kssl_sign_tls12_write(&to, &tls12);
    } else {
        return false;
    }
    request->payload_size = (uint16_t)to.size;
    return writer_ok(&to);
}

bool key_request_make(struct key_request *request, const struct key_operation *operation)
{
    if (operation->sni.size > KEY_REQUEST_SNI_MAX)
        return false;
    memcpy(request->ski, operation->key->ski, sizeof request->ski);
    request->has_sni = operation->sni.data != NULL;
    request->sni_size = (uint16_t)operation->sni.size;
    if (request->has_sni && request->sni_size > 0)
        memcpy(request->sni, operation->sni.data, operation->sni.size);
    struct bytes ip;
    address_ip(&operation->client, &ip);
    request->ip_size = (uint16_t)(ip.size <= sizeof request->ip ? ip.size : 0);
    if (ip.data != NULL && request->ip_size > 0)
        memcpy(request->ip, ip.data, request->ip_size);
    return payload_make(request, operation->scheme, operation->content);
}

bool key_request_write(struct writer *to, uint32_t id, const struct key_request *request,
                       const char *request_id)
{
    struct kssl_message message = {
        .has_opcode = true,
        .opcode = request->opcode,
        .payload = bytes_of(request->payload, request->payload_size),
        .ski = bytes_of(request->ski, sizeof request->ski),
        .trace = bytes_of(request_id, strlen(request_id)),
    };
    if (request->has_sni)
        message.sni = bytes_of(request->sni, request->sni_size);
    if (request->ip_size > 0)
        message.client_ip = bytes_of(request->ip, request->ip_size);
    return kssl_message_write(to, id, &message);
}
