#include "proxy/handshake_state.h"

/*
 * libssl gives each message whole, however it was cut into records. What it gives as other content types are
 * records' headers, alerts and the like. All of this runs on the fibre.
 */
static void on_message(int is_ours, int version, int content_type, const void *octets, size_t size, SSL *ssl,
                       void *argument)
{
    struct handshake *handshake = SSL_get_app_data(ssl);
    (void)version;
    (void)argument;
    if (content_type != SSL3_RT_HANDSHAKE || handshake == NULL)
        return;
    /* ServerHello is the first that tells the version: TLS 1.2 signs no transcript. */
    if (is_ours != 0 && SSL_version(ssl) != TLS1_3_VERSION)
        handshake_messages_leave(handshake);
    else
        transcript_capture_add(&handshake->transcript, bytes_of(octets, size));
}

void handshake_messages_watch(struct handshake *handshake)
{
    if (handshake->context->config->key_servers[0].mode != KEY_MODE_TRANSCRIPT)
        return;
    handshake->signature.operation.transcript = &handshake->transcript;
    SSL_set_msg_callback(handshake->ssl, on_message);
}

void handshake_messages_leave(struct handshake *handshake)
{
    transcript_capture_release(&handshake->transcript);
    SSL_set_msg_callback(handshake->ssl, NULL);
}
